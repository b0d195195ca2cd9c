"""How long Explore takes on this machine: first insight, first chart, redraw after a selection, and what each view sends.

`make run` in one terminal, `.venv/bin/python tests/browser/explore_timing.py` in another as soon as the page is up, so that this is its first
visitor, on a machine that does nothing else (about 2 minutes; the model must be on the machine, explored once, so that its maps lie on disk).
Writes benchmarks/results/explore_timing.json.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from salq.core.files import write_json  # noqa: E402 - the checkout is put on the path first
from tests.browser.conftest import FLAGS  # noqa: E402
from tests.plugins.no_skips import find_browser  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "explore_timing.json"
SELECTIONS = 24
PATIENCE_MS = 60_000
CHANGED = "([id, before]) => (document.querySelector(`#${id}`)?.innerText || '') !== before"


def first_paints(page: Page, url: str) -> dict[str, float]:
    """Seconds from navigation to the first chart of Explore, as the first visitor, and then to the first insight (HTML)."""
    started = time.perf_counter()
    page.goto(f"{url}?tab=explore")
    page.locator("#explore-grid .js-plotly-plot .main-svg").first.wait_for(timeout=PATIENCE_MS)
    chart = time.perf_counter() - started
    started = time.perf_counter()
    page.goto(url)
    page.locator("#learn-insight .salq-lede").wait_for(timeout=PATIENCE_MS)
    insight = time.perf_counter() - started
    page.goto(f"{url}?tab=explore")
    return {"first_insight_seconds": round(insight, 2), "first_chart_seconds": round(chart, 2)}


def redraws(page: Page, kind: str, sent: list[int]) -> dict[str, Any]:
    """Milliseconds from a key on the grid (`matrix`) or on the maps (`group`) to the changed numbers, over SELECTIONS selections."""
    frame, told = ("explore-grid", "matrix-reading") if kind == "matrix" else ("matrix-maps", "group-facts")
    times, sizes = [], []
    page.locator(f"#{frame}").focus()
    for index in range(SELECTIONS + 2):
        before = page.locator(f"#{told}").inner_text()
        sent.clear()
        page.keyboard.press("ArrowRight" if (index // 8) % 2 == 0 else "ArrowLeft")
        started = time.perf_counter()
        page.wait_for_function(CHANGED, arg=[told, before], timeout=PATIENCE_MS)
        times.append((time.perf_counter() - started) * 1000)  # with the wait of a key for the next one
        page.wait_for_timeout(700)
        sizes.append(sum(sent))
    times = sorted(times[2:])
    return {
        f"{kind}_median_ms": round(statistics.median(times)), f"{kind}_p95_ms": round(times[int(len(times) * 0.95) - 1]),
        f"{kind}_payload_kb": round(max(sizes) / 1000),
    }  # fmt: skip


def main() -> int:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:7860/")
    url = parser.parse_args().url
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=FLAGS)
        page = browser.new_page(viewport={"width": 1440, "height": 1000})
        sent: list[int] = []
        session = page.context.new_cdp_session(page)
        session.send("Network.enable")
        session.on("Network.dataReceived", lambda event: sent.append(int(event["dataLength"])))
        found: dict[str, Any] = {"command": "python tests/browser/explore_timing.py", **first_paints(page, url)}
        page.locator("#matrix-maps .js-plotly-plot .main-svg").first.wait_for(timeout=PATIENCE_MS)
        page.wait_for_timeout(3_000)
        for kind in ("matrix", "group"):
            found |= redraws(page, kind, sent)
        browser.close()
    write_json(RESULT, found)
    sys.stdout.write(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
