import io
from collections.abc import Callable
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from emx_gateway.renderings.colour import contrast, ink_on, rgb
from emx_gateway.renderings.layout import Layout, font, layout
from emx_gateway.renderings.overlay import draw, overlay_png
from emx_gateway.renderings.phrases import spelled
from emx_gateway.renderings.placement import Rectangle, overlap
from emx_shared.contracts.findings import FINDINGS
from emx_shared.contracts.report import ModelProvenance, Report

MakeReport = Callable[..., Report]
SIDE = 600

# whole pixels of a picture of SIDE
corners = st.tuples(st.integers(0, SIDE - 2), st.integers(0, SIDE - 2))
boxes = st.builds(
    lambda corner, wide, high: (*corner, min(corner[0] + wide, SIDE), min(corner[1] + high, SIDE)),
    corners,
    st.integers(1, SIDE // 2),
    st.integers(1, SIDE // 2),
)


def opened(png: bytes) -> Image.Image:
    return Image.open(io.BytesIO(png))


def label_areas(plan: Layout) -> list[Rectangle]:
    return [mark.label.area for mark in plan.marks if mark.label]


def free_spot(size: tuple[int, int], taken: list[Rectangle]) -> bool:
    """Whether a plate of this size has room somewhere; looked for on a coarse grid, unlike in the layout."""
    return any(
        not any(overlap((x, y, x + size[0], y + size[1]), other) for other in taken)
        for x in range(0, SIDE - size[0] + 1, 6)
        for y in range(0, SIDE - size[1] + 1, 6)
    )


@pytest.mark.parametrize("size", [(32, 32), (33, 2000), (2000, 33), (512, 512)])
def test_any_box_on_any_image_can_be_drawn(size: tuple[int, int], make_report: MakeReport) -> None:
    width, height = size
    drawn = draw(
        Image.new("L", size),
        make_report(
            size,
            [
                (0, 0, width, height),
                (0, 0, 0.03, 0.03),
                (width - 0.03, height - 0.03, width, height),
                (1.5, 0, 1.6, height),
            ],
        ),
    )
    assert drawn.size == size
    assert drawn.getcolors(1) is None  # something is to be seen


def test_labels_are_not_put_on_each_other(make_report: MakeReport) -> None:
    drawn = draw(Image.new("L", (512, 512)), make_report((512, 512), [(100, 100, 200, 200)] * 3))
    counts = {colour: count for count, colour in drawn.getcolors(1 << 20) or []}
    for finding in FINDINGS[:3]:
        assert counts.get(rgb(finding.colour), 0) > 300, finding.label  # its label's background


@settings(deadline=None, max_examples=60)
@given(st.lists(boxes, min_size=1, max_size=16))
def test_a_label_hides_neither_a_box_nor_a_label_where_there_is_room(
    make_report: MakeReport, found: list[tuple[int, int, int, int]]
) -> None:
    plan = layout((SIDE, SIDE), make_report((SIDE, SIDE), found))
    assert plan.notice
    labels = label_areas(plan)
    assert len(labels) == len(found)
    for one, other in combinations([plan.notice.area, *labels], 2):
        assert not overlap(one, other)
    frames = [mark.frame for mark in plan.marks]
    for number, area in enumerate(labels):
        assert 0 <= area[0] < area[2] <= SIDE and 0 <= area[1] < area[3] <= SIDE
        if any(overlap(area, frame) for frame in frames):
            plate = (area[2] - area[0], area[3] - area[1])
            assert not free_spot(plate, [*frames, plan.notice.area, *labels[:number]])


@settings(deadline=None)
@given(boxes)
def test_a_lone_boxes_inside_is_not_drawn_upon(make_report: MakeReport, found: tuple[int, int, int, int]) -> None:
    drawn = draw(Image.new("L", (SIDE, SIDE), 99), make_report((SIDE, SIDE), [found]))
    edge = 5  # at the picture's edge the frame has to come inside
    inside = drawn.crop(
        (
            max(found[0], edge),
            max(found[1], edge),
            max(min(found[2], SIDE - edge), max(found[0], edge) + 1),
            max(min(found[3], SIDE - edge), max(found[1], edge) + 1),
        )
    )
    if min(found[2] - found[0], found[3] - found[1]) > 2 * edge:
        assert inside.getcolors() == [(inside.width * inside.height, (99, 99, 99))]


def test_a_label_without_room_beside_its_box_is_led_to_it_by_a_line(make_report: MakeReport) -> None:
    inner, around = (250, 250, 350, 350), (150, 150, 450, 450)
    plan = layout((SIDE, SIDE), make_report((SIDE, SIDE), [inner, around]))
    line = plan.marks[0].leader
    assert line is not None
    assert not overlap(label_areas(plan)[0], plan.marks[1].frame)
    assert plan.marks[1].leader is None  # touches its box


@pytest.mark.parametrize("ground", [0, 255])
def test_a_box_stands_out_on_black_and_on_white(ground: int, make_report: MakeReport) -> None:
    drawn = draw(Image.new("L", (512, 512), ground), make_report((512, 512), [(100.0, 100.0, 300.0, 300.0)]))
    across = {drawn.getpixel((x, 200)) for x in range(90, 105)}
    assert {(ground,) * 3, (0, 0, 0), rgb(FINDINGS[0].colour)} <= across


@settings(deadline=None)
@given(st.from_regex(r"#[0-9a-f]{6}", fullmatch=True))
def test_a_label_is_read_on_a_plate_of_any_colour(colour: str) -> None:
    assert contrast(rgb(colour), ink_on(rgb(colour))) >= 4.5


def test_contrast_is_that_of_wcag() -> None:
    assert contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)
    assert contrast((118, 118, 118), (255, 255, 255)) == pytest.approx(4.54, abs=0.01)


def test_the_notice_keeps_off_the_boxes(make_report: MakeReport) -> None:
    lower = (0, SIDE // 2, SIDE, SIDE)
    plan = layout((SIDE, SIDE), make_report((SIDE, SIDE), [lower]))
    assert plan.notice
    assert not overlap(plan.notice.area, plan.marks[0].frame)


def test_the_notice_tells_what_was_not_read_and_by_what(
    make_report: MakeReport, make_model: Callable[..., ModelProvenance]
) -> None:
    told = make_report((SIDE, SIDE), abstained=True, model=make_model(demo=True, untrained=True))
    plan = layout((SIDE, SIDE), told)
    assert plan.notice
    said = "NOT READ. Demo model. Untrained model. Research only, not for clinical use"
    assert " ".join(plan.notice.lines) == said
    assert all(font(plan.notice.letters).getlength(line) <= SIDE for line in plan.notice.lines)
    small = layout((64, 64), told).notice
    assert small and "NOT READ" in " ".join(small.lines)


def test_a_thumbnail_is_the_overlay_in_small(make_report: MakeReport) -> None:
    image, told = Image.new("L", (2000, 1000)), make_report((2000, 1000), [(500.0, 250.0, 1500.0, 750.0)])
    small = opened(overlay_png(image, told, longest_side=256))
    assert small.size == (256, 128)
    frame = layout(small.size, told).marks[0].frame
    assert frame[0] == pytest.approx(64, abs=5) and frame[3] == pytest.approx(96, abs=5)
    assert opened(overlay_png(image, told)).size == opened(overlay_png(image, told, 9999)).size == (2000, 1000)
    assert opened(overlay_png(image, told, longest_side=1)).size == (1, 1)
    with pytest.raises(ValueError, match="at least one pixel"):
        overlay_png(image, told, longest_side=0)


def test_a_large_image_with_many_findings_is_drawn(make_report: MakeReport) -> None:
    size = (8000, 6000)
    many = [(400.0 * n, 300.0 * n, 400.0 * n + 1500, 300.0 * n + 1200) for n in range(16)]
    plan = layout(size, make_report(size, many))
    assert len(label_areas(plan)) == 16
    assert min(mark.label.letters for mark in plan.marks if mark.label) > 100  # in proportion
    assert opened(overlay_png(Image.new("L", size), make_report(size, many))).size == size


def test_what_a_file_says_beside_its_pixels_is_not_passed_on(make_report: MakeReport) -> None:
    said, buffer = PngInfo(), io.BytesIO()
    said.add_text("Patient", "Jane Doe")
    Image.new("L", (64, 64)).save(buffer, "PNG", pnginfo=said, icc_profile=b"Jane Doe")
    image = opened(buffer.getvalue())
    image.info["comment"] = b"Jane Doe"
    drawn = opened(overlay_png(image, make_report((64, 64))))
    assert drawn.info == {}


def test_what_the_font_lacks_is_spelled_with_what_it_has() -> None:
    assert spelled("œdème – 3 × 5 °, łódź ’x’", "ascii") == "oedeme - 3 x 5  deg, lodz 'x'"
    assert spelled("a\u202eb\x00c\n肺", "ascii") == "ab c ?"
    assert spelled("é – ’", "cp1252") == "é – ’"
    everything = "".join(map(chr, range(0x3000)))
    spelled(everything, "ascii").encode("ascii")
    missing = font(20).getmask("\uffff")
    assert all(bytes(font(20).getmask(chr(code))) != bytes(missing) for code in range(33, 127))
