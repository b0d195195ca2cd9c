"""axe-core over every tab, in light and dark: nothing but what Gradio itself ships, and that list is here. The first paint shows insights."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.browser.conftest import Served, Visit, drawn, serving

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(900)]

TABS = ("learn", "explore", "calibrate", "compare", "runs")
GRADIO = {
    "image-redundant-alt": "the footer's Settings button names its icon as its text does",
    "scrollable-region-focusable": "the viewport of the table component scrolls and takes no focus",
}
"""axe's rules that Gradio's own parts break, with the part; anything else, and any of these inside our parts, is ours to mend."""

OURS = ".salq-lessons, .salq-lines, .salq-bars, .salq-facts, .salq-reading, .salq-note, .salq-csv, .salq-chart, .salq-lede, .salq-prose"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The page over the default model's kept results, without the model."""
    with serving(tmp_path_factory.mktemp("kept-page"), Path("smollm2-135m")) as page:
        yield page


def findings(page: Page) -> list[tuple[str, str, str]]:
    """(rule, where, what) of everything that axe finds, but for what Gradio ships."""
    found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    told: list[tuple[str, str, str]] = []
    for one in found:
        for node in one["nodes"]:
            target = " ".join(map(str, node["target"]))
            if one["id"] not in GRADIO or is_ours(page, node["target"]):
                told.append((one["id"], target, node.get("failureSummary", "")[:160]))
    return told


def is_ours(page: Page, target: list[Any]) -> bool:
    """Whether the element lies in a part of the page that salq draws itself."""
    return bool(
        page.evaluate(
            """([selector, ours]) => {
                try { const one = document.querySelector(selector); return !!one && !!one.closest(ours); } catch { return false; }
            }""",
            [str(target[0]), OURS],
        )
    )


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_of_ours(visit: Visit, theme: str) -> None:
    page = visit(theme=theme)
    told = {}
    for tab in TABS:
        page.locator(f"#tab-{tab}-button").click()
        expect(page.locator(f"#tab-{tab}")).to_be_visible()
        if tab == "explore":
            drawn(page, "explore-grid")
            drawn(page, "matrix-maps")
        page.wait_for_timeout(600)  # fades end; axe would measure half-transparent text
        if one := findings(page):
            told[tab] = one
    assert not told, "\n".join(f"{tab}: {rule} at {where}: {what}" for tab, all_of in told.items() for rule, where, what in all_of)


def test_every_view_says_something_before_the_first_click(visit: Visit) -> None:
    page = visit("?tab=explore")
    assert drawn(page, "explore-grid")["traces"][0]["size"] == [7, 30]
    assert len(drawn(page, "matrix-maps")["traces"]) == 3
    expect(page.locator("#group-line-reading")).to_contain_text("weights share")
    expect(page.locator("#group-facts")).to_contain_text("row 100, group 10")
    for tabs, name, plot in (
        ("explore-model-tabs", "Through the blocks", "explore-depth"), ("explore-model-tabs", "Size", "explore-size"),
        ("explore-model-tabs", "Bits for a budget", "explore-budget"), ("matrix-tabs", "All its weights", "matrix-histogram"),
        ("matrix-tabs", "What an adapter can repair", "matrix-spectrum"), ("group-tabs", "Real weights around it", "group-tile"),
    ):  # fmt: skip
        page.locator(f"#{tabs}").get_by_role("tab", name=name).first.click()
        expect(page.locator(f"#{plot} .main-svg").first).to_be_visible()
    for reading in ("explore-reading", "explore-depth-reading", "explore-size-reading", "explore-budget-reading", "matrix-reading"):
        assert page.locator(f"#{reading} [aria-live=polite]").count() >= 1, reading
    expect(page.locator("#explore-reading")).not_to_be_empty()
    page.locator("#tab-calibrate-button").click()
    names = {trace["name"] for trace in drawn(page, "calibrate-kept-chart")["traces"]}
    assert {"rounding, w3g64, quantized input", "apiq w3g64, quantized input"} <= names
    page.locator("#tab-compare-button").click()
    expect(page.locator("#token-kept")).to_contain_text("A kept example of this repository: the original's answer to “What is the capital")
    expect(page.locator("#token-kept summary")).to_have_text("The command that made this")
    assert page.locator("#token-text [role=option]").count() > 20
    expect(page.locator("#token-text .details")).to_contain_text("Token ")
    expect(page.locator("#token-text .fork")).to_contain_text("Where the two answers part")
    assert (drawn(page, "where-blocks")["traces"][0]["size"], drawn(page, "where-kinds")["traces"][0]["size"]) == ([30], [7])
    expect(page.locator("#where-ask")).to_be_hidden()  # only a text that was scored here can be broken down here


def test_two_kept_calibrations_are_compared(visit: Visit) -> None:
    page = visit("?tab=explore&run=kept:apiq w3g64&minus=rounding&value=output_error")
    expect(page.locator("#explore-reading")).to_contain_text("A (apiq w3g64 (kept)) has the smaller relative output error")
    low, high = page.evaluate(
        "(() => { const one = document.querySelector('#explore-grid .js-plotly-plot')._fullData[0]; return [one.zmin, one.zmax]; })()"
    )
    assert low == -high < 0
