"""The token view in a browser: ask again and edit, presets, tokens by mouse and keyboard, the fork, where it breaks, text that is never markup."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Served, Visit, drawn, enter

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(900)]

LONG_MS = 180_000
TOKENS = "#token-text [role=option]"
CONTRAST = """(all) => {
    const linear = (v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    const light = (colour) => colour.match(/[0-9.]+/g).slice(0, 3).reduce((sum, v, i) => sum + linear(v / 255) * [0.2126, 0.7152, 0.0722][i], 0.05);
    return Math.min(...all.map((one) => {
        const style = getComputedStyle(one), pair = [light(style.color), light(style.backgroundColor)];
        return Math.max(...pair) / Math.min(...pair);
    }));
}"""
"""The least contrast of these elements."""


def ask(page: Page, prompt: str) -> None:
    page.locator("#compare-prompt textarea").fill(prompt)
    page.locator("#compare-send").click()
    answered(page)


def answered(page: Page) -> None:
    """Nobody is writing: the last question can be asked again."""
    expect(page.locator("#compare-again")).to_be_visible(timeout=LONG_MS)
    expect(page.locator("#compare-stop")).to_be_hidden()


def setting(page: Page, name: str, value: str) -> None:
    """A number under "Sampling and system prompt", opened when it is closed."""
    field = page.locator(f"#compare-{name} input[type=number]")
    if not field.is_visible():
        page.locator("#compare-settings button").first.click()
    enter(field, value)


def score_own(page: Page, text: str) -> None:
    page.locator("#token-source").get_by_text("My own text").click()
    page.locator("#token-own textarea").fill(text)
    page.locator("#token-score").click()


def chosen(page: Page) -> int:
    """Index of the chosen token."""
    return int((page.locator("#token-text [role=listbox]").get_attribute("aria-activedescendant") or "-1").rsplit("-", 1)[-1])


def test_ask_again_edit_and_presets(served: Served, visit: Visit) -> None:
    page = visit("?tab=compare")
    setting(page, "length", "8")
    expect(page.locator("#compare-again")).to_be_hidden()  # nothing was asked yet
    ask(page, "One")
    page.locator("#preset-copying").click()
    expect(page.locator("#compare-look")).to_contain_text("look for the first word that is dropped")
    expect(page.locator("#compare-chat-0 .user").nth(1)).to_contain_text("Repeat exactly")
    answered(page)
    expect(page.locator("#compare-facts-0")).to_contain_text("its weights are not quantized")
    expect(page.locator("#compare-facts-1")).to_contain_text("the fastest executor here that can run these codes")
    setting(page, "temperature", "0.8")
    page.locator("#compare-again").click()
    expect(page.locator("#compare-seed input")).to_have_value("1")  # another draw, and which one is said
    answered(page)
    expect(page.locator("#compare-chat-1 .user")).to_have_count(2)  # in place of the last answer, not after it
    page.locator("#compare-edit").click()
    expect(page.locator("#compare-prompt textarea")).to_have_value(re.compile("Repeat exactly"))
    expect(page.locator("#compare-prompt textarea")).to_be_focused()
    expect(page.locator("#compare-chat-0 .user")).to_have_count(1)
    ask(page, "Two")
    expect(page.locator("#compare-chat-0 .user")).to_have_text(["You: One", "You: Two"])


def test_the_originals_answer_token_by_token_and_where_it_breaks(served: Served, visit: Visit) -> None:
    page = visit("?tab=compare")
    page.locator("#token-score").click()
    expect(page.locator("#token-status")).to_contain_text("There is no answer of the original yet")
    setting(page, "length", "24")
    ask(page, "Hello there")
    page.locator("#token-score").click()
    expect(page.locator(TOKENS)).to_have_count(24, timeout=LONG_MS)
    expect(page.locator("#token-status")).to_contain_text("Over 24 tokens, KL(original || quantized) is")
    expect(page.locator("#token-status")).to_contain_text("torch reference")
    worst = chosen(page)
    page.locator(TOKENS).nth(4).click()
    expect(page.locator("#token-text .details")).to_contain_text("Token 5 of 24")
    expect(page.locator("#token-text .details caption")).to_contain_text(["Original: ", "Quantized: "])
    expect(page.locator("#token-text .details table").first.locator("tr").nth(4)).to_be_visible()
    page.locator("#token-text [role=listbox]").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#token-text .details")).to_contain_text("Token 6 of 24")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowLeft")  # already there
    assert chosen(page) == 0
    page.keyboard.press("End")
    assert chosen(page) == 23
    page.keyboard.press("PageUp")  # to the last one whose likeliest token differs
    flipped = page.locator(TOKENS).evaluate_all("(all) => all.map((one) => one.classList.contains('flipped'))")
    assert flipped[chosen(page)] or not any(flipped[:23])
    label = page.locator(TOKENS).nth(chosen(page)).get_attribute("aria-label") or ""
    assert re.match(r"Token \d+ of 24, “.+”, KL [\d.e−]+ nats, .+ of the original, .+ of the quantized model", label, re.DOTALL)
    expect(page.locator(f"{TOKENS}[aria-selected=true]")).to_have_count(1)
    expect(page.locator("#token-text .fork")).to_contain_text("nats/token under the original")
    page.locator("#token-fold > button").click()
    expect(page.locator("#token-table")).to_contain_text("change of log p")
    page.locator(TOKENS).nth(worst).click()
    expect(page.locator("#where-ask")).to_have_text(f"Where does token {worst + 1} break?")  # the server knows the choice
    page.locator("#where-ask").click()
    expect(page.locator("#where-status")).to_contain_text(f"Token {worst + 1}: Of this token's", timeout=LONG_MS)
    expect(page.locator("#where-status")).to_contain_text("effects do not add up")
    bars = drawn(page, "where-blocks")
    assert bars["traces"][0]["size"] == [3]
    assert drawn(page, "where-kinds")["traces"][0]["size"] == [7]
    page.locator("#where-fold > button").click()
    expect(page.locator("#where-table")).to_contain_text("mlp.down_proj, all blocks")


def test_a_text_of_ones_own_is_text_and_belongs_to_its_visitor(served: Served, visit: Visit) -> None:
    page, other = visit("?tab=compare", theme="dark"), visit("?tab=compare", width=390)
    score_own(page, "  ")
    expect(page.locator("#token-status")).to_contain_text("There is no text to score")
    page.locator("#token-side").get_by_text("A", exact=True).click()
    score_own(page, "some text")
    expect(page.locator("#token-status")).to_contain_text("Side A is the original itself")
    page.locator("#token-side").get_by_text("B", exact=True).click()
    evil = "<img src=x onerror=\"document.title='owned'\"><b>x</b> <|im_end|> ${1}\u202e\tend"
    score_own(page, evil + " A grey fox ran over a hill and slept in the sun until the evening came and the moon rose. " + "x" * 80)
    expect(page.locator("#token-text .flow")).to_contain_text("onerror=", timeout=LONG_MS)
    expect(page.locator("#token-text .flow")).to_contain_text("⇥end")
    page.locator("#token-fold > button").click()
    expect(page.locator("#token-table")).to_contain_text("“m”")
    assert page.locator("#token-text img, #token-text b, #token-table img").count() == 0
    assert page.title() != "owned"
    expect(other.locator(TOKENS)).to_have_count(0)
    score_own(other, "A grey fox slept. " * 4 + "x" * 80)
    expect(other.locator(TOKENS)).to_have_count(18 * 4 + 80 - 1, timeout=LONG_MS)
    for one, width in ((page, 1440), (other, 390)):
        one.locator("#where-ask").click()
        expect(one.locator("#where-status")).to_contain_text("do not add up", timeout=LONG_MS)
        drawn(one, "where-kinds")
        assert one.evaluate("document.documentElement.scrollWidth") <= width
        assert one.locator(TOKENS).evaluate_all(CONTRAST) >= 4.5, "words on their heat are read by WCAG AA"
