"""The path of a first visitor on the real default model: an insight at once, two blocks calibrated, a chat side by side."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Served, Visit, drawn, enter, serving
from tests.helpers import link_models

pytestmark = [pytest.mark.browser, pytest.mark.real_model, pytest.mark.timeout(900)]

LONG_MS = 300_000


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, real_models: Path) -> Iterator[Served]:
    """The page as `app.py` serves it, over a home that has nothing but the model."""
    folder = tmp_path_factory.mktemp("real-page")
    link_models(folder / "home", real_models)
    with serving(folder, Path("smollm2-135m")) as page:
        yield page


CLEAR_LABELS = """() => {
    const labels = [...document.querySelectorAll('#trade-off .textpoint text')], shown = labels.filter((one) => one.style.visibility !== 'hidden');
    const boxes = shown.map((one) => one.getBoundingClientRect());
    const lies = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
    return shown.length > 3 && shown.length < labels.length && !boxes.some((one, i) => boxes.slice(i + 1).some((other) => lies(one, other)));
}"""
"""On a narrow chart some labels are left away, and none of the others lies on another one."""


def test_a_first_visit(served: Served, visit: Visit) -> None:
    page = visit("")
    expect(page.locator("#tab-learn")).to_contain_text("rounding every weight to 3 bits raises perplexity")
    page.locator("#tab-explore-button").click()
    assert drawn(page, "explore-grid")["traces"][0]["size"] == [7, 30]

    page.locator("#tab-calibrate-button").click()
    expect(page.locator("#calibrate-estimate")).to_contain_text("bits per weight", timeout=LONG_MS)
    page.locator("#calibrate-blocks input").fill("2")
    page.locator("#calibrate-advanced button").first.click()
    for path, value in (("data-n_samples", "4"), ("stages-0-epochs", "2")):
        enter(page.locator(f"#set-{path} input"), value)
    expect(page.locator("#calibrate-command textarea")).to_have_value(re.compile(r"epochs=2.*data\.n_samples=4"))
    page.locator("#calibrate-start").click()
    expect(page.locator("#calibrate-results")).to_contain_text("Perplexity", timeout=LONG_MS)
    assert drawn(page, "calibrate-errors")["traces"][0]["size"] == [2]
    assert served.store.list()[0].status == "done"

    page.locator("#tab-compare-button").click()
    page.locator("#compare-prompt textarea").fill("What is the capital of France?")
    page.locator("#compare-send").click()
    for side in (0, 1):
        expect(page.locator(f"#compare-facts-{side}")).to_contain_text("first token after", timeout=LONG_MS)
    expect(page.locator("#compare-send")).to_be_visible(timeout=LONG_MS)
    expect(page.locator("#compare-chat-0")).to_contain_text("Paris")

    page.locator("#tab-runs-button").click()
    page.set_viewport_size({"width": 390, "height": 900})
    drawn(page, "trade-off")
    page.wait_for_function(CLEAR_LABELS)
