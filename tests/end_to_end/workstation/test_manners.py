"""Themes, languages, keys, small screens, accessibility, and what happens when things go wrong."""

import re
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from explainmyxray.supervisor import Supervisor

from .conftest import OpenPage, analyse_demo, expect_report


def background(page: Page) -> str:
    colour: str = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return colour


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_the_theme_follows_the_system_until_one_is_chosen(open_page: OpenPage, scheme: str) -> None:
    page = open_page(color_scheme=scheme)
    assert page.evaluate("document.documentElement.dataset.theme") == scheme
    other = {"dark": "light", "light": "dark"}[scheme]
    page.emulate_media(color_scheme=other)  # type: ignore[arg-type]
    expect(page.locator("html")).to_have_attribute("data-theme", other)
    before = background(page)
    while page.locator("html").get_attribute("data-theme") == other:
        page.get_by_role("button", name=re.compile("^Theme")).click()
    assert background(page) != before
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-theme", scheme)


def test_spanish_is_complete_and_remembered(open_page: OpenPage) -> None:
    page = open_page(locale="es-ES")
    expect(page.get_by_role("button", name="Imagen de prueba")).to_be_visible()
    page.get_by_label("Idioma").select_option("en")
    expect(page.get_by_role("button", name="Demo image")).to_be_visible()
    page.reload()
    expect(page.get_by_role("button", name="Demo image")).to_be_visible()


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_axe_finds_nothing(open_page: OpenPage, scheme: str) -> None:
    page = open_page(color_scheme=scheme)
    found = {"empty": _violations(page)}
    analyse_demo(page)
    found["report"] = _violations(page)
    page.keyboard.press("?")
    found["help"] = _violations(page)
    page.keyboard.press("Escape")
    page.keyboard.press("Control+k")
    found["palette"] = _violations(page)
    assert not any(found.values()), found


def _violations(page: Page) -> list[str]:
    page.wait_for_timeout(300)
    response = Axe().run(page).response
    return [
        f"{one['id']}: {node['html'][:200]} {node['failureSummary'][:200]}"
        for one in response["violations"]
        for node in one["nodes"]
    ]


def test_every_action_is_in_the_palette_with_its_key(read_page: Page) -> None:
    read_page.keyboard.press("?")
    keys = read_page.locator(".keys kbd").all_inner_texts()
    assert len(keys) > 25
    assert len(set(keys)) == len(keys), "no key does two things"
    read_page.keyboard.press("Escape")
    expect(read_page.get_by_role("dialog")).to_have_count(0)
    read_page.keyboard.press("Control+k")
    expect(read_page.get_by_role("combobox", name="What do you want to do?")).to_be_focused()
    read_page.keyboard.type("mirr")
    read_page.keyboard.press("Enter")
    expect(read_page.locator(".turned")).to_contain_text("Mirrored")


def test_typing_is_not_taken_for_commands(read_page: Page) -> None:
    read_page.get_by_label("Comment").fill("")
    read_page.get_by_label("Comment").press_sequentially("hi, with 0 and ?")
    expect(read_page.locator(".turned")).to_have_count(0)
    expect(read_page.get_by_label("Comment")).to_have_value("hi, with 0 and ?")


def test_the_whole_way_goes_by_keyboard(page: Page) -> None:
    page.keyboard.press("d")
    expect(page.get_by_role("button", name="Analyse", exact=True)).to_be_visible()
    page.get_by_role("button", name="Analyse", exact=True).focus()
    page.keyboard.press("Enter")
    expect_report(page)
    page.keyboard.press("n")
    expect(page.locator(".finding .name[aria-pressed=true]")).to_have_count(1)


def test_a_phone_shows_list_image_and_report_in_turn(open_page: OpenPage, pytestconfig: pytest.Config) -> None:
    page = open_page(viewport={"width": 390, "height": 844}, has_touch=True, color_scheme="dark")
    page.get_by_role("button", name="Demo image").click()
    page.get_by_role("button", name="Analyse", exact=True).click()
    page.get_by_role("button", name="Report", exact=True).click()
    expect(page.get_by_test_id("findings")).to_be_visible(timeout=60_000)
    wide = "document.scrollingElement.scrollWidth > innerWidth"
    assert not page.evaluate(wide)
    page.get_by_role("button", name="Image", exact=True).click()
    expect(page.get_by_test_id("window")).to_be_visible()
    assert not page.evaluate(wide)


def test_a_lost_connection_is_said_and_found_again(page: Page) -> None:
    expect(page.locator(".count")).to_be_visible()
    page.context.set_offline(True)
    expect(page.locator(".worklist .error")).to_contain_text("connection to the server is lost", timeout=15_000)
    page.context.set_offline(False)
    expect(page.locator(".worklist .error")).to_have_count(0, timeout=15_000)
    analyse_demo(page)


def test_a_job_that_is_no_more_gets_a_sentence(open_page: OpenPage) -> None:
    page = open_page("#/jobs/00000000-0000-4000-8000-000000000000")
    expect(page.locator(".report-pane .error")).to_be_visible()
    expect(page.locator(".instead")).to_contain_text("no longer stored")


def test_nothing_is_asked_of_any_other_host(page: Page, system: Supervisor) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    analyse_demo(page)
    page.goto(f"{system.url}/docs")
    expect(page.get_by_text("/explain")).to_be_visible()
    assert asked and all(url.startswith((system.url, "data:", "blob:")) for url in asked)


def test_the_policy_lets_no_script_in_but_the_servers(browser: Browser, system: Supervisor) -> None:
    page = browser.new_page()
    answer = page.goto(system.url)
    assert answer
    scripts = re.search(r"script-src ([^;]*)", answer.headers["content-security-policy"])
    assert scripts and set(scripts[1].split()) == {"'self'", "'wasm-unsafe-eval'"}
    ran = page.evaluate(
        "() => { const one = document.createElement('script'); one.textContent = 'window.ran = 1';"
        " document.head.append(one); return window.ran ?? null; }"
    )
    assert ran is None
    page.close()


def test_pictures_of_both_themes_and_a_phone(open_page: OpenPage, pytestconfig: pytest.Config) -> None:
    folder: Path | None = pytestconfig.getoption("--screenshots")
    if folder is None:
        pytest.skip("--screenshots FOLDER takes them")
    folder.mkdir(parents=True, exist_ok=True)
    for name, options in {
        "workstation": {"color_scheme": "dark"},
        "workstation-light": {"color_scheme": "light"},
        "workstation-phone": {"color_scheme": "dark", "viewport": {"width": 390, "height": 844}},
    }.items():
        page = open_page(**options)
        page.get_by_role("button", name="Demo image").click()
        page.get_by_role("button", name="Analyse", exact=True).click()
        expect(page.locator(".svg-layer text")).not_to_have_count(0, timeout=60_000)
        page.wait_for_timeout(500)
        page.screenshot(path=folder / f"{name}.png", animations="disabled")
