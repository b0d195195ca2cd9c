"""The newcomer's walk: a real Chromium goes through the served page on the real default model, as a person would, and every wait is measured.

    make run                                        in one terminal of a fresh clone
    .venv/bin/python tests/browser/newcomer.py      in another; about 18 minutes; needs the test tools (`make setup-dev`) and a Chromium

First screen, Explore, `quick` ApiQ, `quick` SAPR, two answers side by side, Runs. An error in the browser's console fails the walk. Writes
benchmarks/results/newcomer.json and a picture of every station under test-results/.
"""

import argparse
import json
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from playwright.sync_api import Page, expect, sync_playwright  # noqa: E402 - the checkout is put on the path first

from salq.core.files import write_json  # noqa: E402
from tests.plugins.no_skips import find_browser  # noqa: E402

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
PICTURES = ROOT / "test-results"
RESULT = ROOT / "benchmarks" / "results" / "newcomer.json"
RUN_MS = 20 * 60_000
RECIPES = (("ApiQ (block-wise)", "newcomer ApiQ"), ("SAPR (saliency-regularized ApiQ)", "newcomer SAPR"))
Found = dict[str, Any]


@contextmanager
def timed(found: Found, name: str) -> Iterator[None]:
    """Seconds of a station."""
    started = time.perf_counter()
    yield
    found[name] = round(time.perf_counter() - started, 1)
    sys.stdout.write(f"{name}: {found[name]} s\n")
    sys.stdout.flush()


def first_screen(page: Page, url: str, found: Found) -> None:
    """Learn: an insight, from kept results, before anything was computed."""
    with timed(found, "first_insight_seconds"):
        page.goto(url)
        expect(page.locator("#tab-learn")).to_contain_text("perplexity", timeout=60_000)
    picture(page, "1-learn")


def explore(page: Page, found: Found) -> None:
    """The grid, then one matrix of it."""
    page.locator("#tab-explore-button").click()
    with timed(found, "grid_seconds"):
        page.locator("#explore-grid .js-plotly-plot .main-svg").first.wait_for(timeout=60_000)
    picture(page, "2-explore")


def calibrate(page: Page, recipe: str, title: str, found: Found) -> None:
    """A `quick` run with the page's own defaults, from pressing Start to its final numbers."""
    page.locator("#tab-calibrate-button").click()
    page.locator("#calibrate-recipe").get_by_text(recipe).click()
    page.locator("#calibrate-title").get_by_role("textbox").fill(title)
    page.locator("#calibrate-title").get_by_role("textbox").press("Tab")
    with timed(found, f"{title} seconds"):
        page.locator("#calibrate-start").click()
        expect(page.locator("#calibrate-status")).to_contain_text(f"{title}: finished", timeout=RUN_MS)
        expect(page.locator("#calibrate-results")).to_contain_text("Perplexity")
    found[title] = " ".join(page.locator("#calibrate-results").inner_text().split())
    picture(page, f"3-{title.replace(' ', '-').lower()}")


def compare(page: Page, found: Found) -> None:
    """The original and the last run answer the same prompt."""
    page.locator("#tab-compare-button").click()
    page.locator("#compare-side-1 input").click()
    page.get_by_role("option", name=re.compile(RECIPES[-1][1])).click()
    page.locator("#compare-prompt textarea").fill("What is the capital of France, and what is it known for?")
    with timed(found, "answers_seconds"):
        page.locator("#compare-send").click()
        for side in (0, 1):
            expect(page.locator(f"#compare-facts-{side}")).to_contain_text("tokens/s", timeout=RUN_MS)
        expect(page.locator("#compare-send")).to_be_visible(timeout=RUN_MS)
    found["answers"] = [" ".join(page.locator(f"#compare-facts-{side}").inner_text().split()) for side in (0, 1)]
    found["said"] = [page.locator(f"#compare-chat-{side}").inner_text() for side in (0, 1)]
    picture(page, "4-compare")


def picture(page: Page, name: str) -> None:
    """What the page looks like now."""
    PICTURES.mkdir(exist_ok=True)
    page.wait_for_timeout(2_000)
    page.screenshot(path=PICTURES / f"newcomer-{name}.png")


def main() -> int:
    """Walk."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:7860/")
    url = parser.parse_args().url
    found: Found = {"command": "python tests/browser/newcomer.py"}
    problems: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=FLAGS)
        page = browser.new_page(viewport={"width": 1440, "height": 1100})
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        first_screen(page, url, found)
        explore(page, found)
        for recipe, title in RECIPES:
            calibrate(page, recipe, title, found)
        compare(page, found)
        page.locator("#tab-runs-button").click()
        expect(page.locator("#tab-runs")).to_contain_text(RECIPES[0][1], timeout=60_000)
        picture(page, "5-runs")
        browser.close()
    found["console_errors"] = problems
    write_json(RESULT, found)
    sys.stdout.write(json.dumps(found, indent=1) + "\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
