"""A server that asks for keys: the question, refused keys, and files that are taken out with a key in use."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from emx_shared.api_keys import KeyRing
from emx_shared.store.directory import DirectoryStore
from support.gateway import RunningGateway, StartGateway

from .conftest import REPORT_MS, OpenPage


@pytest.fixture
def gateway(redis_url: str, tmp_path: Path, start_gateway: StartGateway) -> Iterator[tuple[RunningGateway, str]]:
    """A gateway alone that asks for a key."""
    _, key = KeyRing(DirectoryStore(tmp_path / "store")).create("north")
    with start_gateway(redis_url, tmp_path / "store") as running:
        yield running, key


@pytest.fixture
def keyed(open_page: OpenPage, gateway: tuple[RunningGateway, str]) -> Page:
    """The workstation with a key given; the demo image waits to be read."""
    running, key = gateway
    page = open_page(url=running.url)
    give(page, key)
    page.get_by_role("button", name="Demo image").click()
    page.get_by_role("button", name="Analyse", exact=True).click()
    expect(page.locator(".report-pane")).to_contain_text("Waiting for a worker")
    return page


def give(page: Page, key: str) -> None:
    page.get_by_label("API key", exact=True).fill(key)
    page.get_by_role("button", name="Use this key").click()
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_a_key_is_asked_for_with_the_trap_of_the_first_one_explained(
    open_page: OpenPage, gateway: tuple[RunningGateway, str]
) -> None:
    page = open_page(url=gateway[0].url)
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("asks for an API key")
    expect(dialog).to_contain_text("took no keys before")
    page.get_by_label("API key", exact=True).fill("emx_nonsense")
    page.get_by_role("button", name="Use this key").click()
    expect(dialog).to_contain_text("was refused")
    give(page, gateway[1])
    expect(page.locator(".empty-list")).to_be_visible()


def test_the_key_stays_in_the_tab_alone(
    keyed: Page, gateway: tuple[RunningGateway, str], open_page: OpenPage
) -> None:
    stored = keyed.evaluate("[JSON.stringify(localStorage), document.cookie, location.href].join()")
    assert gateway[1] not in stored
    keyed.reload()
    expect(keyed.locator(".job")).to_have_count(1)
    other = open_page(url=gateway[0].url)
    expect(other.get_by_role("dialog")).to_contain_text("asks for an API key")


def test_a_revoked_key_is_asked_for_anew(keyed: Page, gateway: tuple[RunningGateway, str], tmp_path: Path) -> None:
    ring = KeyRing(DirectoryStore(tmp_path / "store"))
    _, other = ring.create("north")
    first = ring.find(gateway[1])
    assert first
    ring.revoke(first.id)
    expect(keyed.get_by_role("dialog")).to_contain_text("was refused", timeout=20_000)
    give(keyed, other)
    expect(keyed.locator(".job")).to_have_count(1)


def test_files_are_saved_and_no_page_is_opened_that_could_reach_the_key(
    keyed: Page, gateway: tuple[RunningGateway, str], tmp_path: Path
) -> None:
    running = gateway[0]
    (waiting,) = running.ledger.store.list("open/")
    running.read_by_a_worker(waiting.key.removeprefix("open/"))
    expect(keyed.get_by_test_id("report")).to_be_visible(timeout=REPORT_MS)
    keyed.get_by_text("Take it with you").click()
    starts = {
        "Picture with boxes": b"\x89PNG",
        "HTML": b"<!doctype html>",
        "PDF": b"%PDF",
        "Text": b"",
        "JSON": b"{",
    }
    opened = len(keyed.context.pages)
    for name, start in starts.items():
        with keyed.expect_download() as saving:
            keyed.get_by_role("link", name=name, exact=True).click()
        file = tmp_path / saving.value.suggested_filename
        saving.value.save_as(file)
        assert file.read_bytes().lower().startswith(start.lower()), name
    assert len(keyed.context.pages) == opened
    (html,) = tmp_path.glob("*report.html")
    keyed.goto(html.as_uri())
    assert keyed.locator("img").first.evaluate("image => image.naturalWidth") > 0


def test_the_workstation_works_below_a_path_prefix(
    open_page: OpenPage, redis_url: str, tmp_path: Path, start_gateway: StartGateway
) -> None:
    with start_gateway(redis_url, tmp_path / "store", EMX_PUBLIC_URL="http://127.0.0.1/xray") as running:
        page = open_page("xray/", url=running.url)
        page.get_by_role("button", name="Demo image").click()
        page.get_by_role("button", name="Analyse", exact=True).click()
        expect(page.locator(".report-pane")).to_contain_text("Waiting for a worker")
        expect(page).to_have_url(re.compile("/xray/#/jobs/"))


def test_cancelling_a_job_that_waits(keyed: Page) -> None:
    keyed.locator(".progress").get_by_role("button", name="Cancel").click()
    expect(keyed.locator(".report-pane")).to_contain_text("was cancelled")
    expect(keyed.locator(".job.cancelled")).to_have_count(1)
