"""Boxes, from location bins to pixels of the original."""

from datetime import UTC

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from emx_shared.contracts.findings import TERMS
from emx_shared.contracts.report import ImageFacts, ModelProvenance
from emx_shared.grammar import LOC_BINS, LocatedFinding, LocBox, ReportText
from emx_training.pretrain.demo_architecture import build_processor, demo_config
from emx_worker.image_task import Generation, ImageTask
from emx_worker.report_builder import boxes_on, build_report

SIDES = st.integers(32, 6000)
PROCESSOR = build_processor(demo_config()).image_processor
SQUARE = demo_config().vision_config.image_size


@st.composite
def boxes(draw: st.DrawFn) -> LocBox:
    ymin, xmin = draw(st.integers(0, LOC_BINS - 2)), draw(st.integers(0, LOC_BINS - 2))
    return LocBox(ymin, xmin, draw(st.integers(ymin + 1, LOC_BINS - 1)), draw(st.integers(xmin + 1, LOC_BINS - 1)))


@given(boxes(), SIDES, SIDES)
def test_a_box_is_on_the_original_and_has_an_area(box: LocBox, width: int, height: int) -> None:
    pixels, normalised = boxes_on(box, width, height)
    assert 0 <= pixels.xmin < pixels.xmax <= width
    assert 0 <= pixels.ymin < pixels.ymax <= height
    assert 0 <= normalised.xmin < normalised.xmax <= 1
    assert 0 <= normalised.ymin < normalised.ymax <= 1


@given(boxes(), SIDES, SIDES)
def test_pixels_find_their_way_back_to_the_same_bins(box: LocBox, width: int, height: int) -> None:
    pixels, _ = boxes_on(box, width, height)
    fractions = (pixels.ymin / height, pixels.xmin / width, pixels.ymax / height, pixels.xmax / width)
    assert LocBox.of_fractions(*fractions) == box


@given(SIDES, SIDES)
def test_a_box_of_the_whole_image_is_the_whole_image(width: int, height: int) -> None:
    pixels, _ = boxes_on(LocBox(0, 0, LOC_BINS - 1, LOC_BINS - 1), width, height)
    assert (pixels.xmin, pixels.ymin, pixels.xmax, pixels.ymax) == (0, 0, width, height)


@settings(max_examples=40, deadline=None)
@given(st.integers(64, 1500), st.integers(64, 1500), st.data())
def test_what_the_model_sees_at_a_place_is_there_on_the_original(
    width: int, height: int, data: st.DataObject
) -> None:
    """A white rectangle, found in the processor's pixels, maps back to within one such pixel."""
    left, top = data.draw(st.integers(0, width // 2)), data.draw(st.integers(0, height // 2))
    right = data.draw(st.integers(left + width // 4, width))
    bottom = data.draw(st.integers(top + height // 4, height))
    image = Image.new("RGB", (width, height))
    ImageDraw.Draw(image).rectangle((left, top, right - 1, bottom - 1), fill=(255, 255, 255))
    seen = PROCESSOR(images=image, return_tensors="np")["pixel_values"][0].mean(axis=0) > 0
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    box = LocBox.of_fractions(
        rows[0] / SQUARE, columns[0] / SQUARE, (rows[-1] + 1) / SQUARE, (columns[-1] + 1) / SQUARE
    )
    found, _ = boxes_on(box, width, height)
    across, down = width / SQUARE + 1, height / SQUARE + 1
    assert abs(found.xmin - left) <= across
    assert abs(found.xmax - right) <= across
    assert abs(found.ymin - top) <= down
    assert abs(found.ymax - bottom) <= down


def test_a_report_has_each_finding_with_its_side_code_colour_and_box() -> None:
    finding, side = TERMS["pleural effusion left"]
    box = LocBox(0, 511, 1023, 1023)
    text = ReportText("Fluid.", (LocatedFinding(finding, side, box),), "Effusion.")
    facts = ImageFacts(width=2046, height=50, media_type="image/png", sha256="0" * 64)
    task = ImageTask(id="1", image=Image.new("L", (2046, 50)), facts=facts, decode_seconds=0.5)
    generation = Generation(str(text), text, False, 20, (1, 2, 3), 0.1, 0.2)
    provenance = ModelProvenance(
        name="m", revision="r", quantisation="none", engine="e", dialect="loc", demo=False
    )
    report = build_report(task, generation, provenance)
    (place,) = report.locations
    assert (place.label, place.laterality, place.code) == (finding.label, "left", finding.code)
    assert (place.colour, place.snomed_ct, place.radlex) == (finding.colour, finding.snomed_ct, finding.radlex)
    assert (place.box.xmin, place.box.xmax, place.box.ymin, place.box.ymax) == (1022, 2046, 0, 50)
    assert (report.findings, report.impression, report.warnings) == ("Fluid.", "Effusion.", ())
    assert (report.tokens.prompt, report.tokens.generated) == (20, 3)
    assert (report.timings.decode, report.timings.prefill, report.timings.generate) == (0.5, 0.1, 0.2)
    assert report.created_at.tzinfo == UTC


def test_a_report_says_how_its_image_was_read_and_has_its_boxes_on_the_stored_pixels() -> None:
    finding, side = TERMS["pleural effusion left"]
    text = ReportText("Fluid.", (LocatedFinding(finding, side, LocBox(0, 512, 256, 1023)),), "Effusion.")
    facts = ImageFacts(width=100, height=200, media_type="application/dicom", sha256="0" * 64, orientation=6)
    task = ImageTask(id="1", image=Image.new("L", (100, 200)), facts=facts, warnings=("It was turned.",))
    generation = Generation(str(text), text, False, 20, (1, 2, 3), 0.1, 0.2, declined="Not read.")
    provenance = ModelProvenance(
        name="m", revision="r", quantisation="none", engine="e", dialect="loc", demo=False
    )
    report = build_report(task, generation, provenance)
    assert report.warnings == ("Not read.", "It was turned.")
    (place,) = report.locations
    assert place.box_stored == facts.stored(place.box)
    assert place.box_stored is not None
    assert (place.box_stored.ymin, place.box_stored.xmin) == (100 - place.box.xmax, place.box.ymin)
