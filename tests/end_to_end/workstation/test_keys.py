"""The workstation in a real Chromium, driven as a reader would use it."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from emx_shared.api_keys import KeyRing
from emx_shared.store.directory import DirectoryStore
from explainmyxray.supervisor import Supervisor
from support.gateway import RunningGateway, StartGateway

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
REPORT_MS = 60_000

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    quiet = ["--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
    with sync_playwright() as playwright:
        options = [*quiet, "--no-sandbox", "--disable-gpu", "--disable-quic"]
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield running
        running.close()


@pytest.fixture
def page(browser: Browser, system: Supervisor) -> Iterator[Page]:
    """The workstation, freshly opened. Errors on the console fail the test, a refused policy among them."""
    context = browser.new_context(viewport={"width": 1360, "height": 860}, color_scheme="light")
    opened = context.new_page()
    errors: list[str] = []
    opened.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.goto(system.url)
    yield opened
    context.close()
    unexpected = [text for text in errors if "status of 4" not in text]  # Chromium logs refusals, which are tested
    assert not unexpected


def analyse_demo(page: Page) -> None:
    page.get_by_role("button", name="Demo image").click()
    page.get_by_role("button", name="Analyse").click()
    expect(page.locator("#report")).to_be_visible(timeout=REPORT_MS)


def test_the_demo_image_gets_a_report_with_its_boxes(page: Page, pytestconfig: pytest.Config) -> None:
    analyse_demo(page)
    expect(page.locator("#findings")).not_to_be_empty()
    expect(page.locator("#impression")).not_to_be_empty()
    expect(page.locator("#warnings")).to_contain_text("demo model")
    expect(page.locator("#disclaimer")).to_contain_text("Not for clinical use")
    lines = page.locator("#locations li:has(.swatch)")
    boxes = page.locator("#boxes g rect")
    assert lines.count() == boxes.count() > 0
    image = page.locator("#image").bounding_box()
    assert image
    for box in boxes.all():
        frame = box.bounding_box()
        assert frame
        assert image["x"] - 4 <= frame["x"] < frame["x"] + frame["width"] <= image["x"] + image["width"] + 4
        assert image["y"] - 4 <= frame["y"] < frame["y"] + frame["height"] <= image["y"] + image["height"] + 4
    folder: Path | None = pytestconfig.getoption("--screenshots")
    if folder:
        page.get_by_role("button", name="Switch between").click()
        page.screenshot(path=folder / "workstation.png", animations="disabled")


def test_pointing_at_a_line_leaves_only_its_box_bright(page: Page) -> None:
    analyse_demo(page)
    count = page.locator("#boxes g").count()
    page.locator("#locations li").first.hover()
    expect(page.locator("#boxes g.dim")).to_have_count(count - 1)
    expect(page.locator("#boxes g").first).not_to_have_class(re.compile("dim"))


def test_boxes_can_be_hidden(page: Page) -> None:
    analyse_demo(page)
    page.get_by_label("Boxes").uncheck()
    expect(page.locator("#boxes")).to_be_hidden()
    page.get_by_label("Boxes").check()
    expect(page.locator("#boxes")).to_be_visible()


def test_the_theme_changes_and_is_remembered(page: Page) -> None:
    def background() -> str:
        colour: str = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return colour

    light = background()
    page.get_by_role("button", name="Switch between").click()
    dark = background()
    assert dark != light
    page.reload()
    assert background() == dark


def test_an_uploaded_file_is_read(page: Page, system: Supervisor) -> None:
    from support.paths import ROOT

    page.set_input_files("#file", ROOT / "models" / "demo" / "sample.png")
    page.get_by_role("button", name="Analyse").click()
    expect(page.locator("#status")).to_contain_text("Report after", timeout=REPORT_MS)


def test_a_damaged_file_gets_a_sentence_and_the_next_one_works(page: Page, tmp_path: Path) -> None:
    (tmp_path / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    page.set_input_files("#file", tmp_path / "damaged.png")
    page.get_by_role("button", name="Analyse").click()
    expect(page.locator("#status.failed")).to_contain_text("cut short")
    expect(page.locator("#report")).to_be_hidden()
    analyse_demo(page)


def test_the_api_documentation_needs_no_other_host(page: Page, system: Supervisor) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{system.url}/docs")
    expect(page.get_by_text("/explain")).to_be_visible()
    assert asked and all(url.startswith((system.url, "data:")) for url in asked)


def dicom(file: Path) -> Path:
    """The demo image as a DX file."""
    from support.paths import ROOT

    picture = np.asarray(Image.open(ROOT / "models" / "demo" / "sample.png").convert("L"))
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1.1", generate_uid()
    dataset.Modality, dataset.BodyPartExamined = "DX", "CHEST"
    dataset.Rows, dataset.Columns = picture.shape
    dataset.PhotometricInterpretation, dataset.SamplesPerPixel, dataset.PixelRepresentation = "MONOCHROME2", 1, 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelData = picture.tobytes() + b"\0" * (picture.size % 2)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.save_as(file, enforce_file_format=True)
    return file


def test_a_dicom_file_is_shown_once_it_was_read(page: Page, tmp_path: Path) -> None:
    page.set_input_files("#file", dicom(tmp_path / "chest.dcm"))
    expect(page.locator("#hint")).to_contain_text("can't show this file")
    page.get_by_role("button", name="Analyse").click()
    expect(page.locator("#status")).to_contain_text("Report after", timeout=REPORT_MS)
    expect(page.locator("#figure")).to_be_visible()
    assert page.locator("#image").evaluate("image => image.naturalWidth") > 32


@pytest.fixture
def keyed(
    browser: Browser, redis_url: str, tmp_path: Path, start_gateway: StartGateway
) -> Iterator[tuple[Page, RunningGateway]]:
    """The workstation of a gateway alone that asks for a key, which was given; the demo image waits to be read."""
    _, key = KeyRing(DirectoryStore(tmp_path / "store")).create("north")
    page = browser.new_page()
    with start_gateway(redis_url, tmp_path / "store") as gateway:
        page.goto(gateway.url)
        page.get_by_role("button", name="Demo image").click()
        page.get_by_role("button", name="Analyse").click()
        page.get_by_label("API key").fill(key)
        page.get_by_role("button", name="Use it").click()
        expect(page.locator("#status")).to_contain_text("Waiting for a worker")
        yield page, gateway
        page.close()


def test_a_server_with_keys_asks_for_one_and_its_reports_can_be_kept(
    keyed: tuple[Page, RunningGateway], tmp_path: Path
) -> None:
    page, gateway = keyed
    (waiting,) = gateway.ledger.store.list("open/")
    gateway.read_by_a_worker(waiting.key.removeprefix("open/"))
    expect(page.locator("#report")).to_be_visible(timeout=REPORT_MS)
    starts = {"Overlay PNG": b"\x89PNG", "HTML": b"<!doctype html>", "PDF": b"%PDF", "Text": b"", "JSON": b"{"}
    opened = len(page.context.pages)
    for name, start in starts.items():
        with page.expect_download() as saving:
            page.locator("#links").get_by_role("link", name=name, exact=True).click()
        file = tmp_path / saving.value.suggested_filename
        saving.value.save_as(file)
        assert file.read_bytes().lower().startswith(start.lower()), name
    assert len(page.context.pages) == opened, "no page was opened that could reach this one, and its key"
    (html,) = tmp_path.glob("*report.html")
    page.goto(html.as_uri())
    assert page.locator("img").first.evaluate("image => image.naturalWidth") > 0
