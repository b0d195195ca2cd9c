"""Calibrate in a browser: a whole run, reload in the middle of one, cancel and resume, the command, Advanced, and bad input."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from salq import recipes
from tests.browser.conftest import Served, Visit, drawn, enter, reload

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(900)]

LONG_MS = 180_000


@pytest.fixture(autouse=True)
def nothing_left_running(served: Served) -> Iterator[None]:
    """A run that a test leaves behind would be found by the next one's page."""
    yield
    for info in served.store.list():
        if info.is_active:
            served.store.cancel(info.id)


def ready(page: Page) -> None:
    """The form is filled in and the first estimate is there."""
    expect(page.locator("#calibrate-recipe input")).to_have_count(len(recipes.names()))
    expect(page.locator("#calibrate-estimate")).to_contain_text("bits per weight", timeout=LONG_MS)


def choose(page: Page, recipe: str) -> None:
    page.locator("#calibrate-recipe").get_by_text(recipe).click()


def advanced(page: Page, **fields: str) -> None:
    """Open Advanced and fill in fields by path, with __ for a full stop."""
    if not page.locator("#calibrate-reset").is_visible():
        page.locator("#calibrate-advanced button").first.click()
    recipe, preset = (page.locator(f"#calibrate-{one} input:checked").input_value() for one in ("recipe", "preset"))
    expect(page.locator("#calibrate-settings-of")).to_contain_text(f"Settings of {recipe}, preset {preset}.")
    for name, value in fields.items():
        path = name.replace("__", "-")
        enter(page.locator(f"#set-{path} input"), value)
        expect(page.locator("#calibrate-command textarea")).to_have_value(re.compile(re.escape(f"{name.replace('__', '.')}={value}")))


def small(page: Page, epochs: str) -> None:
    """Few tokens, so that a tiny model calibrates in seconds; `epochs` decides how long it takes."""
    advanced(page, data__n_samples="4", data__seq_len="32", stages__0__epochs=epochs, stages__0__batch_size="1")


def test_a_whole_calibration(served: Served, visit: Visit) -> None:
    page = visit("?tab=calibrate")
    ready(page)
    expect(page.locator("#calibrate-status")).to_contain_text("No calibration is running")
    choose(page, "SAPR (saliency-regularized ApiQ)")
    expect(page.locator("#calibrate-about")).to_contain_text("2504.13932")
    small(page, "3")
    page.locator("#calibrate-title").get_by_role("textbox").fill("from the <b>page</b>")
    page.locator("#calibrate-start").click()
    expect(page.locator("#calibrate-results")).to_contain_text("Perplexity", timeout=LONG_MS)
    expect(page.locator("#calibrate-status")).to_contain_text("from the <b>page</b>: finished")
    expect(page.locator("#calibrate-results")).to_contain_text("8 windows of 512 tokens")
    expect(page.locator("#calibrate-results")).to_contain_text("nats per token")
    assert [trace["name"] for trace in drawn(page, "calibrate-loss")["traces"]] == ["output", "weight_saliency"]
    errors = drawn(page, "calibrate-errors")
    assert errors["traces"][0]["size"] == [3]
    assert errors["y"] == "‖y−ŷ‖ / ‖y‖"
    expect(page.locator("#calibrate-log")).to_contain_text("block 2 done")
    page.locator("#calibrate-table-fold button").first.click()
    expect(page.locator("#calibrate-table")).to_contain_text("mean weight error")
    page.locator("#calibrate-block input").click()
    page.get_by_role("option", name="0", exact=True).click()
    expect(page.locator("#calibrate-loss")).to_contain_text("Block 0: loss terms")
    expect(page.locator("#calibrate-cancel")).to_be_hidden()
    expect(page.locator("#status-chip")).to_contain_text("done, perplexity")
    assert served.store.list()[0].status == "done"


def test_a_reload_and_a_second_visitor_find_the_run_and_it_can_be_cancelled_and_resumed(served: Served, visit: Visit) -> None:
    page = visit("?tab=calibrate")
    ready(page)
    small(page, "900")
    page.locator("#calibrate-start").click()
    expect(page.locator("#calibrate-status progress")).to_be_visible(timeout=LONG_MS)
    expect(page.locator("#calibrate-loss")).to_contain_text("Block 0", timeout=LONG_MS)
    reload(page)
    expect(page.locator("#calibrate-status progress")).to_be_visible(timeout=LONG_MS)
    expect(page.locator("#calibrate-loss")).to_contain_text("loss terms", timeout=LONG_MS)
    other = visit("?tab=calibrate")
    expect(other.locator("#calibrate-status progress")).to_be_visible()
    page.locator("#calibrate-cancel").click()
    expect(page.locator("#calibrate-status")).to_contain_text("resume goes on from there", timeout=LONG_MS)
    expect(other.locator("#calibrate-resume")).to_be_visible()
    page.locator("#calibrate-resume").click()
    expect(page.locator("#calibrate-status progress")).to_be_visible(timeout=LONG_MS)
    expect(page.locator("#calibrate-log")).to_contain_text("resumed")
    page.locator("#calibrate-cancel").click()
    expect(page.locator("#calibrate-resume")).to_be_visible(timeout=LONG_MS)
    assert served.store.list()[0].status == "cancelled"


def test_on_a_slow_line_the_fields_of_the_choice_before_change_nothing(served: Served, visit: Visit) -> None:
    page = visit("?tab=calibrate")
    ready(page)
    line = page.context.new_cdp_session(page)
    line.send("Network.emulateNetworkConditions", {"offline": False, "latency": 700, "downloadThroughput": -1, "uploadThroughput": -1})
    choose(page, "SAPR (saliency-regularized ApiQ)")
    page.wait_for_timeout(2_000)  # the server has most likely drawn the new fields, and the fold that opens now does not know them yet
    page.locator("#calibrate-advanced button").first.click()
    page.locator("#set-adapter-rank input").fill("4")
    expect(page.locator("#calibrate-settings-of")).to_contain_text("Settings of sapr, preset quick")
    advanced(page, adapter__rank="2")


def test_the_command_and_the_estimate_follow_the_form(served: Served, visit: Visit) -> None:
    page = visit("?tab=calibrate")
    ready(page)
    command = page.locator("#calibrate-command textarea")
    expect(command).to_have_value(re.compile(r"--recipe apiq --bits 3 --group-size 64 --preset quick$"))
    page.locator("#bits").get_by_text("2", exact=True).click()
    expect(command).to_have_value(re.compile(r"--bits 2 "))
    page.locator("#calibrate-preset").get_by_text("base", exact=True).click()
    page.locator("#calibrate-blocks input").fill("1")
    expect(command).to_have_value(re.compile(r"--preset base --blocks 1$"))
    advanced(page, adapter__rank="4")
    page.locator("#calibrate-reset").click()
    expect(command).not_to_have_value(re.compile(r"--set"))
    expect(page.locator("#set-adapter-rank input")).to_have_value("16")
    choose(page, "Round to nearest")
    expect(page.locator("#set-adapter-rank")).to_have_count(0)
    expect(command).to_have_value(re.compile(r"--recipe rtn"))
    expect(page.locator("#calibrate-estimate")).to_contain_text("2.28 bits per weight")


def test_bad_input_is_one_sentence_and_the_page_stays_usable(served: Served, visit: Visit) -> None:
    page = visit("?tab=calibrate")
    ready(page)
    before = served.store.ids()
    estimate, toast = page.locator("#calibrate-estimate"), page.locator(".toast-body")
    page.locator("#calibrate-blocks input").fill("2.5")
    expect(estimate).to_contain_text("must be a whole number")
    page.locator("#calibrate-start").click()
    expect(toast).to_contain_text("must be a whole number")
    expect(toast).not_to_contain_text("Traceback")
    page.locator(".toast-close").click()
    page.locator("#calibrate-blocks input").fill("0")
    expect(estimate).to_contain_text("bits per weight")
    advanced(page, adapter__rank="1000000")
    expect(estimate).to_contain_text("adapter.rank")
    page.locator("#set-adapter-rank input").fill("8")
    expect(estimate).to_contain_text("bits per weight")
    page.locator("#group-size input").click()
    page.get_by_role("option", name="128", exact=True).click()
    expect(estimate).to_contain_text("is not a multiple of group size 128")
    page.locator("#calibrate-start").click()
    expect(toast).to_contain_text("is not a multiple of group size 128")
    assert served.store.ids() == before


@pytest.mark.parametrize(("theme", "width"), [("light", 1440), ("dark", 390)])
def test_nothing_is_cut_off_and_every_control_has_a_label_and_help(served: Served, visit: Visit, theme: str, width: int) -> None:
    page = visit("?tab=calibrate", theme=theme, width=width)
    ready(page)
    page.locator("#calibrate-advanced button").first.click()
    expect(page.locator("#set-adapter-rank")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    expect(page.locator("#set-mixed")).to_contain_text("*.down_proj:w4g64")  # Markdown would take a second asterisk for emphasis
    names = ["calibrate-preset", "calibrate-blocks", "calibrate-seed", "calibrate-title"]
    names += page.evaluate("[...document.querySelectorAll('[id^=set-]')].map((one) => one.id)")
    assert len(names) > 12
    texts = page.evaluate("(names) => names.map((name) => document.getElementById(name).innerText)", names)
    for name, text in zip(names, texts, strict=True):
        assert len(text.split()) > 3, f"{name}: {text!r}"
