from datetime import UTC, datetime

import pytest
from PIL import Image

from gateway.renderings.overlay import draw
from shared.findings import FINDINGS
from shared.report import Box, ImageFacts, Location, ModelProvenance, Report, Timings, TokenCounts


def report(size: tuple[int, int], *boxes: Box) -> Report:
    width, height = size
    places = tuple(
        Location(
            label=finding.label,
            code=finding.code,
            laterality="left" if finding.sided else None,
            box=box,
            box_normalised=Box(
                xmin=box.xmin / width, ymin=box.ymin / height, xmax=box.xmax / width, ymax=box.ymax / height
            ),
            colour=finding.colour,
        )
        for finding, box in zip(FINDINGS, boxes, strict=False)
    )
    return Report(
        findings="Some.",
        impression="Some.",
        locations=places,
        image=ImageFacts(width=width, height=height, media_type="image/png", sha256="0" * 64),
        model=ModelProvenance(
            name="test", revision="0", quantisation="none", engine="none", dialect="loc", demo=True
        ),
        timings=Timings(),
        tokens=TokenCounts(prompt=1, generated=1),
        created_at=datetime.now(UTC),
    )


@pytest.mark.parametrize("size", [(32, 32), (33, 2000), (2000, 33), (512, 512)])
def test_any_box_on_any_image_can_be_drawn(size: tuple[int, int]) -> None:
    width, height = size
    boxes = [
        Box(xmin=0, ymin=0, xmax=width, ymax=height),
        Box(xmin=0, ymin=0, xmax=0.03, ymax=0.03),
        Box(xmin=width - 0.03, ymin=height - 0.03, xmax=width, ymax=height),
        Box(xmin=1.5, ymin=0, xmax=1.6, ymax=height),
    ]
    drawn = draw(Image.new("L", size), report(size, *boxes))
    assert drawn.size == size
    assert drawn.getcolors(1) is None  # something is to be seen


def test_labels_are_not_put_on_each_other() -> None:
    box = Box(xmin=100, ymin=100, xmax=200, ymax=200)
    drawn = draw(Image.new("L", (512, 512)), report((512, 512), box, box, box))
    counts = {colour: count for count, colour in drawn.getcolors(1 << 20) or []}
    for finding in FINDINGS[:3]:
        colour = tuple(bytes.fromhex(finding.colour[1:]))
        assert counts.get(colour, 0) > 300, finding.label  # its label's background
