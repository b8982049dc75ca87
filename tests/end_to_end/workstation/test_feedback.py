"""A reader's own reading: agree, reject, correct, draw, save; another reader's is not overwritten."""

import re
from typing import Any

import httpx
from playwright.sync_api import Page, expect

from .test_reading import drag, job_of


def versions(client: httpx.Client, page: Page) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get(f"/v1/jobs/{job_of(page)}/feedback").json()["items"]
    return found


def save(page: Page, reviewer: str = "AB") -> None:
    page.get_by_label("Your initials").fill(reviewer)
    page.get_by_role("button", name="Save feedback").click()


def test_agreeing_agrees_with_every_finding(read_page: Page, client: httpx.Client) -> None:
    read_page.get_by_role("button", name="Agree", exact=True).click()
    read_page.get_by_label("Comment").fill("As on the <b>last</b> image.")
    save(read_page)
    expect(read_page.locator(".feedback")).to_contain_text("Saved as version 1")
    (one,) = versions(client, read_page)
    assert (one["reviewer"], one["verdict"], one["comment"]) == ("AB", "agree", "As on the <b>last</b> image.")
    assert [where["verdict"] for where in one["locations"]] == ["agreed"] * read_page.locator(".finding").count()
    read_page.get_by_text("Earlier feedback").click()
    expect(read_page.locator("blockquote")).to_have_text("As on the <b>last</b> image.")
    report = client.get(f"/v1/jobs/{job_of(read_page)}/report.txt").text
    assert "Reviewed by AB" in report


def test_findings_are_rejected_renamed_and_drawn(read_page: Page, client: httpx.Client) -> None:
    count = read_page.locator(".finding").count()
    read_page.locator(".finding").first.get_by_role("button", name=re.compile("^Reject")).click()
    read_page.get_by_role("button", name="Correct", exact=True).click()
    read_page.locator(".corrections li").nth(1).get_by_label("Finding").select_option("pneumonia")
    drag(read_page, (0.2, 0.2), (0.35, 0.4))
    expect(read_page.locator(".corrections li")).to_have_count(count + 1)
    expect(read_page.locator(".corrections li").last.get_by_label("Side")).to_have_value("right")
    save(read_page)
    expect(read_page.locator(".feedback")).to_contain_text("Saved as version 1")
    (one,) = versions(client, read_page)
    said = [(where["of"], where["verdict"], where["label"]) for where in one["locations"]]
    assert one["verdict"] == "disagree"
    assert said[0][:2] == (0, "rejected") and said[1] == (1, "corrected", "pneumonia")
    assert said[-1] == (None, "added", "lung opacity")
    box = one["locations"][-1]["box_normalised"]
    assert 0 <= box["xmin"] < box["xmax"] < 0.5 and 0 <= box["ymin"] < box["ymax"] < 0.6
    read_page.reload()
    expect(read_page.locator(".finding.rejected")).to_have_count(1)


def test_a_box_is_moved_by_its_corner(read_page: Page, client: httpx.Client) -> None:
    report = client.get(f"/v1/jobs/{job_of(read_page)}/report.json").json()
    before = report["locations"][0]["box"]
    read_page.get_by_role("button", name="Correct", exact=True).click()
    rectangle = read_page.locator(
        "[data-testid=viewport-main] .svg-layer rect:not(.background)"
    ).first.bounding_box()
    assert rectangle
    x, y = rectangle["x"] + rectangle["width"], rectangle["y"] + rectangle["height"]
    read_page.mouse.move(x - 30, y - 30)
    read_page.mouse.move(x, y, steps=5)
    read_page.mouse.down()
    read_page.mouse.move(x - 20, y - 20)
    read_page.mouse.move(x - 40, y - 30, steps=4)
    read_page.mouse.up()
    save(read_page)
    expect(read_page.locator(".feedback")).to_contain_text("Saved as version 1")
    (one,) = versions(client, read_page)
    moved = [where for where in one["locations"] if where["verdict"] == "corrected"]
    assert len(moved) == 1, one["locations"]
    after = moved[0]["box"]
    original = report["locations"][moved[0]["of"]]["box"]
    assert after["xmax"] < original["xmax"] - 10 or after["ymax"] < original["ymax"] - 10, (before, after)


def test_what_another_reader_saved_meanwhile_is_not_overwritten(read_page: Page, client: httpx.Client) -> None:
    read_page.get_by_role("button", name="Agree", exact=True).click()
    other = {"reviewer": "CD", "verdict": "disagree", "locations": []}
    assert client.post(f"/v1/jobs/{job_of(read_page)}/feedback", json=other).status_code == 201
    save(read_page)
    expect(read_page.locator(".feedback .error")).to_contain_text("Someone else saved feedback")
    assert [one["reviewer"] for one in versions(client, read_page)] == ["CD"]
    save(read_page)
    expect(read_page.locator(".feedback")).to_contain_text("Saved as version 2")
    assert [one["reviewer"] for one in versions(client, read_page)] == ["CD", "AB"]
