from pathlib import Path

import pytest
import torch

from emx_worker.model.checkpoint import ModelError
from emx_worker.model.ood_guard import GUARD_FILE, OodGuard, features


def hidden(count: int, shift: float = 0.0, seed: int = 0) -> torch.Tensor:
    """Make vision tower outputs of similar images, (count, 16 patches, 8 wide)."""
    generator = torch.Generator().manual_seed(seed)
    own = torch.randn(count, 1, 8, generator=generator) * torch.linspace(0.1, 2, 8)
    return own + 0.3 * torch.randn(count, 16, 8, generator=generator) + shift


def test_images_like_those_it_knows_are_near_and_others_are_far() -> None:
    guard = OodGuard.fit(features(hidden(500)))
    near = guard.distances(hidden(200, seed=1))
    assert near.square().mean().item() == pytest.approx(16, rel=0.2)  # as many as there are features
    assert guard.distances(hidden(50, shift=4.0, seed=2)).min() > near.max()
    assert guard.distances(hidden(50, seed=3) * 6).median() > near.max()


def test_a_guard_is_the_same_after_saving_and_loading(tmp_path: Path) -> None:
    guard = OodGuard.fit(features(hidden(300)), threshold=7.5)
    guard.save(tmp_path)
    read = OodGuard.load(tmp_path)
    assert read is not None and read.threshold == 7.5
    assert torch.equal(read.distances(hidden(5, seed=1)), guard.distances(hidden(5, seed=1)))


def test_a_checkpoint_may_have_no_guard_and_a_damaged_guard_is_refused(tmp_path: Path) -> None:
    assert OodGuard.load(tmp_path) is None
    (tmp_path / GUARD_FILE).write_bytes(b"nothing")
    with pytest.raises(ModelError, match="delete it to do without"):
        OodGuard.load(tmp_path)
