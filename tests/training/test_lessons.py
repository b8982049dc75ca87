from pathlib import Path

import numpy as np
import pytest
import torch

from training.architecture import build_processor, demo_config, random_model, tiny_config
from training.lessons import CellHead, Lessons, losses
from training.phantom_cache import CELLS, SIZE, CachedPhantoms
from training.phantoms import PHANTOM_TERMS, render, term_ranks
from training.reports import report_of
from training.tokenizer import FIRST_LOC


def cached(seeds: range) -> CachedPhantoms:
    """What the cache holds, without its files and its processes."""
    drawn = [render(seed, SIZE) for seed in seeds]
    cells = np.zeros((len(drawn), len(PHANTOM_TERMS), CELLS, CELLS), np.uint8)
    for row, phantom in zip(cells, drawn, strict=True):
        side = SIZE // CELLS
        row[term_ranks(phantom.findings)] = 255 * phantom.masks.reshape(-1, CELLS, side, CELLS, side).mean((2, 4))
    return CachedPhantoms(
        np.stack([phantom.image for phantom in drawn]),
        cells,
        [str(report_of(phantom.findings)) for phantom in drawn],
    )


@pytest.fixture(scope="module")
def phantoms() -> CachedPhantoms:
    return cached(range(8))


def test_a_batch_asks_the_prompt_and_is_marked_on_the_answer_alone(phantoms: CachedPhantoms) -> None:
    processor = build_processor(demo_config())
    lessons = Lessons(phantoms, processor)
    batch = lessons.batch(np.arange(8))
    assert batch.pixel_values.shape == (8, 3, SIZE, SIZE)
    assert batch.pixel_values.min() >= -1 and batch.pixel_values.max() <= 1
    assert (batch.token_type_ids.sum(dim=1) == 64).all()
    for row, labels, text in zip(batch.input_ids, batch.labels, phantoms.texts, strict=True):
        answer = processor.tokenizer.decode(labels[labels >= 0])
        assert answer == text + "<end_of_turn>"
        written = processor.tokenizer.decode(row)
        assert written.startswith("<bos><start_of_turn>user\n")
        assert f"<start_of_turn>model\n{answer}" in written


def test_a_pass_shows_each_phantom_once(phantoms: CachedPhantoms) -> None:
    lessons = Lessons(phantoms, build_processor(demo_config()))
    shown = list(lessons.batches(2, np.random.default_rng(0)))
    assert len(shown) == 4
    decode = lessons.answers
    lengths = sorted(int((labels >= 0).sum()) for batch in shown for labels in batch.labels)
    assert lengths == sorted(map(len, decode))


def test_a_tiny_model_learns_a_few_phantoms(phantoms: CachedPhantoms) -> None:
    config = tiny_config()
    small = CachedPhantoms(phantoms.images[:, ::4, ::4], phantoms.cells[:, :, ::4, ::4], phantoms.texts)
    lessons = Lessons(small, build_processor(config))
    torch.manual_seed(0)
    model, head = random_model(0, config).train(), CellHead(64)
    optimizer = torch.optim.AdamW([*model.parameters(), *head.parameters()], lr=3e-3)
    batch = lessons.batch(np.arange(8))
    history = []
    for _ in range(40):
        loss, _ = losses(model, head, batch, softness=32.0)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        history.append((loss.words.item(), loss.locations.item(), loss.cells.item()))
    for first, last in zip(history[0], history[-1], strict=True):
        assert last < 0.6 * first


def test_a_near_miss_of_a_location_costs_less_than_a_far_one(phantoms: CachedPhantoms) -> None:
    from training.lessons import soft_cross_entropy

    logits = torch.full((3, 2 * FIRST_LOC), -10.0)
    for row, guess in zip(logits, (500, 505, 700), strict=True):
        row[FIRST_LOC + guess] = 10.0
    right, near, far = (soft_cross_entropy(row[None], torch.tensor([500]), 8.0).item() for row in logits)
    assert right < near < far


def test_the_cache_gives_the_same_arrays_again(tmp_path: Path) -> None:
    from training.phantom_cache import cached_phantoms

    first = cached_phantoms(range(4), tmp_path)
    again = cached_phantoms(range(4), tmp_path)
    assert (first.images == again.images).all() and first.texts == again.texts
    assert (first.cells == cached(range(4)).cells).mean() > 0.99
    assert len(list(tmp_path.iterdir())) == 1
