"""A visitor with a real Chromium who opens one matrix after the other in Explore; used by benchmarks/visitors.py.

python -m tests.browser.explorer http://127.0.0.1:7860/ 60        prints {"seconds": [...], "console_errors": [...]}
"""

import json
import sys
import time

from playwright.sync_api import Page, sync_playwright

from tests.plugins.no_skips import find_browser

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
PATIENCE_MS = 60_000
LOOK_MS = 3_000
CHANGED = "before => document.querySelector('#matrix-reading').innerText !== before"


def select(page: Page, block: int) -> float:
    """Choose a block in the picker; seconds until the page says something else of the matrix."""
    before = page.locator("#matrix-reading").inner_text()
    box = page.locator("#matrix-block input")
    box.click()
    page.get_by_role("option", name=str(block), exact=True).click()
    started = time.perf_counter()
    page.wait_for_function(CHANGED, arg=before, timeout=PATIENCE_MS)
    return time.perf_counter() - started


def main(url: str, seconds: float) -> int:
    """Explore for so long."""
    found: list[float] = []
    problems: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.goto(f"{url}?tab=explore", timeout=PATIENCE_MS)
        page.locator("#matrix-block input").wait_for(timeout=PATIENCE_MS)
        end, block = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            block = (block + 1) % 4
            page.wait_for_timeout(LOOK_MS)
            if page.locator("#matrix-block input").input_value() == str(block):
                continue
            found.append(select(page, block))
        browser.close()
    sys.stdout.write(json.dumps({"seconds": found, "console_errors": problems}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], float(sys.argv[2])))
