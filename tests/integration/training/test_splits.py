"""The shipped model on phantoms that it has never seen, read as a worker reads them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from emx_training.evaluate.baselines import best_constant_report
from emx_training.evaluate.predictions import read_cases
from emx_training.evaluate.scoring import score
from emx_training.evaluate.splits import SPLITS, read_split
from emx_training.phantoms import held_out_seeds, render
from emx_worker.model.loading import load_model
from explainmyxray.cli.evaluate import Split
from explainmyxray.cli.terminal import Quantisation
from support.paths import ROOT


def test_the_sites_draw_the_same_seeds_differently_and_the_splits_name_them() -> None:
    assert SPLITS == {"heldout": "alpha", "dev_site": "beta", "unseen_site": "gamma"}
    seed = held_out_seeds(1)[0]
    images = {render(seed, site=site).image.tobytes() for site in SPLITS.values()}
    assert len(images) == 3


def test_the_command_knows_the_splits_and_the_kinds_of_weights() -> None:
    assert [split.value for split in Split] == list(SPLITS)
    for kind in (Quantisation.AUTO, Quantisation.INT4, Quantisation.NONE):
        load_model(ROOT / "models" / "demo", quantisation=kind, device="cpu")


def test_the_demo_model_beats_the_best_constant_clearly() -> None:
    predictions = read_split(ROOT / "models" / "demo", "heldout", 64)
    constant = best_constant_report([prediction.truth for prediction in predictions])
    blind = {"prediction": constant, "probabilities": []}
    guessed = score(one.model_copy(update=blind) for one in predictions)
    scores = score(predictions)
    assert scores.parse_rate == 1
    assert scores.micro.f1 > guessed.micro.f1 + 0.3


def evaluate(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "explainmyxray", "evaluate", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=280, cwd=ROOT)


def test_emx_evaluate_prints_scores_with_intervals_that_its_results_file_gives_again(tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    answer = evaluate("--count", "5", "--split", "dev_site", "--json", "--output", str(results))
    assert answer.returncode == 0, answer.stderr
    scores = json.loads(answer.stdout)
    assert scores["studies"] == 5
    for name in ("micro_f1", "macro_f1", "mean_iou", "match_accuracy", "parse_rate", "flagged_rate"):
        low, high = scores[f"{name}_ci"]
        assert 0 <= low <= scores[name] <= high <= 1
    assert 0.3 < scores["token_accuracy"] < 1
    command = [sys.executable, "-m", "emx_training.metrics", "--predictions", str(results), "--json"]
    assert json.loads(subprocess.check_output(command, cwd=ROOT)) == scores
    for case in read_cases(results):
        assert case.site == "beta"
        assert len(case.probabilities or ()) == len(case.reported.locations)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--model", "/nowhere/model"), "There is no directory /nowhere/model"),
        (("--output", "/nowhere/results.json"), "There is no folder /nowhere"),
    ],
)
def test_what_cannot_be_evaluated_is_a_sentence(options: tuple[str, str], complaint: str) -> None:
    answer = evaluate("--count", "2", *options)
    assert answer.returncode == 1
    assert complaint in answer.stderr.replace("\n", " ")
    assert "Traceback" not in answer.stderr


def test_drawing_needs_no_torch() -> None:
    """Each of the processes that draw would take seconds and half a gigabyte more."""
    program = "import emx_training.evaluate.splits, sys; assert 'torch' not in sys.modules"
    subprocess.check_call([sys.executable, "-c", program], cwd=ROOT)
