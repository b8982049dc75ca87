"""Results files, and the errors of invalid ones."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from emx_training.evaluate.predictions import (
    BadPredictions,
    ForcedTokens,
    Prediction,
    case_of,
    read_cases,
    write_predictions,
)
from support.paths import ROOT

REPORT = "FINDINGS: One.\nLOCATIONS: nodule left <loc0100><loc0100><loc0200><loc0200>\nIMPRESSION: One."
GOOD = {"id": "a", "truth": REPORT, "prediction": REPORT}


def metrics(results: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "emx_training.metrics", "--predictions", str(results), *options]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "isn't JSON"),
        ("[]", "contains no list of images"),
        ('{"id": "a"}', "contains no list of images"),
        ('[{"id": "a", "truth": "x"}]', "item 1 (id a), field prediction: Field required"),
        (json.dumps([GOOD, {**GOOD, "abstain": True}]), "item 2 (id a), field abstain: Extra inputs"),
        (json.dumps([{**GOOD, "truth": "x"}]), "item 1 (id a): the truth breaks the report grammar"),
        (json.dumps([{**GOOD, "probabilities": [0.1, 0.2]}]), "item 1 (id a): 2 probabilities for 1 locations"),
        (json.dumps([{**GOOD, "probabilities": [1.5]}]), "item 1 (id a): a probability is not between 0 and 1"),
        (json.dumps([{**GOOD, "tokens": {"words": -1}}]), "item 1 (id a), field tokens.words"),
        ("[3]", "item 1: Input should be a valid dictionary"),
    ],
)
def test_a_file_that_cannot_be_judged_is_refused_by_item_and_field(
    tmp_path: Path, content: str, complaint: str
) -> None:
    file = tmp_path / "results.json"
    file.write_text(content)
    with pytest.raises(BadPredictions, match=re.escape(complaint)) as refused:
        read_cases(file)
    assert str(file) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_command_says_in_one_sentence_that_there_is_no_file(tmp_path: Path) -> None:
    answer = metrics(tmp_path / "none.json")
    assert answer.returncode == 1
    assert answer.stdout == ""
    assert answer.stderr == f"{tmp_path / 'none.json'} can't be read: No such file or directory.\n"


def test_the_command_reads_a_results_file(tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    results.write_text(json.dumps([GOOD]))
    scores = json.loads(metrics(results, "--json").stdout)
    assert scores["micro"]["f1"] == scores["match_accuracy"] == scores["terms"]["nodule left"]["ap50"] == 1
    for name in ("micro_f1", "macro_f1", "mean_iou", "match_accuracy", "map50", "parse_rate", "flagged_rate"):
        assert scores[f"{name}_ci"] == [scores[name]] * 2
    assert "nodule left" in metrics(results).stdout


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    tokens = ForcedTokens(words=8, right_words=6, locations=4, right_locations=1, near_locations=3)
    predictions = [
        Prediction(id="a", truth=REPORT, prediction=REPORT, probabilities=[0.5], site="beta", tokens=tokens),
        Prediction(id="b", truth=REPORT, prediction="", abstained=True),
    ]
    write_predictions(predictions, tmp_path / "results.json")
    assert read_cases(tmp_path / "results.json") == [case_of(one) for one in predictions]
