"""The shipped model on phantoms that it has never seen, read as a worker reads them."""

import json
import subprocess
import sys

from shared.settings import ROOT
from training.baselines import best_constant_report
from training.phantoms import FIRST_HELD_OUT_SEED, training_seeds
from training.scoring import score
from training.splits import SPLITS, read_split


def test_held_out_phantoms_are_not_those_of_training() -> None:
    held_out = SPLITS["heldout"](500)
    assert min(held_out) >= FIRST_HELD_OUT_SEED > max(training_seeds(100_000, seed=99))


def test_the_demo_model_beats_the_best_constant_clearly() -> None:
    predictions = read_split(ROOT / "models" / "demo", "heldout", 64)
    constant = best_constant_report([prediction.truth for prediction in predictions])
    guessed = score(one.model_copy(update={"prediction": constant}) for one in predictions)
    scores = score(predictions)
    assert scores.parse_rate == 1
    assert scores.micro.f1 > guessed.micro.f1 + 0.3


def test_emx_evaluate_prints_scores_with_intervals() -> None:
    command = [sys.executable, "-m", "explainmyxray.cli", "evaluate", "--count", "4", "--json"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert answer.returncode == 0, answer.stderr
    scores = json.loads(answer.stdout)
    for name in ("micro_f1", "macro_f1", "mean_iou", "match_accuracy", "parse_rate", "flagged_rate"):
        low, high = scores[f"{name}_ci"]
        assert 0 <= low <= scores[name] <= high <= 1
