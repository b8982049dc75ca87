"""Make the demo model: a base, its adapter, its guard and its card.

``python -m emx_training.recipes.demo_model --output models/demo``

There are ten steps. When the command is run again, a step that is done is skipped, and an interrupted one
resumes. *vision*, *captions*, *reports*, *details*, *polish* and *fresh* pre-train a base on phantoms of site
alpha; *phase1* and *phase2* run this project's fine-tuning commands on it; *guard* is fitted to what the base has
seen; *card* measures the model and writes the figures down. ``--until STEP`` stops after a step. ``--rehearse``
runs every step for a minute or two in all, to see that each works on this machine; its model is of no use.
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
)
from emx_training.pretrain.dense_targets import DenseHeads
from emx_training.pretrain.phantom_batches import AnswerWriter, PhantomBatches
from emx_training.pretrain.phantom_cache import CachedPhantoms
from emx_training.pretrain.pretraining import PretrainingRun, Stage, caption, pretrain
from emx_training.recipes.demo_evaluation import choose_sample, learning_curves, measure, training_record
from emx_training.recipes.demo_run import DemoRun
from emx_training.recipes.demo_schedule import (
    FRESH_BLOCK,
    NAME,
    PHASE1,
    PHASE2,
    PHASE_BLOCK,
    PHASE_WATCHED_BLOCK,
    SAMPLE_SIZE,
    WATCHED_SITES,
    DemoSchedule,
)
from emx_training.recipes.model_card import model_card
from emx_worker.model.checkpoint import revision_of, write_model_spec


def vision(demo: DemoRun) -> None:
    """Train the tower on masks and boxes."""
    _run_stage(demo, "vision", None)


def captions(demo: DemoRun) -> None:
    """Train the whole model on bare lists of findings."""
    _run_stage(demo, "captions", caption)


def reports(demo: DemoRun) -> None:
    """Train the whole model on whole reports, so that it learns their words."""
    _run_stage(demo, "reports", _report)


def details(demo: DemoRun) -> None:
    """Train the tower again, with small findings more often: it learns them slowly."""
    _run_stage(demo, "details", None)


def polish(demo: DemoRun) -> None:
    """Train the whole model on whole reports while the rate falls, and write a first base."""
    _write_base(_run_stage(demo, "polish", _report), demo)


def fresh(demo: DemoRun) -> None:
    """Train that base with new heads on phantoms that it hasn't seen, and write it again."""
    run = _new_run(demo.stage("fresh"), demo.seed)
    base = Gemma3ForConditionalGeneration.from_pretrained(demo.output, dtype=torch.float32)
    run.model.load_state_dict(base.state_dict())
    _train(run, demo.phantoms(demo.schedule.phantoms, demo.seed * 10 + FRESH_BLOCK), _report, demo)
    _write_base(run, demo)


def phase1(demo: DemoRun) -> None:
    """Fine-tune on report text, with the command that MedGemma is trained with."""
    train = demo.phantoms(demo.schedule.phase, PHASE_BLOCK)
    validation = demo.phantoms(demo.schedule.phase_watched, PHASE_WATCHED_BLOCK)
    write_collection(demo.collection, train, validation)
    finetune_phase1.main(
        ["--csv", str(demo.collection / "train.csv"), "--images", str(demo.collection),
         "--output", str(demo.work / "phase1"), "--base", str(demo.output), "--seed", str(demo.seed), *PHASE1]
    )  # fmt: skip


def phase2(demo: DemoRun) -> None:
    """Fine-tune on locations in the same way, and copy the adapter into the checkpoint."""
    output = demo.work / "phase2"
    finetune_phase2.main(
        ["--csv", str(demo.collection / "boxes.csv"),
         "--output", str(output), "--phase1_ckpt", str(demo.work / "phase1"), "--base", str(demo.output),
         "--seed", str(demo.seed), *PHASE2]
    )  # fmt: skip
    shutil.rmtree(demo.adapter, ignore_errors=True)
    shutil.copytree(output, demo.adapter, ignore=shutil.ignore_patterns(STATE, "*.part", CURVE, "README.md"))
    for file in demo.adapter.iterdir():
        file.chmod(0o644)  # safetensors makes files that only the owner can read


def guard(demo: DemoRun) -> None:
    """Fit the guard to what the base has seen. Its threshold may look at site beta, but not at gamma."""
    seen = demo.phantoms(demo.schedule.guard, demo.seed * 10)
    fit_guard(demo.output, seen, map(demo.watched, WATCHED_SITES)).save(demo.output)


def card(demo: DemoRun) -> None:
    """Measure the shipped model as the worker serves it, choose the sample image, and write the card."""
    heldout = read_split(demo.output, "heldout", demo.schedule.held_out)
    write_predictions(heldout, demo.work / "heldout.json")
    figures = measure(demo, heldout)
    sample = choose_sample(demo.output, heldout)
    Image.fromarray(render(sample, SAMPLE_SIZE).image).save(demo.output / "sample.png", optimize=True)
    curves = learning_curves(demo)
    (demo.output / "curve.json").write_text(json.dumps(curves) + "\n", encoding="utf-8")
    text = model_card(training_record(demo, curves), figures, sample, SAMPLE_SIZE)
    (demo.output / "README.md").write_text(text, encoding="utf-8")
    print(text)


STEPS: dict[str, Callable[[DemoRun], None]] = {
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


def _run_stage(demo: DemoRun, name: str, write: AnswerWriter | None) -> PretrainingRun:
    """Train a stage from where the stages before it ended."""
    stage, stages = demo.stage(name), demo.schedule.pretraining
    run = _new_run(stage, demo.seed)
    # All of them: a stage without text saves the tower only.
    for earlier in stages[: stages.index(stage)]:
        PretrainingRun(run.model, run.heads, earlier).restore(demo.work)
    _train(run, demo.seen(), write, demo)
    return run


def _train(run: PretrainingRun, seen: CachedPhantoms, write: AnswerWriter | None, demo: DemoRun) -> None:
    """Train a stage; each has its own order of the phantoms."""
    processor = build_processor(demo_config())
    phantom_batches = PhantomBatches(seen, processor, write)
    watched = PhantomBatches(demo.watched(), processor, write)
    pretrain(run, phantom_batches, watched, demo.work, demo.seed + demo.schedule.pretraining.index(run.stage))


def _new_run(stage: Stage, seed: int) -> PretrainingRun:
    config = demo_config()
    torch.manual_seed(seed)
    return PretrainingRun(random_model(seed, config), DenseHeads(config.vision_config.hidden_size), stage)


def _write_base(run: PretrainingRun, demo: DemoRun) -> None:
    """Write the checkpoint, and then its emx.json with the revision that follows from the weights."""
    unfinished = phantom_model_spec(NAME, "unfinished")
    save_checkpoint(run.model, build_processor(demo_config()), unfinished, demo.output)
    spec = phantom_model_spec(NAME, revision_of(demo.output)).model_copy(update={"adapter": "adapter"})
    write_model_spec(spec, demo.output)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command: every step that isn't done, in order."""
    options = _options(arguments)
    schedule = DemoSchedule().rehearsal() if options.rehearse else DemoSchedule()
    demo = DemoRun(options.output, options.work, options.cache, options.radiographs, options.seed, schedule)
    done = demo.work / "done.json"
    finished: list[str] = json.loads(done.read_text()) if done.exists() else []
    for name, step in STEPS.items():
        if name not in finished:
            print(f"Step {name}", flush=True)
            step(demo)
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
    parser.add_argument("--rehearse", action="store_true", help="run every step at the smallest size")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
