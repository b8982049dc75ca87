"""Measure the finished demo model, and collect how it was trained."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from emx_training.data.phantom_reports import report_of
from emx_training.evaluate.baselines import best_constant_report
from emx_training.evaluate.figures import figures
from emx_training.evaluate.intervals import Interval, bootstrap
from emx_training.evaluate.predictions import Prediction, case_of
from emx_training.evaluate.scoring import Scores, combine, score
from emx_training.evaluate.splits import read_phantoms, read_split
from emx_training.evaluate.tally import tally
from emx_training.finetune.loop import CURVE
from emx_training.ood.abstention import measure_abstention
from emx_training.pretrain.pretraining import BATCH
from emx_training.recipes.demo_run import DemoRun
from emx_training.recipes.demo_schedule import PHASE1, PHASE2, SAMPLE_SIZE, SAMPLES_TRIED
from emx_training.recipes.model_card import CardFigures, TrainingRecord

Curves = Mapping[str, Sequence[Mapping[str, Any]]]


def measure(demo: DemoRun, heldout: Sequence[Prediction]) -> CardFigures:
    """Score the model as the worker serves it, and the best constant report.

    Args:
        demo: the recipe's run.
        heldout: predictions of the held-out split with the default quantisation.

    Raises:
        ModelError: if the model can't be loaded.
    """
    held_out, watched = demo.schedule.held_out, demo.watched()
    predictions = {
        "held out, int4": heldout,
        "held out, fp32": read_split(demo.output, "heldout", held_out, quantisation="none"),
        "site beta, int4": read_split(demo.output, "dev_site", held_out),
        "unseen site gamma, int4": read_split(demo.output, "unseen_site", held_out),
    }
    columns = {name: _scored(column) for name, column in predictions.items()}
    texts = [str(report_of(seen)) for seen in map(watched.findings, range(demo.schedule.watched))]
    constant: dict[str, object] = {"prediction": best_constant_report(texts), "probabilities": [], "tokens": None}
    constants = [prediction.model_copy(update=constant) for prediction in heldout]
    return CardFigures(columns, _scored(constants)[0], measure_abstention(demo.output, demo.radiographs))


def choose_sample(model: Path, predictions: Sequence[Prediction]) -> int:
    """Return a held-out seed with 2 findings or more that the model reads well.

    The candidates are the best predictions; the one that is also read best when it is drawn large is chosen.
    """
    ranked = sorted(predictions, key=_worst_match, reverse=True)[:SAMPLES_TRIED]
    large = read_phantoms(model, [int(one.id) for one in ranked], "alpha", size=SAMPLE_SIZE)
    return int(max(large, key=_worst_match).id)


def learning_curves(demo: DemoRun) -> Curves:
    """Return the learning curve of each stage and phase, by name."""
    files = {stage.name: demo.work / f"{stage.name}-curve.json" for stage in demo.schedule.pretraining}
    files |= {phase: demo.work / phase / CURVE for phase in ("phase1", "phase2")}
    return {name: json.loads(file.read_text()) for name, file in files.items()}


def training_record(demo: DemoRun, curves: Curves) -> TrainingRecord:
    """Return how the model was trained, for its card."""
    phantoms, phase = f"{demo.schedule.phantoms:,}", f"{demo.schedule.phase:,}"
    learned = {
        "vision": f"of {phantoms} phantoms; masks and boxes",
        "captions": "of the same; lists of findings with boxes",
        "reports": "of the same; whole reports",
        "details": f"small findings {demo.stage('details').rare:g} times as often; masks and boxes",
        "polish": "whole reports",
        "fresh": f"of {phantoms} others, small findings {demo.stage('fresh').rare:g} times as often; "
        "whole reports",
    }
    seen = {name: f"{demo.stage(name).steps * BATCH:,}, {what}" for name, what in learned.items()}
    seen["phase1"] = f"{phase} others, `{' '.join(PHASE1)}`; report text"
    seen["phase2"] = f"the same {phase}, `{' '.join(PHASE2)}`; locations"
    return TrainingRecord(
        command=f"python -m emx_training.recipes.demo_model --output {demo.output}"
        + (f" --seed {demo.seed}" if demo.seed else ""),
        seed=demo.seed,
        base_parameters=_parameters(demo.output / "model.safetensors"),
        adapter_parameters=_parameters(demo.adapter / "adapter_model.safetensors"),
        stages=[(name, text, curves[name][-1]["minutes"]) for name, text in seen.items()],
        threads=torch.get_num_threads(),
    )


def _scored(predictions: Sequence[Prediction]) -> tuple[Scores, dict[str, Interval]]:
    tallies = [tally(case_of(prediction)) for prediction in predictions]
    return combine(tallies), bootstrap(figures(tallies), len(tallies))


def _worst_match(prediction: Prediction) -> float:
    """Return the lowest IoU of an image with 2 findings or more that are all reported; else -1."""
    case = case_of(prediction)
    scores = score([prediction])
    if len(case.reported.locations) < 2 or scores.exact_findings < 1:
        return -1.0
    return min(scores.term_iou.values())


def _parameters(file: Path) -> int:
    with safe_open(file, framework="pt") as tensors:
        return sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
