"""Makes the demo model, from nothing to a checkpoint with its adapter, its guard and its card.

``python -m emx_training.recipes.demo_model --output models/demo``

Ten steps, each of which goes on where it stopped when the command is given again, and is passed over once it is
done: *vision*, *captions*, *reports*, *details*, *polish* and *fresh* pre-train a base on phantoms of site alpha;
*phase1* and *phase2* are this project's own fine-tuning scripts on it; *guard* learns what the base has seen;
*card* measures all and writes it down.
``--until STEP`` stops after a step.
"""

import argparse
import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from safetensors import safe_open
from transformers import Gemma3ForConditionalGeneration

from emx_shared.grammar import LocatedFinding
from emx_training import finetune_phase1, finetune_phase2
from emx_training.data.phantom_reports import report_of
from emx_training.data.phantom_tables import write_collection
from emx_training.evaluate.baselines import best_constant_report
from emx_training.evaluate.figures import figures
from emx_training.evaluate.intervals import Interval, bootstrap
from emx_training.evaluate.predictions import Prediction, case_of, write_predictions
from emx_training.evaluate.scoring import Scores, combine, score
from emx_training.evaluate.splits import read_phantoms, read_split
from emx_training.evaluate.tally import tally
from emx_training.finetune.loop import CURVE, STATE
from emx_training.ood.abstention import decline
from emx_training.ood.guard_fitting import fit_guard
from emx_training.phantoms import SiteName, render, training_seeds
from emx_training.pretrain.demo_architecture import (
    build_processor,
    demo_config,
    phantom_model_spec,
    random_model,
    save_checkpoint,
)
from emx_training.pretrain.dense_targets import DenseHeads
from emx_training.pretrain.phantom_batches import Lessons, Writer
from emx_training.pretrain.phantom_cache import CachedPhantoms, cached_phantoms
from emx_training.pretrain.pretraining import BATCH, Run, Stage, caption, pretrain
from emx_training.recipes.model_card import Made, Measured, model_card
from emx_worker.model.checkpoint import MODEL_SPEC_FILE, revision_of

NAME = "explainmyxray-demo"

FRESH_BLOCK, PHASE_BLOCK, PHASE_WATCHED_BLOCK, WATCHED_BLOCK = 2, 1, 98, 99
"""Blocks of training seeds: what *fresh* and the phases learn from, what learning curves are watched on."""

WATCHED_SITES: tuple[SiteName, ...] = ("alpha", "beta")

VISION = Stage("vision", steps=985, rate=1.2e-3, dense=1.0)
CAPTIONS = Stage("captions", steps=650, rate=1.2e-3, dense=0.5, softness=(24.0, 6.0), decay=0.5)
REPORTS = Stage("reports", steps=330, rate=1.0e-3, dense=0.3, softness=(10.0, 6.0), decay=0.7)
DETAILS = Stage("details", steps=1_800, rate=1.2e-3, dense=1.0, rare=4.0, decay=0.15)
POLISH = Stage("polish", steps=1_000, rate=1.0e-3, dense=0.5, softness=(8.0, 4.0), decay=0.7)
FRESH = Stage("fresh", steps=900, rate=1.0e-3, dense=0.3, softness=(5.0, 3.0), decay=0.8, rare=3.0)
PRETRAINING = (VISION, CAPTIONS, REPORTS, DETAILS, POLISH, FRESH)
PHANTOMS, WATCHED = 50_000, 500
PHASE_PHANTOMS, PHASE_WATCHED = 2_400, 200
GUARD_PHANTOMS = 4_000
HELD_OUT = 500
SAMPLE_SIZE, SAMPLES_TRIED = 1024, 16
PHASE1 = ("--epochs", "1", "--lr", "3e-4", "--lora_r", "16", "--batch", "16")
PHASE2 = ("--epochs", "1", "--lr", "3e-4", "--batch", "16")


@dataclass(frozen=True)
class Folders:
    """Where things lie: the checkpoint, the run's own files, rendered phantoms, real radiographs to decline."""

    output: Path
    work: Path
    cache: Path
    radiographs: Path | None

    @property
    def adapter(self) -> Path:
        return self.output / "adapter"

    @property
    def collection(self) -> Path:
        return self.work / "collection"


def vision(folders: Folders, seed: int) -> None:
    """The tower alone, on masks and boxes."""
    _go_on(folders, seed, VISION, None)


def captions(folders: Folders, seed: int) -> None:
    """The whole model, on bare lists of findings."""
    _go_on(folders, seed, CAPTIONS, caption)


def reports(folders: Folders, seed: int) -> None:
    """The whole model, on whole reports, so that it has their words."""
    _go_on(folders, seed, REPORTS, _report)


def details(folders: Folders, seed: int) -> None:
    """The tower alone again, on what it is slow to learn: small findings are shown more often."""
    _go_on(folders, seed, DETAILS, None)


def polish(folders: Folders, seed: int) -> None:
    """The whole model, on whole reports, until the rate has fallen to nothing; then a first base is written."""
    run = _go_on(folders, seed, POLISH, _report)
    _write_base(run, folders)


def fresh(folders: Folders, seed: int) -> None:
    """The same once more from that base, with new heads, on phantoms that it hasn't seen; writes the base anew."""
    run = _begun(FRESH, seed)
    base = Gemma3ForConditionalGeneration.from_pretrained(folders.output, dtype=torch.float32)
    run.model.load_state_dict(base.state_dict())
    phantoms = cached_phantoms(training_seeds(PHANTOMS, seed * 10 + FRESH_BLOCK), folders.cache)
    _train(run, phantoms, _report, folders, seed)
    _write_base(run, folders)


def _write_base(run: Run, folders: Folders) -> None:
    save_checkpoint(
        run.model, build_processor(demo_config()), phantom_model_spec(NAME, "unfinished"), folders.output
    )
    spec = phantom_model_spec(NAME, revision_of(folders.output)).model_copy(update={"adapter": "adapter"})
    text = spec.model_dump_json(indent=2, exclude_none=True)
    (folders.output / MODEL_SPEC_FILE).write_text(text + "\n", encoding="utf-8")


def phase1(folders: Folders, seed: int) -> None:
    """Report text, by the script that MedGemma is trained with."""
    train = cached_phantoms(training_seeds(PHASE_PHANTOMS, PHASE_BLOCK), folders.cache)
    validation = cached_phantoms(training_seeds(PHASE_WATCHED, PHASE_WATCHED_BLOCK), folders.cache)
    write_collection(folders.collection, train, validation)
    finetune_phase1.main(
        ["--csv", str(folders.collection / "train.csv"), "--images", str(folders.collection),
         "--output", str(folders.work / "phase1"), "--base", str(folders.output), "--seed", str(seed), *PHASE1]
    )  # fmt: skip


def phase2(folders: Folders, seed: int) -> None:
    """Locations, likewise; the adapter is put beside the base."""
    output = folders.work / "phase2"
    finetune_phase2.main(
        ["--csv", str(folders.collection / "boxes.csv"),
         "--output", str(output), "--phase1_ckpt", str(folders.work / "phase1"), "--base", str(folders.output),
         "--seed", str(seed), *PHASE2]
    )  # fmt: skip
    shutil.rmtree(folders.adapter, ignore_errors=True)
    shutil.copytree(output, folders.adapter, ignore=shutil.ignore_patterns(STATE, "*.part", CURVE, "README.md"))
    for file in folders.adapter.iterdir():
        file.chmod(0o644)  # safetensors writes for the owner alone


def guard(folders: Folders, seed: int) -> None:
    """What the base has seen, so that it can decline the rest. Thresholds may look at site beta, not at gamma."""
    seen = cached_phantoms(training_seeds(GUARD_PHANTOMS, seed * 10), folders.cache)
    watched = (_watched(folders, site) for site in WATCHED_SITES)
    fit_guard(folders.output, seen, watched).save(folders.output)


def card(folders: Folders, seed: int) -> None:
    """Measure the shipped model as the worker serves it, choose the sample image, and write the card."""
    heldout = read_split(folders.output, "heldout", HELD_OUT)
    write_predictions(heldout, folders.work / "heldout.json")
    readings = {
        "held out, int4": heldout,
        "held out, fp32": read_split(folders.output, "heldout", HELD_OUT, quantisation="none"),
        "site beta, int4": read_split(folders.output, "dev_site", HELD_OUT),
        "unseen site gamma, int4": read_split(folders.output, "unseen_site", HELD_OUT),
    }
    columns = {name: _scored(predictions) for name, predictions in readings.items()}
    texts = [str(report_of(seen)) for seen in map(_watched(folders).findings, range(WATCHED))]
    constant = best_constant_report(texts)
    told = [
        study.model_copy(update={"prediction": constant, "probabilities": [], "tokens": None}) for study in heldout
    ]
    measured = Measured(columns, _scored(told)[0], decline(folders.output, folders.radiographs))
    sample = _choose_sample(folders.output, heldout)
    Image.fromarray(render(sample, SAMPLE_SIZE).image).save(folders.output / "sample.png", optimize=True)
    text = model_card(_made(folders, seed), measured, sample, SAMPLE_SIZE)
    (folders.output / "README.md").write_text(text, encoding="utf-8")
    print(text)


def _scored(predictions: Sequence[Prediction]) -> tuple[Scores, dict[str, Interval]]:
    tallies = [tally(case_of(study)) for study in predictions]
    return combine(tallies), bootstrap(figures(tallies), len(tallies))


def _choose_sample(model: Path, readings: Sequence[Prediction]) -> int:
    """A held-out seed that shows 2 findings or more well: of those read best, the best when drawn large."""
    ranked = sorted(readings, key=_worst_match, reverse=True)[:SAMPLES_TRIED]
    large = read_phantoms(model, [int(one.id) for one in ranked], "alpha", size=SAMPLE_SIZE)
    return int(max(large, key=_worst_match).id)


def _worst_match(reading: Prediction) -> float:
    """Lowest IoU of a study with 2 or more findings that were all told; else -1."""
    case = case_of(reading)
    scores = score([reading])
    if len(case.told.locations) < 2 or scores.exact_findings < 1:
        return -1.0
    return min(scores.term_iou.values())


def _made(folders: Folders, seed: int) -> Made:
    minutes = {}
    curves = {}
    for stage in PRETRAINING:
        curves[stage.name] = json.loads((folders.work / f"{stage.name}-curve.json").read_text())
        minutes[stage.name] = curves[stage.name][-1]["minutes"]
    for phase in ("phase1", "phase2"):
        curves[phase] = json.loads((folders.work / phase / CURVE).read_text())
        minutes[phase] = curves[phase][-1]["minutes"]
    (folders.output / "curve.json").write_text(json.dumps(curves) + "\n", encoding="utf-8")
    seen = {
        "vision": f"{VISION.steps * BATCH:,} phantoms, of {PHANTOMS:,} different ones; masks and boxes",
        "captions": f"{CAPTIONS.steps * BATCH:,}, of the same; lists of findings with boxes",
        "reports": f"{REPORTS.steps * BATCH:,}, of the same; whole reports",
        "details": f"{DETAILS.steps * BATCH:,}, small findings {DETAILS.rare:g} times as often; masks and boxes",
        "polish": f"{POLISH.steps * BATCH:,}; whole reports",
        "fresh": f"{FRESH.steps * BATCH:,}, of {PHANTOMS:,} others, small findings {FRESH.rare:g} times as often; "
        "whole reports",
        "phase1": f"{PHASE_PHANTOMS:,} others, `{' '.join(PHASE1)}`; report text",
        "phase2": f"the same {PHASE_PHANTOMS:,}, `{' '.join(PHASE2)}`; whole reports with boxes",
    }
    return Made(
        command=f"python -m emx_training.recipes.demo_model --output {folders.output}"
        + (f" --seed {seed}" if seed else ""),
        seed=seed,
        base_parameters=_weights(folders.output / "model.safetensors"),
        adapter_parameters=_weights(folders.adapter / "adapter_model.safetensors"),
        stages=[(name, text, minutes[name]) for name, text in seen.items()],
        threads=torch.get_num_threads(),
    )


def _weights(file: Path) -> int:
    with safe_open(file, framework="pt") as tensors:
        return sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118


STEPS: dict[str, Callable[[Folders, int], None]] = {
    "vision": vision,
    "captions": captions,
    "reports": reports,
    "details": details,
    "polish": polish,
    "fresh": fresh,
    "phase1": phase1,
    "phase2": phase2,
    "guard": guard,
    "card": card,
}


def _report(findings: Sequence[LocatedFinding]) -> str:
    return str(report_of(findings))


def _go_on(folders: Folders, seed: int, stage: Stage, write: Writer | None) -> Run:
    """A stage from where the ones before it ended."""
    run = _begun(stage, seed)
    for earlier in PRETRAINING[: PRETRAINING.index(stage)]:  # all of them: one without words keeps the tower alone
        Run(run.model, run.heads, earlier).restore(folders.work)
    _train(run, _seen(folders, seed), write, folders, seed)
    return run


def _train(run: Run, seen: CachedPhantoms, write: Writer | None, folders: Folders, seed: int) -> None:
    """Each stage has an order of the phantoms of its own."""
    processor = build_processor(demo_config())
    lessons, watched = Lessons(seen, processor, write), Lessons(_watched(folders), processor, write)
    pretrain(run, lessons, watched, folders.work, seed + PRETRAINING.index(run.stage))


def _begun(stage: Stage, seed: int) -> Run:
    config = demo_config()
    torch.manual_seed(seed)
    return Run(random_model(seed, config), DenseHeads(config.vision_config.hidden_size), stage)


def _seen(folders: Folders, seed: int) -> CachedPhantoms:
    """Those to learn from before *fresh*."""
    return cached_phantoms(training_seeds(PHANTOMS, seed * 10), folders.cache)


def _watched(folders: Folders, site: SiteName = "alpha") -> CachedPhantoms:
    """Those to watch."""
    return cached_phantoms(training_seeds(WATCHED, WATCHED_BLOCK), folders.cache, site)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m emx_training.recipes.demo_model",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of the checkpoint")
    parser.add_argument("--work", type=Path, default=Path("runs/demo"), help="folder of the run's own files")
    parser.add_argument("--cache", type=Path, default=Path("runs/phantoms"), help="folder of rendered phantoms")
    parser.add_argument("--radiographs", type=Path, help="folder of real radiographs that the model must decline")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--until", choices=STEPS, default=list(STEPS)[-1], help="stop after this step")
    options = parser.parse_args(arguments)
    folders = Folders(options.output, options.work, options.cache, options.radiographs)
    done = folders.work / "done.json"
    finished: list[str] = json.loads(done.read_text()) if done.exists() else []
    for name, step in STEPS.items():
        if name not in finished:
            print(f"Step {name}", flush=True)
            step(folders, options.seed)
            finished.append(name)
            done.parent.mkdir(parents=True, exist_ok=True)
            done.write_text(json.dumps(finished) + "\n", encoding="utf-8")
        if name == options.until:
            break


if __name__ == "__main__":
    main()
