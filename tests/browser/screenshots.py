"""Take the pictures of README: every tab of the page that is being served, in light and dark.

`make run` in one terminal, `.venv/bin/python tests/browser/screenshots.py` in another; needs a Chromium and the test tools (`make setup-dev`).
"""

import argparse
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.plugins.no_skips import find_browser  # noqa: E402 - the checkout is put on the path first

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
FOLDER = ROOT / "assets" / "screenshots"
SHOTS = (("learn", "light"), ("explore", "light"), ("calibrate", "dark"), ("compare", "light"), ("runs", "dark"))


def main() -> None:
    """Write assets/screenshots/<tab>.png."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:7860/")
    url = parser.parse_args().url
    FOLDER.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=FLAGS)
        for tab, theme in SHOTS:
            page = browser.new_page(viewport={"width": 1280, "height": 860}, color_scheme=theme)  # type: ignore[arg-type]
            page.goto(f"{url}?tab={tab}&__theme={theme}")
            page.locator("#device-note").get_by_text("threads").wait_for(timeout=60_000)
            page.wait_for_timeout(6_000)  # charts draw, estimates arrive; a picture has nothing better to wait for
            page.screenshot(path=FOLDER / f"{tab}.png")
            page.close()
        browser.close()


if __name__ == "__main__":
    main()
