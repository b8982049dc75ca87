import base64
import io
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from emx_gateway.renderings import html
from emx_gateway.renderings.colour import contrast, rgb
from emx_gateway.renderings.html import CONTENT_SECURITY_POLICY, report_html
from emx_shared.contracts.report import DISCLAIMER, ModelProvenance, Report

MakeReport = Callable[..., Report]
VOID = {"meta", "img", "br", "link", "input"}
HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>&lt;"
CSS = (Path(html.__file__).parent / "report.css").read_text()


class Parsed(HTMLParser):
    """The document's elements and text; refuses tags that don't nest."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(document)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open:
            self.text.setdefault(self._open[-1], []).append(data.strip())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def test_the_file_holds_the_whole_report(
    make_report: MakeReport, make_model: Callable[..., ModelProvenance]
) -> None:
    told = make_report(
        (400, 300),
        [(10, 20, 110, 220), (200, 30, 390, 290)],
        warnings=("Take care.",),
        model=make_model(demo=True, untrained=True),
    )
    parsed = Parsed(report_html(Image.new("L", (400, 300)), told))
    assert parsed.all("html") == [{"lang": "en"}]
    assert {"Findings", "Locations", "Impression", "Demo model. Untrained model"} <= set(parsed.text["h2"])
    assert {told.findings, told.impression, "Take care.", DISCLAIMER} <= set(parsed.text["p"])
    assert parsed.text["td"] == ["–", "x 10–110, y 20–220", "82 %", "left", "x 200–390, y 30–290", "82 %"]
    assert set(parsed.text["title"][1:]) == {"cardiomegaly 82 %", "pleural effusion, left 82 %"}
    assert {"some/model, revision abc123", "2026-03-04 05:06:07 UTC", "0" * 64} <= set(parsed.text["dd"])
    assert all(head["scope"] in ("col", "row") for head in parsed.all("th"))
    assert parsed.all("img")[0]["alt"] == "The chest radiograph that was read; 2 marked"


def test_a_report_without_locations_says_why(make_report: MakeReport) -> None:
    image = Image.new("L", (64, 64))
    none = Parsed(report_html(image, make_report((64, 64))))
    assert "none" in none.text["p"] and not none.all("table") and not none.all("section")
    unread = Parsed(report_html(image, make_report((64, 64), abstained=True, warnings=("No chest.",))))
    assert "not assessed" in unread.text["p"]
    assert "NOT READ" in unread.text["h2"] and "No chest." in unread.text["p"]


def test_hostile_words_stay_words(make_report: MakeReport, make_model: Callable[..., ModelProvenance]) -> None:
    plain = make_report((64, 64), [(1, 1, 30, 30)], warnings=("w",), model=make_model(adapter="a"))
    place = plain.locations[0].model_copy(
        update={"label": HOSTILE, "colour": 'red"/><script>', "laterality": HOSTILE}
    )
    hostile = plain.model_copy(
        update={
            "findings": HOSTILE,
            "impression": HOSTILE,
            "disclaimer": HOSTILE,
            "warnings": (HOSTILE,),
            "locations": (place,),
            "image": plain.image.model_copy(update={"media_type": HOSTILE, "sha256": HOSTILE}),
            "model": make_model(
                name=HOSTILE, revision=HOSTILE, adapter=HOSTILE, quantisation=HOSTILE, engine=HOSTILE
            ),
        }
    )
    image = Image.new("L", (64, 64))
    expected, got = (Parsed(report_html(image, report)) for report in (plain, hostile))
    assert [tag for tag, _ in got.elements] == [tag for tag, _ in expected.elements]
    assert [set(attributes) for _, attributes in got.elements] == [set(said) for _, said in expected.elements]
    assert got.text["p"].count(HOSTILE) == 4


def test_nothing_is_fetched_and_nothing_runs(make_report: MakeReport) -> None:
    document = report_html(Image.new("RGB", (64, 64)), make_report((64, 64), [(1, 1, 30, 30)]))
    parsed = Parsed(document)
    assert not {"script", "link", "iframe", "object", "a", "form", "base"} & {tag for tag, _ in parsed.elements}
    for _, attributes in parsed.elements:
        assert not any(name.startswith("on") or name in ("href", "style") for name in attributes)
        assert str(attributes.get("src", "data:image/jpeg;base64,")).startswith("data:image/jpeg;base64,")
    assert not re.search(r"https?:|//|url\(|@import", re.sub(r'src="data:[^"]*"', "", document))
    policy = next(meta["content"] for meta in parsed.all("meta") if "http-equiv" in meta)
    assert policy == CONTENT_SECURITY_POLICY and policy.startswith("default-src 'none'") and "unsafe" not in policy


def test_the_picture_is_at_most_1600_pixels_and_says_nothing_of_its_file(make_report: MakeReport) -> None:
    image = Image.new("L", (4000, 1000))
    image.info["comment"] = b"Jane Doe"
    parsed = Parsed(report_html(image, make_report((4000, 1000), [(0, 0, 2000, 1000)])))
    source = parsed.all("img")[0]["src"] or ""
    data = base64.b64decode(source.removeprefix("data:image/jpeg;base64,"))
    assert Image.open(io.BytesIO(data)).size == (1600, 400)
    assert b"Jane" not in data
    assert parsed.all("svg")[0]["viewbox"] == "0 0 1000 250"


def test_text_contrasts_with_its_ground_in_every_theme() -> None:
    themes = [dict(re.findall(r"--(\w+): (#\w+)", block)) for block in re.findall(r":root \{(.*?)\}", CSS, re.S)]
    themes = [theme for theme in themes if theme]
    assert len(themes) == 3  # light, dark, paper
    for theme in themes:
        colours = {name: rgb(_long(colour)) for name, colour in theme.items()}
        for ink in ("ink", "soft", "warn"):
            for ground in ("back", "card"):
                assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
        assert contrast(colours["warn"], colours["warned"]) >= 4.5


def _long(colour: str) -> str:
    return colour if len(colour) == 7 else "#" + "".join(2 * digit for digit in colour[1:])


@pytest.mark.parametrize("size", [(32, 32), (33, 2000), (2000, 33)])
def test_any_image_can_be_shown(size: tuple[int, int], make_report: MakeReport) -> None:
    Parsed(report_html(Image.new("L", size), make_report(size, [(0, 0, 0.1, 0.1), (0, 0, *size)] * 8)))
