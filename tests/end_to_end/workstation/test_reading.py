"""The reading view: the image, its tools, and the report beside it."""

import io
import re
from pathlib import Path
from typing import Literal

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, Route, expect

from .conftest import SAMPLE, OpenPage, analyse_demo, choose, dicom, expect_picture, expect_report

MouseButton = Literal["left", "middle", "right"]


def drag(page: Page, start: tuple[float, float], end: tuple[float, float], button: MouseButton = "left") -> None:
    """Drag over the image, from and to fractions of the viewport."""
    frame = page.get_by_test_id("viewport-main").bounding_box()
    assert frame
    (x0, y0), (x1, y1) = (
        (frame["x"] + x * frame["width"], frame["y"] + y * frame["height"]) for x, y in (start, end)
    )
    page.mouse.move(x0, y0)
    page.mouse.down(button=button)
    page.mouse.move((x0 + x1) / 2, (y0 + y1) / 2)
    page.mouse.move(x1, y1, steps=3)
    page.mouse.up(button=button)


def job_of(page: Page) -> str:
    return page.url.rpartition("/")[2]


def values(page: Page) -> str:
    return page.locator(".values").first.inner_text()


def zoom(page: Page) -> int:
    return int(values(page).split()[0])


def window(page: Page) -> tuple[int, int]:
    found = re.search(r"W (-?\d+)\s+C (-?\d+)", values(page))
    assert found
    return int(found[1]), int(found[2])


def shown(page: Page) -> np.ndarray:
    """The viewport's pixels, as greys."""
    picture = page.get_by_test_id("viewport-main").screenshot()
    return np.asarray(Image.open(io.BytesIO(picture)).convert("L")).astype(float)


def boxes(page: Page) -> Locator:
    return page.locator("[data-testid=viewport-main] .svg-layer g[data-annotation-uid] text")


def test_the_demo_image_gets_a_report_whose_boxes_lie_on_its_findings(read_page: Page) -> None:
    expect(read_page.get_by_test_id("findings")).not_to_be_empty()
    expect(read_page.get_by_test_id("impression")).not_to_be_empty()
    expect(read_page.locator(".warnings")).to_contain_text("demo model")
    expect(read_page.locator(".banner")).to_contain_text("demo model is in use")
    expect(read_page.locator(".disclaimer")).to_contain_text("Not for clinical use")
    expect(read_page.get_by_test_id("provenance")).to_contain_text("Report after")
    count = read_page.locator(".finding").count()
    expect(boxes(read_page)).to_have_count(count)
    assert count > 0


def test_a_box_is_drawn_where_the_report_says(read_page: Page, client: httpx.Client) -> None:
    report = client.get(f"/v1/jobs/{job_of(read_page)}/report.json").json()
    frame = read_page.get_by_test_id("viewport-main").bounding_box()
    assert frame and report["locations"]
    scale = zoom(read_page) / 100
    left = frame["x"] + (frame["width"] - report["image"]["width"] * scale) / 2
    top = frame["y"] + (frame["height"] - report["image"]["height"] * scale) / 2
    rectangles = read_page.locator("[data-testid=viewport-main] .svg-layer rect:not(.background)")
    drawn = [(one["x"], one["y"]) for one in map(Locator.bounding_box, rectangles.all()) if one]
    for location in report["locations"]:
        x, y = left + location["box"]["xmin"] * scale, top + location["box"]["ymin"] * scale
        assert min(np.hypot(one[0] - x, one[1] - y) for one in drawn) < 6, (location["label"], (x, y), drawn)


def test_a_finding_its_sentence_and_its_box_point_at_each_other(read_page: Page) -> None:
    first = read_page.locator(".finding").first
    name = first.locator(".title").inner_text()
    first.locator(".name").hover()
    expect(boxes(read_page).first).to_contain_text(name)
    expect(read_page.locator(".linked.active").first).to_be_visible()
    read_page.locator(".linked").last.click()
    expect(read_page.locator(".finding.active")).not_to_have_count(0)
    read_page.keyboard.press("n")
    expect(read_page.locator(".finding .name[aria-pressed=true]")).to_have_count(1)


def test_pointing_at_a_box_marks_its_finding(read_page: Page) -> None:
    label = boxes(read_page).first.bounding_box()
    assert label
    read_page.mouse.move(label["x"] + label["width"] / 2, label["y"] + label["height"] / 2 + 2)
    expect(read_page.locator(".finding.active")).to_have_count(1)


def test_boxes_can_be_hidden_one_by_one_all_together_and_by_probability(read_page: Page) -> None:
    count = boxes(read_page).count()
    read_page.locator(".finding").first.get_by_role("button", name=re.compile("Show the box")).click()
    expect(boxes(read_page)).to_have_count(count - 1)
    read_page.locator(".finding").first.get_by_role("button", name=re.compile("Show the box")).click()
    read_page.get_by_test_id("viewport-main").hover()
    read_page.keyboard.press("b")
    expect(boxes(read_page)).to_have_count(0)
    read_page.keyboard.press("b")
    expect(boxes(read_page)).to_have_count(count)
    read_page.locator(".threshold input").fill("1")
    read_page.get_by_label(re.compile("Show from a probability")).press("ArrowLeft")
    expect(read_page.locator(".threshold")).to_contain_text("95 %")


def test_the_tools_do_what_readers_expect_of_them(read_page: Page) -> None:
    fitted, plain = zoom(read_page), window(read_page)
    drag(read_page, (0.4, 0.4), (0.6, 0.4))
    assert window(read_page)[0] > plain[0], "a drag to the right widens the window"
    read_page.keyboard.press("0")
    assert window(read_page) == plain
    drag(read_page, (0.5, 0.6), (0.5, 0.4), button="right")
    assert zoom(read_page) != fitted
    read_page.keyboard.press("1")
    assert zoom(read_page) == 100
    read_page.keyboard.press("f")
    assert zoom(read_page) == fitted
    read_page.keyboard.press("+")
    assert zoom(read_page) == pytest.approx(fitted * 1.25, abs=1)
    read_page.keyboard.press("0")
    before = shown(read_page)
    read_page.keyboard.press("i")
    read_page.wait_for_timeout(300)
    assert np.corrcoef(before.ravel(), shown(read_page).ravel())[0, 1] < 0, "inverted"


def test_a_mirrored_or_turned_image_says_so_and_its_sides_follow(read_page: Page) -> None:
    def sides() -> dict[str, str]:
        return {
            edge: read_page.locator(f".side.{edge}").inner_text() for edge in ("top", "right", "bottom", "left")
        }

    assert sides() == {"top": "H", "right": "L", "bottom": "F", "left": "R"}
    read_page.keyboard.press("h")
    expect(read_page.locator(".turned")).to_contain_text("Mirrored")
    assert sides() == {"top": "H", "right": "R", "bottom": "F", "left": "L"}
    read_page.keyboard.press("h")
    expect(read_page.locator(".turned")).to_have_count(0)
    read_page.keyboard.press("r")
    expect(read_page.locator(".turned")).to_contain_text("90")
    assert sides() == {"top": "R", "right": "H", "bottom": "L", "left": "F"}, "clockwise by a quarter"


def test_lengths_are_in_millimetres_where_the_file_has_a_scale(page: Page, tmp_path: Path) -> None:
    choose(page, dicom(tmp_path / "chest.dcm"))
    expect_picture(page)
    page.get_by_role("button", name="Analyse", exact=True).click()
    expect_report(page)
    expect(page.locator(".values")).to_contain_text("W 65776")  # the server's picture, of 16 bits
    page.keyboard.press("1")
    expect(page.locator(".values")).to_contain_text("100 %")
    page.keyboard.press("l")
    frame = page.get_by_test_id("viewport-main").bounding_box()
    assert frame
    drag(page, (0.3, 0.5), (0.3 + 200 / frame["width"], 0.5))
    expect(page.locator(".svg-layer")).to_contain_text(re.compile(r"(99|100)\.\d mm"))  # 200 pixels
    expect(page.locator(".values [title*='detector']")).to_be_visible()


def test_the_cardiothoracic_ratio_is_made_of_two_lines(read_page: Page) -> None:
    read_page.keyboard.press("c")
    drag(read_page, (0.4, 0.6), (0.6, 0.6))
    drag(read_page, (0.3, 0.7), (0.7, 0.7))
    expect(read_page.locator(".svg-layer")).to_contain_text("CTR 0.50")
    read_page.keyboard.press("Shift+Delete")
    expect(read_page.locator(".svg-layer")).not_to_contain_text("CTR")


def test_sixteen_bits_can_be_windowed_beyond_what_eight_show(page: Page, tmp_path: Path) -> None:
    choose(page, dicom(tmp_path / "chest.dcm", bits=12, WindowCenter=600, WindowWidth=200))
    expect_picture(page)
    page.get_by_role("button", name="Analyse", exact=True).click()
    expect_report(page)
    narrow = np.unique(shown(page)[100:-100, 100:-100]).size
    page.get_by_label("Window presets").select_option(label="Full range")
    page.wait_for_timeout(300)
    assert window(page)[0] == 65535
    wide = shown(page)
    assert np.unique(wide[100:-100, 100:-100]).size > 60, narrow


def test_a_dicom_file_is_shown_before_it_is_sent_and_none_is_sent_unasked(page: Page, tmp_path: Path) -> None:
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url) if request.method == "POST" else None)
    choose(page, dicom(tmp_path / "chest.dcm"))
    expect_picture(page)
    assert shown(page).std() > 20
    assert not sent


def test_a_file_that_the_browser_cannot_show_appears_once_it_was_read(page: Page, tmp_path: Path) -> None:
    Image.open(SAMPLE).save(tmp_path / "chest.tif")
    choose(page, tmp_path / "chest.tif")
    expect(page.locator(".instead")).to_contain_text("can’t show this file")
    page.get_by_role("button", name="Analyse", exact=True).click()
    expect_report(page)
    assert shown(page).std() > 20


def test_a_damaged_file_is_refused_with_a_sentence_and_the_next_one_works(page: Page, tmp_path: Path) -> None:
    (tmp_path / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    choose(page, tmp_path / "damaged.png")
    page.get_by_role("button", name="Analyse", exact=True).click()
    expect(page.locator(".sending")).to_contain_text("cut short")
    analyse_demo(page)


def test_the_report_can_be_copied_and_taken_out(read_page: Page, client: httpx.Client) -> None:
    read_page.keyboard.press("y")
    read_page.wait_for_function("navigator.clipboard.readText().then((text) => text.includes('FINDINGS'))")
    read_page.get_by_text("Take it with you").click()
    for name, kind in {
        "PDF": "application/pdf",
        "JSON": "application/json",
        "Picture with boxes": "image/png",
    }.items():
        link = read_page.get_by_role("link", name=name, exact=True).get_attribute("href")
        assert link
        assert client.get(f"/{link}").headers["content-type"].startswith(kind)


def test_two_images_are_compared_with_zoom_and_window_linked(read_page: Page, tmp_path: Path) -> None:
    choose(read_page, dicom(tmp_path / "other.dcm", bits=8))
    read_page.get_by_role("button", name="Analyse", exact=True).click()
    expect_report(read_page)
    read_page.keyboard.press("s")
    expect(read_page.locator(".values")).to_have_count(2)
    read_page.keyboard.press("+")
    read_page.wait_for_timeout(300)
    zooms = [int(text.split()[0]) for text in read_page.locator(".values").all_inner_texts()]
    assert abs(zooms[0] - zooms[1]) <= 1
    expect(read_page).to_have_url(re.compile("/beside/"))
    read_page.keyboard.press("s")
    expect(read_page.locator(".values")).to_have_count(1)


def test_text_of_a_report_is_never_markup(open_page: OpenPage) -> None:
    page = open_page()
    hostile = '<img src=x onerror="window.hacked = true">'
    page.route(re.compile("/v1/jobs/[0-9a-f-]{36}$"), lambda route: _rewritten(route, hostile))
    analyse_demo(page)
    page.reload()
    expect(page.get_by_test_id("findings")).to_contain_text("<img")
    assert page.evaluate("window.hacked") is None


def _rewritten(route: Route, text: str) -> None:
    response = route.fetch()
    job = response.json()
    if isinstance(job, dict) and job.get("report"):
        job["report"]["findings"] = text
    route.fulfill(response=response, json=job)
