"""The worklist: many files, states, search, and what is done with rows."""

import re
from pathlib import Path

import httpx
from playwright.sync_api import Page, expect

from emx_benchmarks.workstation_bench import answer_with_ten_thousand

from .conftest import REPORT_MS, SAMPLE, OpenPage, analyse_demo, choose, expect_report, variants


def test_many_files_are_sent_together_and_their_progress_is_shown(page: Page, tmp_path: Path) -> None:
    analyse_demo(page)  # another image, which the search leaves out
    choose(page, *variants(tmp_path, 12))
    page.get_by_label("Study").fill("twelve")
    page.get_by_role("button", name="Analyse 12 images").click()
    expect(page.locator(".sending")).to_contain_text("of 12")
    page.get_by_label("Search the worklist").fill("twelve")
    expect(page.locator(".job.succeeded")).to_have_count(12, timeout=REPORT_MS)
    expect(page.locator(".sending")).to_have_count(0, timeout=REPORT_MS)
    expect(page.locator(".count")).to_contain_text("12 of")


def test_files_are_dropped_anywhere_on_the_page(page: Page, tmp_path: Path) -> None:
    files = [list(file.read_bytes()) for file in variants(tmp_path, 2)]
    page.evaluate(
        """(files) => {
          const dataTransfer = new DataTransfer();
          files.forEach((bytes, n) => dataTransfer.items.add(new File([new Uint8Array(bytes)], `${n}.png`)));
          for (const kind of ['dragover', 'drop'])
            document.querySelector('.report-pane').dispatchEvent(
              new DragEvent(kind, { dataTransfer, bubbles: true, cancelable: true }));
        }""",
        files,
    )
    expect(page.get_by_role("dialog")).to_contain_text("Read 2 images")
    page.get_by_role("dialog").get_by_label("Study").fill("dropped")
    page.get_by_role("button", name="Analyse 2 images").click()
    page.get_by_label("Search the worklist").fill("dropped")
    expect(page.locator(".job.succeeded")).to_have_count(2, timeout=REPORT_MS)


def test_a_folder_is_taken_with_all_that_is_in_it(page: Page, tmp_path: Path) -> None:
    (tmp_path / "deep" / "deeper").mkdir(parents=True)
    for file in variants(tmp_path, 2):
        file.rename(tmp_path / "deep" / "deeper" / file.name)
    page.get_by_test_id("folder").set_input_files(tmp_path / "deep")
    expect(page.get_by_role("dialog")).to_contain_text("Read 2 images")


def test_the_list_shows_what_came_from_elsewhere_and_survives_a_reload(page: Page, client: httpx.Client) -> None:
    sent = client.post(
        "/v1/jobs?study=elsewhere&patient=P-9", content=SAMPLE.read_bytes(), headers={"Content-Type": "image/png"}
    ).json()
    row = page.locator(f"[data-job='{sent['id']}']")
    expect(row).to_contain_text("elsewhere", timeout=REPORT_MS)
    expect(row).to_have_class(re.compile("succeeded"), timeout=REPORT_MS)
    expect(row.locator(".glance")).not_to_be_empty()
    expect(row.locator(".thumbnail rect")).not_to_have_count(1)
    page.reload()
    expect(row).to_contain_text("P-9")


def test_a_link_opens_one_image(read_page: Page, open_page: OpenPage) -> None:
    other = open_page(read_page.url.partition("/#")[2] and "#" + read_page.url.partition("#")[2])
    expect_report(other)
    assert other.get_by_test_id("findings").inner_text() == read_page.get_by_test_id("findings").inner_text()


def test_rows_are_searched_filtered_and_sorted(page: Page, tmp_path: Path, client: httpx.Client) -> None:
    for name in ("sorted-a", "sorted-b"):
        client.post(
            f"/v1/jobs?study=sorting&patient={name}",
            content=SAMPLE.read_bytes(),
            headers={"Content-Type": "image/png"},
        )
    search = page.get_by_label("Search the worklist")
    search.fill("sorting")
    expect(page.locator(".job.succeeded")).to_have_count(2, timeout=REPORT_MS)
    expect(page.locator(".job").first).to_contain_text("sorted-b")
    page.get_by_label("Sort by").select_option("oldest")
    expect(page.locator(".job").first).to_contain_text("sorted-a")
    finding = page.locator(".job .glance").first.inner_text().split(";")[0].split(",")[0]
    search.fill(f"sorting {finding}")
    expect(page.locator(".job")).to_have_count(2)
    search.fill("sorting nothing-like-this")
    expect(page.locator(".empty-list")).to_contain_text("Nothing matches")
    search.press("Escape")
    page.get_by_label("State").select_option("failed")
    expect(page.locator(".job.succeeded")).to_have_count(0)


def test_keys_step_through_the_list(page: Page, tmp_path: Path) -> None:
    choose(page, *variants(tmp_path, 3))
    page.get_by_label("Study").fill("stepping")
    page.get_by_role("button", name="Analyse 3 images").click()
    page.get_by_label("Search the worklist").fill("stepping")
    expect(page.locator(".job.succeeded")).to_have_count(3, timeout=REPORT_MS)
    page.locator(".job").first.click()
    expect_report(page)
    first = page.url
    page.keyboard.press("ArrowDown")
    expect(page).not_to_have_url(first)
    expect(page.locator(".job").nth(1)).to_have_class(re.compile(r"\bopen\b"))
    page.keyboard.press("ArrowUp")
    expect(page).to_have_url(first)


def test_erasing_asks_first_and_then_nothing_is_left(page: Page, client: httpx.Client) -> None:
    analyse_demo(page)
    job = page.url.rpartition("/")[2]
    page.keyboard.press("Delete")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("removed from the server for good")
    dialog.get_by_role("button", name="Cancel").click()
    assert client.get(f"/v1/jobs/{job}").status_code == 200
    page.keyboard.press("Delete")
    dialog.get_by_role("button", name="Erase for good").click()
    expect(page.locator(f"[data-job='{job}']")).to_have_count(0)
    assert client.get(f"/v1/jobs/{job}").status_code == 404
    expect(page.locator(".report-pane")).to_contain_text("No report yet")


def test_several_rows_are_selected_and_read_again(page: Page, tmp_path: Path) -> None:
    choose(page, *variants(tmp_path, 2))
    page.get_by_label("Study").fill("again")
    page.get_by_role("button", name="Analyse 2 images").click()
    page.get_by_label("Search the worklist").fill("again")
    expect(page.locator(".job.succeeded")).to_have_count(2, timeout=REPORT_MS)
    for box in page.locator(".job input[type=checkbox]").all():
        box.check()
    page.locator(".bulk").get_by_role("button", name="Read again").click()
    expect(page.locator(".job.succeeded")).to_have_count(4, timeout=REPORT_MS)


def test_ten_thousand_rows_scroll_and_few_of_them_are_in_the_page(open_page: OpenPage) -> None:
    page = open_page()
    analyse_demo(page)
    page.evaluate("window.stop()")
    page.route(re.compile(r"/v1/jobs\?"), answer_with_ten_thousand)
    page.reload()
    expect(page.locator(".count")).to_contain_text(re.compile("1000[01] "), timeout=REPORT_MS)
    assert page.locator(".job").count() < 60
    rows = page.get_by_test_id("rows")
    rows.evaluate("rows => rows.scrollTo(0, rows.scrollHeight)")
    expect(page.locator(".job").last).to_contain_text("study-9999")
