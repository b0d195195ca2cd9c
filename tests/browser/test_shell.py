"""The page around the tabs: first insight, tabs, the sidebar on a phone, and the Runs tab from a sweep to a deleted run."""

import json
import urllib.request
from collections import Counter

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Served, Visit, choose, drawn, reload

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(900)]

TABS = ("learn", "explore", "calibrate", "compare", "runs")


CONTROLS = {
    "learn": ".salq-tour .start",
    "explore": "#explore-compute",
    "calibrate": "#calibrate-start",
    "compare": "#compare-send",
    "runs": "#runs-open",
}
"""Something of each tab that a finger must reach."""


def test_the_first_screen_tells_something_and_leads_on_and_every_tab_fits(visit: Visit) -> None:
    page = visit(width=1440)
    expect(page.locator("#learn-insight .salq-lede")).to_be_visible()
    expect(page.locator("#learn-what")).to_contain_text("scale")
    expect(page.locator("#model")).to_be_in_viewport()
    expect(page.locator("#device-note")).to_contain_text("Auto:")
    expect(page.locator("#text-note")).to_contain_text("In use: the bundled texts")
    page.locator("#learn-explore").click()
    expect(page.locator("#tab-explore-button")).to_have_attribute("aria-selected", "true")
    expect(page.locator("#explore-sizes")).to_contain_text("Whole model")
    for tab in TABS:
        page.locator(f"#tab-{tab}-button").click()
        expect(page.locator(f"#tab-{tab}")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 1440, tab


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_phone_shows_the_tabs_and_opens_the_sidebar_by_its_button(visit: Visit, theme: str) -> None:
    page = visit(width=390, theme=theme)
    expect(page.locator("#model")).not_to_be_in_viewport()
    for tab in TABS:
        page.locator(f"#tab-{tab}-button").click()
        expect(page.locator(f"#tab-{tab}")).to_be_visible()
        page.locator(CONTROLS[tab]).first.click(trial=True)  # visible, and nothing lies over it
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, tab
    page.locator(".toggle-button").click()
    expect(page.locator("#model")).to_be_in_viewport()
    page.locator("#bits").get_by_text("4", exact=True).click()
    page.locator(".toggle-button").click()
    expect(page.locator("#model")).not_to_be_in_viewport()
    page.locator("#tab-learn-button").click()
    expect(page.locator("#learn-insight")).to_be_visible()
    page.locator(".toggle-button").click()
    expect(page.locator("#bits input:checked")).to_have_value("4")


def test_a_sweep_fills_the_chart_and_its_runs_can_be_opened_and_deleted(served: Served, visit: Visit) -> None:
    page = visit("?tab=runs")
    expect(page.locator("#runs-reading")).to_contain_text("No finished run")
    page.locator("#runs-open").click()
    expect(page.get_by_text("No run is chosen")).to_be_visible()
    page.locator("#sweep-bits").get_by_text("8", exact=True).click()
    page.locator("#sweep-bits").get_by_text("4", exact=True).click()
    page.locator("#sweep-start").click()
    expect(page.locator("#sweep-told")).to_contain_text("2 runs started")
    expect(page.locator("#runs-reading")).to_contain_text("perplexity", timeout=200_000)
    page.wait_for_function("document.querySelectorAll('#trade-off .points path').length >= 2", timeout=200_000)
    assert {trace["name"] for trace in drawn(page, "trade-off")["traces"]} == {"frontier", "rtn"}
    expect(page.locator("#runs-table")).to_contain_text("done")
    title = served.store.list()[0].title
    choose(page, "runs-picker", title)
    expect(page.locator("#runs-told")).to_contain_text("done. It is not pinned.")
    page.locator("#runs-pin").click()
    expect(page.locator("#runs-pin")).to_have_text("Unpin")
    expect(page.locator("#runs-told")).to_contain_text("done. It is pinned.")
    expect(page.locator("#runs-table")).to_contain_text("done, pinned")
    assert [info.pinned for info in served.store.list()] == [True, False]
    page.locator("#runs-pin").click()
    expect(page.locator("#runs-pin")).to_have_text("Pin")
    assert not served.store.list()[0].pinned
    page.locator("#runs-open").click()
    expect(page.locator("#tab-calibrate-button")).to_have_attribute("aria-selected", "true")
    expect(page.locator("#status-chip")).to_contain_text("done, perplexity")
    reload(page)
    expect(page.locator("#status-chip")).to_contain_text("done, perplexity")  # the browser remembers which run it watched
    page.locator("#tab-runs-button").click()
    choose(page, "runs-picker", title)
    page.locator("#runs-delete").click()
    page.locator("#runs-delete-sure").click()
    expect(page.locator("#runs-confirm")).to_be_hidden()
    expect(page.locator("#runs-picker input")).to_have_value("")
    assert len(served.store.list()) == 1


def test_no_choice_is_lost_while_an_answer_is_on_its_way(served: Served) -> None:
    with urllib.request.urlopen(f"{served.url}config", timeout=20) as answer:
        config = json.load(answer)
    kinds = {one["id"]: one["type"] for one in config["components"]}
    found = Counter[str]()
    for listener in config["dependencies"]:
        for component, event in listener["targets"]:
            wanted = {"input": "always_last", "change": "always_last", "release": "always_last"}.get(event)
            if event in {"cell", "spot", "point", "picked", "wanted"} or (event, kinds.get(component)) == ("select", "dataframe"):
                wanted = "multiple"  # its handler reads what the event carries
            if wanted is not None and listener["backend_fn"]:
                assert listener["trigger_mode"] == wanted, (kinds[component], event, listener["id"])
                found[wanted] += 1
    assert found["always_last"] > 20
    assert found["multiple"] == 6
