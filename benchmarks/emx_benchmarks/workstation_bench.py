"""Measures the workstation as a reader meets it: in Chromium, on a system of its own, with the demo model."""

import io
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from emx_shared.demo_files import DEMO_IMAGE
from explainmyxray.supervisor import Supervisor, free_port

_SIDE = 3000
"""Pixels of the image that is moved, zoomed and windowed."""
_ROWS = 10_000
"""Of the worklist that is scrolled."""
_TIMEOUT_MS = 60_000
_SEEN = "document.querySelector('.empty-list, .job') && !document.querySelector('button.primary').disabled"
_DRAG = """async ([kind, seconds]) => {
  const element = document.querySelector('[data-testid=viewport-main]');
  const frame = element.getBoundingClientRect();
  const [x, y] = [frame.x + frame.width / 2, frame.y + frame.height / 2];
  const button = { window: 0, pan: 1, zoom: 2 }[kind], buttons = { window: 1, pan: 4, zoom: 2 }[kind];
  const fire = (type, x, y, target) => target.dispatchEvent(new MouseEvent(type,
    { bubbles: true, cancelable: true, button, buttons, clientX: x, clientY: y, view: window }));
  let frames = 0;
  const count = () => frames++;
  element.addEventListener('CORNERSTONE_IMAGE_RENDERED', count);
  fire('mousedown', x, y, element);
  const began = performance.now();
  for (let n = 0; performance.now() - began < seconds * 1000; n++) {
    await new Promise(requestAnimationFrame);
    fire('mousemove', x + 80 * Math.sin(n / 10), y + 60 * Math.sin(n / 14), document);
  }
  const took = (performance.now() - began) / 1000;
  fire('mouseup', x, y, document);
  element.removeEventListener('CORNERSTONE_IMAGE_RENDERED', count);
  return frames / took;
}"""
_SCROLL = """async (seconds) => {
  const rows = document.querySelector('[data-testid=rows]');
  const began = performance.now(), start = rows.scrollTop;
  let last = began, longest = 0;
  while (performance.now() - began < seconds * 1000) {
    await new Promise(requestAnimationFrame);
    rows.scrollTop += 3200;
    longest = Math.max(longest, performance.now() - last);
    last = performance.now();
  }
  const took = (performance.now() - began) / 1000;
  return { rows: (rows.scrollTop - start) / 64 / took, longest: longest / 1000 };
}"""


class NoBrowser(Exception):
    """Chromium or Playwright is missing."""


@dataclass(frozen=True)
class WorkstationBenchSizes:
    """How often, and how long.

    Attributes:
        rounds: of which the medians are taken.
        seconds: of each drag and of scrolling.
    """

    rounds: int = 10
    seconds: float = 2.0


def bench_workstation(sizes: WorkstationBenchSizes) -> dict[str, Any]:
    """Start a system and a browser, and measure.

    Returns:
        ``interactive_seconds``, from an empty cache to a worklist that can be used; ``transferred_bytes`` until
        then, as they came over the network; ``first_text_seconds``, from Analyse to the report's first words;
        ``next_study_seconds``, from a key press to the picture of the worklist's next image, which was fetched
        ahead; ``frames_per_second`` of the slowest of moving, zooming and windowing an image of 3,000 by 3,000
        pixels, drawn as the browser's machine suggests, and ``frames_per_second_cpu`` drawn without WebGL, each by
        kind under ``frames``; ``rows_scrolled_per_second`` of 10,000, with ``scroll_longest_frame_seconds``.

    Raises:
        NoBrowser: Chromium or Playwright is missing.
    """
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        raise NoBrowser("Chromium is missing (Debian: apt install chromium).")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise NoBrowser("Playwright is missing: pip install playwright") from None
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        system = Supervisor(free_port(), Path(folder) / "data")
        try:
            system.start()
            for _ in system.wait_until_ready():
                pass
            launch = ["--no-sandbox", "--disable-quic", "--disable-background-networking"]
            browser = playwright.chromium.launch(executable_path=chromium, args=launch)
            try:
                return _Bench(browser, system.url, sizes).figures()
            finally:
                browser.close()
        finally:
            system.stop()


class _Bench:
    def __init__(self, browser: Any, url: str, sizes: WorkstationBenchSizes) -> None:
        self._browser, self._url, self._sizes = browser, url, sizes

    def figures(self) -> dict[str, Any]:
        self._analyse_once()  # the first report of a worker takes longer than all others
        loads = [self._load() for _ in range(self._sizes.rounds)]
        texts = [self._first_text() for _ in range(self._sizes.rounds)]
        large = self._submit(_large_image())
        frames = {how: self._frames(large, f"?draw={how}") for how in ("cpu", "gpu")}
        frames["default"] = self._frames(large, "")
        return {
            "interactive_seconds": round(statistics.median(seconds for seconds, _ in loads), 3),
            "transferred_bytes": int(statistics.median(size for _, size in loads)),
            "first_text_seconds": round(statistics.median(texts), 3),
            "next_study_seconds": round(statistics.median(self._next_images()), 3),
            "frames_per_second": min(frames["default"].values()),
            "frames_per_second_cpu": min(frames["cpu"].values()),
            **self._scrolled(),
            "frames": frames,
            "rounds": self._sizes.rounds,
        }

    def _context(self) -> Any:
        # Playwright's own waiting needs eval, which the page's policy forbids.
        return self._browser.new_context(viewport={"width": 1440, "height": 900}, bypass_csp=True)

    def _page(self, path: str = "", *routes: tuple[str, Callable[[Any], None]]) -> Any:
        page = self._context().new_page()
        page.set_default_timeout(_TIMEOUT_MS)
        for pattern, answer in routes:
            page.route(pattern, answer)
        page.goto(f"{self._url}/{path}")
        return page

    def _load(self) -> tuple[float, int]:
        """Return how long a page takes with an empty cache, and how many bytes came."""
        page = self._context().new_page()
        session = page.context.new_cdp_session(page)
        session.send("Network.enable")
        sizes: list[float] = []
        session.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
        began = time.perf_counter()
        page.goto(self._url, wait_until="commit")
        page.wait_for_function(_SEEN, polling="raf")
        took = time.perf_counter() - began
        page.wait_for_load_state("networkidle")
        page.context.close()
        return took, int(sum(sizes))

    def _analyse_once(self) -> None:
        page = self._page()
        _analyse(page)
        page.get_by_test_id("report").wait_for()
        page.context.close()

    def _first_text(self) -> float:
        page = self._page()
        page.get_by_role("button", name="Demo image").click()
        page.get_by_test_id("window").wait_for()
        began = time.perf_counter()
        page.get_by_role("button", name="Analyse", exact=True).click()
        page.wait_for_function(
            "document.querySelector('[data-testid=live], [data-testid=findings]')", polling="raf"
        )
        took = time.perf_counter() - began
        page.context.close()
        return took

    def _next_images(self) -> list[float]:
        for _ in range(self._sizes.rounds + 1):
            self._submit(DEMO_IMAGE.read_bytes())
        page = self._page()
        page.wait_for_function(
            f"document.querySelectorAll('.job.succeeded').length > {min(self._sizes.rounds, 8)}"
        )
        page.locator(".job").first.click()
        page.get_by_test_id("window").wait_for()
        times = []
        for _ in range(self._sizes.rounds):
            page.wait_for_timeout(1000)  # a reader looks at it; the next image is fetched meanwhile
            times.append(page.evaluate(_NEXT))
        page.context.close()
        return times

    def _frames(self, job: str, query: str) -> dict[str, float]:
        page = self._page(f"{query}#/jobs/{job}")
        page.get_by_test_id("window").wait_for()
        page.wait_for_timeout(1000)
        rates = {
            kind: round(statistics.median(page.evaluate(_DRAG, [kind, self._sizes.seconds]) for _ in range(3)), 1)
            for kind in ("pan", "zoom", "window")
        }
        page.context.close()
        return rates

    def _scrolled(self) -> dict[str, float]:
        page = self._page("", ("**/v1/jobs?*", answer_with_ten_thousand))
        page.wait_for_function(f"document.querySelector('.count')?.textContent.includes('{_ROWS}')")
        found = page.evaluate(_SCROLL, self._sizes.seconds)
        page.context.close()
        return {
            "rows_scrolled_per_second": round(found["rows"]),
            "scroll_longest_frame_seconds": round(found["longest"], 3),
        }

    def _submit(self, image: bytes) -> str:
        headers = {"Prefer": "wait=60", "Content-Type": "image/png"}
        answer = httpx.post(f"{self._url}/v1/jobs", content=image, headers=headers, timeout=90)
        answer.raise_for_status()
        return str(answer.json()["id"])


_NEXT = """() => new Promise((done) => {
  const element = document.querySelector('[data-testid=viewport-main]');
  const began = performance.now();
  const shown = () => {
    if (!document.querySelector('.values')) return;
    element.removeEventListener('CORNERSTONE_IMAGE_RENDERED', shown);
    requestAnimationFrame(() => done((performance.now() - began) / 1000));
  };
  element.addEventListener('CORNERSTONE_STACK_NEW_IMAGE', () =>
    element.addEventListener('CORNERSTONE_IMAGE_RENDERED', shown), { once: true });
  dispatchEvent(new KeyboardEvent('keydown', { key: 'ArrowDown', bubbles: true }));
})"""


def _analyse(page: Any) -> None:
    page.get_by_role("button", name="Demo image").click()
    page.get_by_role("button", name="Analyse", exact=True).click()


def _large_image() -> bytes:
    """Return the demo image as a 16-bit PNG of 3,000 by 3,000 pixels."""
    enlarged = Image.open(DEMO_IMAGE).convert("L").resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
    stream = io.BytesIO()
    Image.fromarray(np.asarray(enlarged).astype(np.uint16) * 257).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def answer_with_ten_thousand(route: Any) -> None:
    """Answer a request of Playwright for a page of jobs, in place of a server that has 10,000."""
    query = dict(part.split("=", 1) for part in route.request.url.partition("?")[2].split("&"))
    start, limit = int(query.get("cursor", 0)), int(query["limit"])
    first = datetime(2026, 1, 1, tzinfo=UTC)
    items = [
        {
            "id": f"00000000-0000-4000-8000-{number:012d}",
            "state": "cancelled",
            "priority": "routine",
            "submitted_at": (first - timedelta(seconds=number)).isoformat(),
            "study": f"study-{number}",
        }
        for number in range(start, min(start + limit, _ROWS))
    ]
    following = str(start + limit) if start + limit < _ROWS else None
    route.fulfill(json={"items": items, "next_cursor": following, "unreadable": [], "complete": True})
