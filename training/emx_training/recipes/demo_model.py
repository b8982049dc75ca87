"""Make the demo model: a base, its adapter, its guard and its card.

``python -m emx_training.recipes.demo_model --output models/demo``

There are ten steps. When the command is run again, a step that is done is skipped, and an interrupted one resumes.
*vision*, *captions*, *reports*, *details*, *polish* and *fresh* pre-train a base on phantoms of site alpha;
*phase1* and *phase2* run this project's fine-tuning commands on it; *guard* is fitted to what the base has seen;
*card* measures the model and writes the figures down. ``--until STEP`` stops after a step.
"""

import argparse
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL import Image
from transformers import Gemma3ForConditionalGeneration

from emx_shared.grammar import LocatedFinding
from emx_training import finetune_phase1, finetune_phase2
from emx_training.data.phantom_reports import report_of
from emx_training.data.phantom_tables import write_collection
from emx_training.evaluate.predictions import write_predictions
from emx_training.evaluate.splits import read_split
from emx_training.finetune.loop import CURVE, STATE
from emx_training.ood.guard_fitting import fit_guard
from emx_training.phantoms import render
from emx_training.pretrain.demo_architecture import (
    build_processor,
    demo_config,
    phantom_model_spec,
    random_model,
    save_checkpoint,
    write_model_spec,
)
from emx_training.pretrain.dense_targets import DenseHeads
from emx_training.pretrain.phantom_batches import AnswerWriter, PhantomBatches
from emx_training.pretrain.phantom_cache import CachedPhantoms
from emx_training.pretrain.pretraining import PretrainingRun, Stage, caption, pretrain
from emx_training.recipes.demo_evaluation import choose_sample, learning_curves, measure, training_record
from emx_training.recipes.demo_folders import DemoFolders
from emx_training.recipes.demo_schedule import (
    CAPTIONS,
    DETAILS,
    FRESH,
    FRESH_BLOCK,
    GUARD_PHANTOMS,
    HELD_OUT,
    NAME,
    PHANTOMS,
    PHASE1,
    PHASE2,
    PHASE_BLOCK,
    PHASE_PHANTOMS,
    PHASE_WATCHED,
    PHASE_WATCHED_BLOCK,
    POLISH,
    PRETRAINING,
    REPORTS,
    SAMPLE_SIZE,
    VISION,
    WATCHED_SITES,
)
from emx_training.recipes.model_card import model_card
from emx_worker.model.checkpoint import revision_of


def vision(folders: DemoFolders, seed: int) -> None:
    """Train the tower on masks and boxes."""
    _run_stage(folders, seed, VISION, None)


def captions(folders: DemoFolders, seed: int) -> None:
    """Train the whole model on bare lists of findings."""
    _run_stage(folders, seed, CAPTIONS, caption)


def reports(folders: DemoFolders, seed: int) -> None:
    """Train the whole model on whole reports, so that it learns their words."""
    _run_stage(folders, seed, REPORTS, _report)


def details(folders: DemoFolders, seed: int) -> None:
    """Train the tower again, with small findings more often: it learns them slowly."""
    _run_stage(folders, seed, DETAILS, None)


def polish(folders: DemoFolders, seed: int) -> None:
    """Train the whole model on whole reports while the rate falls, and write a first base."""
    _write_base(_run_stage(folders, seed, POLISH, _report), folders)


def fresh(folders: DemoFolders, seed: int) -> None:
    """Train that base with new heads on phantoms that it hasn't seen, and write it again."""
    run = _new_run(FRESH, seed)
    base = Gemma3ForConditionalGeneration.from_pretrained(folders.output, dtype=torch.float32)
    run.model.load_state_dict(base.state_dict())
    _train(run, folders.phantoms(PHANTOMS, seed * 10 + FRESH_BLOCK), _report, folders, seed)
    _write_base(run, folders)


def phase1(folders: DemoFolders, seed: int) -> None:
    """Fine-tune on report text, with the command that MedGemma is trained with."""
    train = folders.phantoms(PHASE_PHANTOMS, PHASE_BLOCK)
    validation = folders.phantoms(PHASE_WATCHED, PHASE_WATCHED_BLOCK)
    write_collection(folders.collection, train, validation)
    finetune_phase1.main(
        ["--csv", str(folders.collection / "train.csv"), "--images", str(folders.collection),
         "--output", str(folders.work / "phase1"), "--base", str(folders.output), "--seed", str(seed), *PHASE1]
    )  # fmt: skip


def phase2(folders: DemoFolders, seed: int) -> None:
    """Fine-tune on locations in the same way, and copy the adapter into the checkpoint."""
    output = folders.work / "phase2"
    finetune_phase2.main(
        ["--csv", str(folders.collection / "boxes.csv"),
         "--output", str(output), "--phase1_ckpt", str(folders.work / "phase1"), "--base", str(folders.output),
         "--seed", str(seed), *PHASE2]
    )  # fmt: skip
    shutil.rmtree(folders.adapter, ignore_errors=True)
    shutil.copytree(output, folders.adapter, ignore=shutil.ignore_patterns(STATE, "*.part", CURVE, "README.md"))
    for file in folders.adapter.iterdir():
        file.chmod(0o644)  # safetensors makes files that only the owner can read


def guard(folders: DemoFolders, seed: int) -> None:
    """Fit the guard to what the base has seen. Its threshold may look at site beta, but not at gamma."""
    seen = folders.phantoms(GUARD_PHANTOMS, seed * 10)
    watched = (folders.watched(site) for site in WATCHED_SITES)
    fit_guard(folders.output, seen, watched).save(folders.output)


def card(folders: DemoFolders, seed: int) -> None:
    """Measure the shipped model as the worker serves it, choose the sample image, and write the card."""
    heldout = read_split(folders.output, "heldout", HELD_OUT)
    write_predictions(heldout, folders.work / "heldout.json")
    figures = measure(folders, heldout)
    sample = choose_sample(folders.output, heldout)
    Image.fromarray(render(sample, SAMPLE_SIZE).image).save(folders.output / "sample.png", optimize=True)
    curves = learning_curves(folders.work)
    (folders.output / "curve.json").write_text(json.dumps(curves) + "\n", encoding="utf-8")
    text = model_card(training_record(folders, seed, curves), figures, sample, SAMPLE_SIZE)
    (folders.output / "README.md").write_text(text, encoding="utf-8")
    print(text)


STEPS: dict[str, Callable[[DemoFolders, int], None]] = {
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


def _run_stage(folders: DemoFolders, seed: int, stage: Stage, write: AnswerWriter | None) -> PretrainingRun:
    """Train a stage from where the stages before it ended."""
    run = _new_run(stage, seed)
    # All of them: a stage without text saves the tower only.
    for earlier in PRETRAINING[: PRETRAINING.index(stage)]:
        PretrainingRun(run.model, run.heads, earlier).restore(folders.work)
    _train(run, folders.seen(seed), write, folders, seed)
    return run


def _train(
    run: PretrainingRun, seen: CachedPhantoms, write: AnswerWriter | None, folders: DemoFolders, seed: int
) -> None:
    """Train a stage; each has its own order of the phantoms."""
    processor = build_processor(demo_config())
    phantom_batches = PhantomBatches(seen, processor, write)
    watched = PhantomBatches(folders.watched(), processor, write)
    pretrain(run, phantom_batches, watched, folders.work, seed + PRETRAINING.index(run.stage))


def _new_run(stage: Stage, seed: int) -> PretrainingRun:
    config = demo_config()
    torch.manual_seed(seed)
    return PretrainingRun(random_model(seed, config), DenseHeads(config.vision_config.hidden_size), stage)


def _write_base(run: PretrainingRun, folders: DemoFolders) -> None:
    """Write the checkpoint, and then its emx.json with the revision that follows from the weights."""
    unfinished = phantom_model_spec(NAME, "unfinished")
    save_checkpoint(run.model, build_processor(demo_config()), unfinished, folders.output)
    spec = phantom_model_spec(NAME, revision_of(folders.output)).model_copy(update={"adapter": "adapter"})
    write_model_spec(spec, folders.output)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command: every step that isn't done, in order."""
    options = _options(arguments)
    folders = DemoFolders(options.output, options.work, options.cache, options.radiographs)
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


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m emx_training.recipes.demo_model",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--output", type=Path, required=True, help="folder to write the checkpoint to")
    parser.add_argument("--work", type=Path, default=Path("runs/demo"), help="folder of the run's own files")
    parser.add_argument("--cache", type=Path, default=Path("runs/phantoms"), help="folder of rendered phantoms")
    parser.add_argument("--radiographs", type=Path, help="folder of real radiographs that the model must decline")
    parser.add_argument("--seed", type=int, default=0, help="of weights, phantoms and order")
    parser.add_argument("--until", choices=STEPS, default=list(STEPS)[-1], help="stop after this step")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
