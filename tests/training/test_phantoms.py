import numpy as np
import pytest

from shared.findings import BY_LABEL
from shared.grammar import parse
from training.phantoms import PHANTOM_TERMS, bounds, held_out_seeds, render, term_ranks, training_seeds
from training.reports import report_of

SEEDS = range(40)


def test_a_seed_always_draws_the_same_phantom() -> None:
    for seed in SEEDS[:5]:
        one, again = render(seed), render(seed)
        assert one.image.tobytes() == again.image.tobytes()
        assert one.findings == again.findings
    assert render(0).image.tobytes() != render(1).image.tobytes()


def test_a_seed_shows_the_same_chest_at_each_resolution() -> None:
    for seed in SEEDS[:8]:
        small, large = render(seed, 128), render(seed, 384)
        assert term_ranks(small.findings) == term_ranks(large.findings)
        for one, other in zip(small.findings, large.findings, strict=True):
            # The edges of a box fall on pixels, 8 bins wide at 128 px.
            assert np.allclose(one.box.fractions(), other.box.fractions(), atol=0.04)
        shrunk = large.image.reshape(128, 3, 128, 3).mean(axis=(1, 3))
        assert np.corrcoef(small.image.ravel(), shrunk.ravel())[0, 1] > 0.97


def test_the_patients_right_is_on_the_images_left() -> None:
    sided = [one for seed in SEEDS for one in render(seed).findings if one.laterality]
    assert {one.laterality for one in sided} == {"left", "right"}
    for one in sided:
        _, xmin, _, xmax = one.box.fractions()
        assert ((xmin + xmax) / 2 < 0.5) == (one.laterality == "right")


def test_boxes_are_tight_to_the_masks_and_inside_the_image() -> None:
    for seed in SEEDS:
        phantom = render(seed)
        assert len(phantom.masks) == len(phantom.findings)
        for one, mask in zip(phantom.findings, phantom.masks, strict=True):
            ymin, xmin, ymax, xmax = (round(value * 128) for value in one.box.fractions())
            inside = mask[ymin:ymax, xmin:xmax]
            assert inside.sum() == mask.sum()
            assert inside[0].any() and inside[-1].any() and inside[:, 0].any() and inside[:, -1].any()


def test_bounds_reach_from_the_first_pixels_edge_to_the_last_ones() -> None:
    mask = np.zeros((64, 64), bool)
    mask[16:32, 0:64] = True
    assert bounds(mask).fractions() == pytest.approx((0.25, 0.0, 0.5, 1.0), abs=0.001)


def test_there_are_none_to_three_findings_of_the_vocabulary_and_each_occurs() -> None:
    phantoms = [render(seed, 64) for seed in range(120)]
    assert {len(phantom.findings) for phantom in phantoms} == {0, 1, 2, 3}
    told = [(one.finding.label, one.laterality) for phantom in phantoms for one in phantom.findings]
    assert set(told) == set(PHANTOM_TERMS)
    assert all(label in BY_LABEL for label, _ in told)


def test_an_effusion_is_brighter_than_the_same_place_without_it() -> None:
    """Bright is dense. Compared with lungs of other seeds, since a seed has one chest."""
    phantoms = [render(seed) for seed in range(150)]
    place = (slice(84, 92), slice(28, 36))

    def brightness(with_effusion: bool) -> float:
        chosen = [
            phantom.image[place].mean()
            for phantom in phantoms
            if any(str(one).startswith("pleural effusion right") for one in phantom.findings) == with_effusion
        ]
        return float(np.mean(chosen))

    assert brightness(True) > brightness(False) + 20


def test_held_out_seeds_are_never_trained_on() -> None:
    held_out = held_out_seeds(1000)
    for block in (0, 1, 99):
        seeds = training_seeds(100_000, block)
        assert seeds.stop <= held_out.start
    with pytest.raises(ValueError, match="training seeds"):
        training_seeds(1, 100)
    with pytest.raises(ValueError, match="training seeds"):
        training_seeds(100_001)


def test_the_report_of_a_phantom_parses_to_its_findings() -> None:
    for seed in SEEDS:
        phantom = render(seed)
        assert parse(str(report_of(phantom.findings))).locations == phantom.findings
