"""The base's two stages, at the smallest size."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from emx_training.phantoms import PHANTOM_TERMS
from emx_training.pretrain import pretraining
from emx_training.pretrain.demo_architecture import build_processor, random_model, tiny_config
from emx_training.pretrain.dense_targets import DenseHeads, DenseTargets
from emx_training.pretrain.muon import Muon, orthogonal
from emx_training.pretrain.phantom_batches import PhantomBatches
from emx_training.pretrain.phantom_cache import CachedPhantoms, cached_phantoms
from emx_training.pretrain.pretraining import LOSS_NAMES, PretrainingRun, Stage, caption, pretrain

VISION = Stage("vision", steps=8, rate=3e-3, dense=1.0)
CAPTIONS = Stage("captions", steps=8, rate=3e-3, dense=0.5, softness=(48.0, 32.0), decay=0.5)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> CachedPhantoms:
    """Pictures of 32 px, for a tower of four patches across, with masks of two cells to a patch."""
    whole = cached_phantoms(range(16), tmp_path_factory.mktemp("phantoms"))
    images, masks = whole.images[:, ::5, ::5], whole.masks.reshape(-1, 8, 4, 8, 4).max(axis=(2, 4))
    return CachedPhantoms(np.ascontiguousarray(images), whole.first, whole.terms, whole.boxes, masks)


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretraining, "BATCH", 8)
    monkeypatch.setattr(pretraining, "_REPORT_EVERY", 2)
    monkeypatch.setattr(pretraining, "_WARM_UP", 2)
    monkeypatch.setattr("emx_training.pretrain.phantom_batches.MASK_CELLS", 8)


def new_run(stage: Stage) -> PretrainingRun:
    torch.manual_seed(0)
    return PretrainingRun(random_model(0, tiny_config()), DenseHeads(64), stage)


def batches_of(small: CachedPhantoms, stage: Stage) -> PhantomBatches:
    return PhantomBatches(small, build_processor(tiny_config()), caption if stage.softness else None)


@pytest.mark.parametrize("stage", [VISION, CAPTIONS], ids=lambda stage: stage.name)
def test_a_stage_learns_a_few_phantoms(small: CachedPhantoms, stage: Stage, tmp_path: Path) -> None:
    longer = Stage(stage.name, 40, stage.rate, stage.dense, stage.softness, stage.decay)
    run, phantom_batches = new_run(longer), batches_of(small, stage)
    pretrain(run, phantom_batches, phantom_batches, tmp_path, seed=0)
    first, last = run.curve[0], run.curve[-1]
    trained = LOSS_NAMES if stage.softness else LOSS_NAMES[2:]
    for name in trained:
        assert last[f"watched_{name}"] < 0.95 * first[f"watched_{name}"], name


@pytest.mark.parametrize("stage", [VISION, CAPTIONS], ids=lambda stage: stage.name)
def test_a_run_that_was_killed_ends_with_the_same_weights(
    small: CachedPhantoms, stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    phantom_batches = batches_of(small, stage)
    whole = new_run(stage)
    pretrain(whole, phantom_batches, phantom_batches, tmp_path / "whole", seed=1)

    class Killed(Exception):
        pass

    real = PretrainingRun.save

    def save_and_die(run: PretrainingRun, folder: Path) -> None:
        real(run, folder)
        raise Killed

    monkeypatch.setattr(pretraining, "_SAVE_SECONDS", 0.0)
    monkeypatch.setattr(PretrainingRun, "save", save_and_die)
    for _ in range(3):
        with pytest.raises(Killed):
            pretrain(new_run(stage), phantom_batches, phantom_batches, tmp_path / "killed", seed=1)
    monkeypatch.setattr(PretrainingRun, "save", real)
    resumed = new_run(stage)
    pretrain(resumed, phantom_batches, phantom_batches, tmp_path / "killed", seed=1)
    for name, weight in whole.trained().items():
        assert torch.allclose(weight, resumed.trained()[name], atol=1e-5), name


def test_vision_leaves_the_decoder_alone(small: CachedPhantoms, tmp_path: Path) -> None:
    run, phantom_batches = new_run(VISION), batches_of(small, VISION)
    before = {name: weight.clone() for name, weight in run.model.model.language_model.named_parameters()}
    pretrain(run, phantom_batches, phantom_batches, tmp_path, seed=0)
    after = dict(run.model.model.language_model.named_parameters())
    assert all(torch.equal(weight, after[name]) for name, weight in before.items())


def test_the_rate_stays_and_then_falls() -> None:
    assert [CAPTIONS.rate_factor(done) for done in (0.0, 0.5, 0.75, 1.0)] == [1.0, 1.0, 0.5, 0.02]
    assert VISION.rate_factor(0.99) == 1.0


def test_a_perfect_answer_has_no_dense_loss_and_a_shifted_box_has() -> None:
    masks, boxes = torch.zeros(1, len(PHANTOM_TERMS), 8, 8), torch.zeros(1, len(PHANTOM_TERMS), 4)
    masks[0, 3, 2:6, 2:6], boxes[0, 3] = 1.0, torch.tensor([0.25, 0.25, 0.75, 0.75])
    heads, targets = DenseHeads(16), DenseTargets(masks, boxes)
    hidden = F.one_hot(torch.arange(16), 16).float()[None]  # each patch speaks for itself
    side = torch.arange(16) // 4, torch.arange(16) % 4
    y, x = ((at + 0.5) / 4 for at in side)
    with torch.no_grad():
        heads.edges.bias.zero_()
        heads.edges.weight.zero_()
        wanted = torch.stack([y - 0.25, x - 0.25, 0.75 - y, 0.75 - x])
        heads.edges.weight.view(len(PHANTOM_TERMS), 4, 16)[3] = wanted
        heads.masks.bias.fill_(-30.0)
        cells = masks[0, 3].reshape(4, 2, 4, 2).permute(1, 3, 0, 2).reshape(4, 16)
        heads.masks.weight.zero_()
        heads.masks.weight.view(len(PHANTOM_TERMS), 4, 16)[3] = 60 * cells
        perfect = heads.losses(hidden, targets)
        assert perfect.max() < 1e-3
        targets.boxes[0, 3] += 0.1
        assert heads.losses(hidden, targets)[2] > 0.1


def test_muon_steps_are_orthogonal_and_as_large_as_adams() -> None:
    torch.manual_seed(0)
    made = orthogonal(torch.randn(3, 24, 64))
    singular = torch.linalg.svdvals(made)
    assert singular.min() > 0.6 and singular.max() < 1.3
    weight = torch.nn.Parameter(torch.randn(64, 24))
    before = weight.detach().clone()
    optimizer = Muon([weight], lr=0.01)
    weight.square().sum().backward()
    optimizer.step()
    step = (weight.detach() - before).square().mean().sqrt().item()
    assert 0.001 < step < 0.004
    assert weight.square().sum() < before.square().sum()
