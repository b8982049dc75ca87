"""The workstation in a real Chromium, driven as a reader would use it, on the running system."""

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from explainmyxray.supervisor import Supervisor
from support.paths import ROOT

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
REPORT_MS = 60_000
SAMPLE = ROOT / "models" / "demo" / "sample.png"
_QUIET = ["--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]

OpenPage = Callable[..., Page]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if CHROMIUM is None:
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="no Chromium here"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser for the tests of one file: Playwright keeps an event loop running, which others can't have."""
    with sync_playwright() as playwright:
        options = [*_QUIET, "--no-sandbox", "--disable-gpu", "--disable-quic"]
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield running
        running.close()


@pytest.fixture
def open_page(browser: Browser, system: Supervisor) -> Iterator[OpenPage]:
    """Open the workstation in a browser of its own. Errors on the console fail the test, refused policies too."""
    contexts: list[BrowserContext] = []
    errors: list[str] = []

    def open_it(path: str = "", url: str | None = None, **options: object) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1440, "height": 900}, **options})  # type: ignore[arg-type]
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"{url or system.url}/{path}")
        return page

    yield open_it
    for context in contexts:
        context.close()
    # Chromium logs what was refused, unavailable or out of reach, as tests have it on purpose
    unexpected = [text for text in errors if not re.search(r"status of (4|503)|net::ERR_", text)]
    assert not unexpected


@pytest.fixture
def page(open_page: OpenPage) -> Page:
    return open_page()


@pytest.fixture
def read_page(page: Page) -> Page:
    """The workstation with the demo image's report."""
    analyse_demo(page)
    return page


def analyse_demo(page: Page) -> None:
    page.get_by_role("button", name="Demo image").click()
    page.get_by_role("button", name="Analyse", exact=True).click()
    expect_report(page)


def expect_report(page: Page) -> None:
    expect(page.get_by_test_id("report")).to_be_visible(timeout=REPORT_MS)
    expect_picture(page)


def expect_picture(page: Page) -> None:
    expect(page.get_by_test_id("window").first).to_be_visible(timeout=REPORT_MS)


def choose(page: Page, *files: Path) -> None:
    page.get_by_test_id("files").set_input_files(list(files))


def variants(folder: Path, count: int) -> list[Path]:
    """Pictures of different bytes."""
    sample = np.asarray(Image.open(SAMPLE).convert("L"))[::4, ::4]
    files = []
    for number in range(count):
        picture = sample.copy()
        picture[0, :8] = number
        files.append(folder / f"image-{number:03}.png")
        Image.fromarray(picture).save(files[-1])
    return files


def dicom(file: Path, bits: int = 12, **elements: object) -> Path:
    """The demo image as a DX file of so many bits, with a window on its whole range and a scale of 0.5 mm."""
    picture = np.asarray(Image.open(SAMPLE).convert("L")).astype(np.uint16) << (bits - 8)
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1.1", generate_uid()
    dataset.Modality, dataset.BodyPartExamined = "DX", "CHEST"
    dataset.Rows, dataset.Columns = picture.shape
    dataset.PhotometricInterpretation, dataset.SamplesPerPixel, dataset.PixelRepresentation = "MONOCHROME2", 1, 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, bits, bits - 1
    dataset.WindowCenter, dataset.WindowWidth = 2 ** (bits - 1), 2**bits
    dataset.ImagerPixelSpacing = [0.5, 0.5]
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    dataset.PixelData = picture.tobytes()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.save_as(file, enforce_file_format=True)
    return file
