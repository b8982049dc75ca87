"""The operations page, and what readers see when nobody reads."""

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect

from support.gateway import RunningGateway, StartGateway

from .conftest import REPORT_MS, OpenPage
from .test_reading import job_of


def test_it_shows_who_reads_how_fast_and_how_readers_agree(read_page: Page, client: httpx.Client) -> None:
    said = {"reviewer": "AB", "verdict": "agree", "locations": [{"of": 0, "verdict": "agreed"}]}
    assert client.post(f"/v1/jobs/{job_of(read_page)}/feedback", json=said).status_code == 201
    read_page.get_by_role("link", name="Operations").click()
    page = read_page
    expect(page.locator(".card", has_text="Workers alive")).to_contain_text("1", timeout=REPORT_MS)
    expect(page.locator(".card", has_text="Object storage")).to_contain_text("available")
    expect(page.locator(".chart canvas")).to_have_count(2)
    expect(page.locator("tr", has_text="Stat")).to_contain_text(re.compile(r"\d\.\d s"))
    agreement = page.locator("section", has_text="Readers’ agreement")
    expect(agreement).to_contain_text(re.compile(r"[1-9]\d* agreed with"))
    page.keyboard.press("V")
    expect(page.get_by_test_id("rows")).to_be_visible()


@pytest.fixture
def idle(redis_url: str, tmp_path: Path, start_gateway: StartGateway) -> Iterator[RunningGateway]:
    """A gateway without any worker."""
    with start_gateway(redis_url, tmp_path / "store") as running:
        yield running


def test_nobody_reads_and_the_page_says_so(open_page: OpenPage, idle: RunningGateway) -> None:
    page = open_page(url=idle.url)
    expect(page.locator(".banner.unread")).to_contain_text("No worker is reading", timeout=15_000)
    for _ in range(2):
        page.get_by_role("button", name="Demo image").click()
        page.get_by_role("button", name="Analyse", exact=True).click()
        expect(page.locator(".report-pane")).to_contain_text("Waiting for a worker")
    expect(page.locator(".report-pane")).to_contain_text(re.compile(r"[1-9]\d* images? ahead"))
    page.goto(f"{idle.url}/#/operations")
    expect(page.locator(".card.bad", has_text="Workers alive")).to_contain_text("0")
    expect(page.locator(".card", has_text="Images under way")).to_contain_text("2")


def test_a_failed_image_says_why_in_list_report_and_operations(open_page: OpenPage, idle: RunningGateway) -> None:
    page = open_page(url=idle.url)
    page.get_by_role("button", name="Demo image").click()
    page.get_by_role("button", name="Analyse", exact=True).click()
    expect(page.locator(".report-pane")).to_contain_text("Waiting for a worker")
    idle.fail_by_a_worker(job_of(page))
    expect(page.locator(".report-pane .error")).to_contain_text("could not be read")
    expect(page.locator(".job.failed .glance")).to_contain_text("could not be read")
    page.goto(f"{idle.url}/#/operations")
    expect(page.locator("section", has_text="Failures")).to_contain_text("1 ×")


def test_reviewed_images_can_be_found(read_page: Page, client: httpx.Client) -> None:
    said = {"reviewer": "XY", "verdict": "disagree"}
    assert client.post(f"/v1/jobs/{job_of(read_page)}/feedback", json=said).status_code == 201
    read_page.reload()
    read_page.get_by_label("Search the worklist").fill("reviewed xy")
    expect(read_page.locator(".job")).to_have_count(1)
    expect(read_page.locator(".job .reviewed.disagree")).to_contain_text("XY")
