from pathlib import Path

import numpy as np
import pytest
import torch

from emx_training.losses import soft_cross_entropy
from emx_training.phantoms import PHANTOM_TERMS, SIZE, render
from emx_training.pretrain.demo_architecture import build_processor, demo_config
from emx_training.pretrain.phantom_batches import PhantomBatches
from emx_training.pretrain.phantom_cache import MASK_CELLS, CachedPhantoms, cached_phantoms
from emx_training.pretrain.pretraining import caption
from emx_training.pretrain.tokenizer import FIRST_LOC

SEEDS = range(16)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("phantoms")


@pytest.fixture(scope="module")
def phantoms(cache: Path) -> CachedPhantoms:
    return cached_phantoms(SEEDS, cache)


def test_the_cache_holds_what_is_rendered(phantoms: CachedPhantoms, cache: Path) -> None:
    for index, seed in enumerate(SEEDS):
        drawn = render(seed)
        assert (phantoms.images[index] == drawn.image).all()
        assert phantoms.findings(index) == drawn.findings
        masks = phantoms.masks[phantoms.first[index] : phantoms.first[index + 1]]
        assert np.allclose(masks.mean(axis=(1, 2)) / 255, drawn.masks.mean(axis=(1, 2)), atol=0.002)
    written = {path: path.stat().st_mtime_ns for path in cache.iterdir()}
    again = cached_phantoms(SEEDS, cache)
    assert (again.images == phantoms.images).all()
    assert {path: path.stat().st_mtime_ns for path in cache.iterdir()} == written


def test_a_batch_has_the_prompt_and_labels_for_the_answer_only(phantoms: CachedPhantoms) -> None:
    processor = build_processor(demo_config())
    batch = PhantomBatches(phantoms, processor, caption).batch(np.arange(8))
    assert batch.pixel_values.shape == (8, 3, SIZE, SIZE)
    assert batch.pixel_values.min() >= -1 and batch.pixel_values.max() <= 1
    assert batch.answers is not None
    assert (batch.answers.token_type_ids.sum(dim=1) == 64).all()
    for index, (row, labels) in enumerate(zip(batch.answers.input_ids, batch.answers.labels, strict=True)):
        answer = processor.tokenizer.decode(labels[labels >= 0])
        assert answer == caption(phantoms.findings(index)) + "<end_of_turn>"
        written = processor.tokenizer.decode(row)
        assert written.startswith("<bos><start_of_turn>user\n")
        assert f"<start_of_turn>model\n{answer}" in written


def test_dense_targets_stand_where_the_findings_are(phantoms: CachedPhantoms) -> None:
    dense = PhantomBatches(phantoms, build_processor(demo_config())).batch(np.arange(16)).dense
    assert dense.masks.shape == (16, len(PHANTOM_TERMS), MASK_CELLS, MASK_CELLS)
    shown = 0
    for image, located in enumerate(map(phantoms.findings, range(16))):
        terms = [(one.finding.label, one.laterality) for one in located]
        for rank, term in enumerate(PHANTOM_TERMS):
            mask = dense.masks[image, rank]
            assert bool(mask.any()) == (term in terms)
            if term in terms:
                ymin, xmin, ymax, xmax = dense.boxes[image, rank].tolist()
                rows, columns = (mask > 0).any(dim=1).nonzero(), (mask > 0).any(dim=0).nonzero()
                assert rows.min() / 32 <= ymin + 1e-3 and ymax <= (rows.max() + 1) / 32 + 1e-3
                assert columns.min() / 32 <= xmin + 1e-3 and xmax <= (columns.max() + 1) / 32 + 1e-3
                shown += 1
    assert shown == len(phantoms.terms)


@pytest.mark.parametrize("with_text", [False, True])
def test_a_pass_shows_each_phantom_once_and_resumes_where_it_stopped(
    phantoms: CachedPhantoms, with_text: bool
) -> None:
    phantom_batches = PhantomBatches(phantoms, build_processor(demo_config()), caption if with_text else None)
    batches = phantom_batches.stream(4, seed=3)
    shown = [next(batches) for _ in range(6)]
    boxes = torch.cat([batch.dense.boxes for batch in shown[:4]]).flatten(1)
    everything = phantom_batches.batch(np.arange(16)).dense.boxes.flatten(1)
    assert sorted(boxes.tolist()) == sorted(everything.tolist())
    later = phantom_batches.stream(4, seed=3, start=4)
    assert torch.equal(next(later).pixel_values, shown[4].pixel_values)
    assert torch.equal(next(later).pixel_values, shown[5].pixel_values)


def test_a_near_miss_of_a_location_costs_less_than_a_far_one() -> None:
    logits = torch.full((3, 2 * FIRST_LOC), -10.0)
    for row, guess in zip(logits, (500, 505, 700), strict=True):
        row[FIRST_LOC + guess] = 10.0
    right, near, far = (
        soft_cross_entropy(row[None], torch.tensor([500]), 8.0, FIRST_LOC).item() for row in logits
    )
    assert right < near < far
