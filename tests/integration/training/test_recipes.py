"""The recipes from their first step to their last, at the smallest size."""

import json
from pathlib import Path

import pytest

from emx_shared.demo_files import DEMO_MODEL
from emx_training.recipes import demo_model, phase2_trial
from emx_worker.model.loading import load_model

pytestmark = pytest.mark.filterwarnings("ignore")  # of libraries, as in test_finetuning.py


def test_the_demo_models_recipe_ends_with_a_model_that_loads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, work, cache = tmp_path / "demo", tmp_path / "work", tmp_path / "cache"
    command = ["--output", str(output), "--work", str(work), "--cache", str(cache), "--rehearse"]
    demo_model.main([*command, "--until", "vision"])
    capsys.readouterr()
    demo_model.main(command)
    printed = capsys.readouterr().out
    assert "Step captions" in printed, "it continues after what is done"
    assert "Step vision" not in printed
    assert load_model(output).provenance.adapter, "the shipped adapter is applied"
    curves = json.loads((output / "curve.json").read_text())
    assert list(curves) == ["vision", "captions", "reports", "details", "polish", "fresh", "phase1", "phase2"]
    assert all(curves.values()), "each has the point of its last step"
    card = (output / "README.md").read_text()
    assert "Research software, not for clinical use" in card
    assert all(f"\n| {step} |" in card for step in curves)


def test_the_trial_of_phase_2_measures_every_way(tmp_path: Path) -> None:
    folders = ["--output", str(tmp_path / "trial"), "--cache", str(tmp_path / "cache")]
    phase2_trial.main(["--base", str(DEMO_MODEL), *folders, "--phantoms", "96", "--evaluated", "16"])
    found = json.loads((tmp_path / "trial" / "results.json").read_text())
    for way in ("whole", "locations", "replay"):
        assert set(found[way]) == {"text_loss_before", "text_loss", "micro_f1", "mean_iou"}
    assert found["rows in order"]["0 %"] != found["rows from the mean"]["0 %"]
