"""Compare in a browser: two answers side by side, stop, two visitors at once, a crash, a run, and text that would like to be markup."""

import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Served, Visit, enter

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(900)]

LONG_MS = 180_000
SPEED = re.compile(r"[\d.]+ tokens/s, first token after [\d.]+ s, [\d.]+ GB of memory, \d+ tokens")


def ask(page: Page, prompt: str, *, by_key: bool = False) -> None:
    page.locator("#compare-prompt textarea").fill(prompt)
    if by_key:
        page.locator("#compare-prompt textarea").press("Enter")
    else:
        page.locator("#compare-send").click()
    expect(page.locator("#compare-prompt textarea")).to_have_value("")  # taken, and the stop button is there


def answered(page: Page) -> None:
    """Both sides have ended: the next question can be asked, and their costs are shown."""
    expect(page.locator("#compare-send")).to_be_visible(timeout=LONG_MS)
    expect(page.locator("#compare-stop")).to_be_hidden()
    for side in (0, 1):
        expect(page.locator(f"#compare-facts-{side}")).to_contain_text(SPEED)


def lengthen(page: Page, tokens: int) -> None:
    """Set the longest answer, opening its fold when it is closed."""
    field = page.locator("#compare-length input[type=number]")
    if not field.is_visible():
        page.locator("#compare-settings button").first.click()
    enter(field, str(tokens))


def said(page: Page, side: int) -> list[str]:
    """All that stands in one side's conversation."""
    return page.locator(f"#compare-chat-{side} .salq-log-talk > div").all_inner_texts()


def chat_processes(served: Served) -> list[psutil.Process]:
    """The processes that hold the models of the served page."""
    return [
        child
        for one in psutil.process_iter(["cmdline"])
        if str(served.model) in " ".join(one.info["cmdline"] or [])
        for child in one.children(recursive=True)
        if "salq.chat.serve" in " ".join(child.cmdline())
    ]


@contextmanager
def held(served: Served) -> Iterator[None]:
    """The models pause: their answers take as long as the test needs, whatever the machine."""
    processes = chat_processes(served)
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            process.resume()


def write_a_little(served: Served, page: Page) -> None:
    """Inside `held`: let the models write for moments until the answer's first words are on the page; most of it is still to come."""
    words, deadline = page.locator("#compare-chat-0 .assistant"), time.monotonic() + LONG_MS / 1000
    while not words.is_visible():
        assert time.monotonic() < deadline, "no word of an answer came"
        for process in chat_processes(served):
            process.resume()
        page.wait_for_timeout(30)
        for process in chat_processes(served):
            process.suspend()
        page.wait_for_timeout(1_000)  # what was written reaches the page


def test_before_any_run_the_original_and_rtn_answer_the_same_prompt(served: Served, visit: Visit) -> None:
    page = visit("?tab=compare")
    assert served.store.ids() == []
    ask(page, "Hello there")
    expect(page.locator("#compare-prompt textarea")).to_have_value("")
    expect(page.locator("#compare-chat-1")).to_contain_text("Hello there")
    answered(page)
    expect(page.locator("#compare-facts-0")).to_contain_text("tiny-llama original")
    expect(page.locator("#compare-facts-1")).to_contain_text("tiny-llama RTN w3g64")
    assert [len(said(page, side)) for side in (0, 1)] == [2, 2]
    assert said(page, 0)[1] != said(page, 1)[1]
    assert len({process.pid for process in chat_processes(served)}) == 2


def test_what_is_said_is_text_and_history_belongs_to_the_visitor(served: Served, visit: Visit) -> None:
    evil = "<img src=x onerror=\"document.title='owned'\"><b>bold</b> ${1+1} {{value}} <|im_end|> **stars**"
    page = visit("?tab=compare")
    ask(page, evil)
    answered(page)
    expect(page.locator("#compare-chat-0")).to_contain_text(evil)
    assert page.locator("#compare-chat-0 img, #compare-chat-0 b").count() == 0
    assert page.title() != "owned"
    ask(page, "And again", by_key=True)
    answered(page)
    expect(page.locator("#compare-chat-0 .salq-log-talk > div")).to_have_count(4)
    other = visit("?tab=compare")
    assert said(other, 0) == []
    page.locator("#compare-new").click()
    expect(page.locator("#compare-chat-0 .salq-log-talk > div")).to_have_count(0)


def test_stop_stops_and_the_next_question_is_answered(served: Served, visit: Visit) -> None:
    page = visit("?tab=compare")
    lengthen(page, 8)
    ask(page, "Are you there?")
    answered(page)
    page.locator("#compare-new").click()
    lengthen(page, 1000)
    with held(served):
        ask(page, "Count to a million")
        write_a_little(served, page)
        page.locator("#compare-stop").click()
        expect(page.locator("#compare-stop")).to_be_disabled()
    expect(page.locator("#compare-facts-0")).to_contain_text("Stopped.")
    answered(page)
    lengthen(page, 16)
    ask(page, "And now?")
    answered(page)
    expect(page.locator("#compare-chat-1 .salq-log-talk > div")).to_have_count(4)


@pytest.mark.parametrize(("theme", "width"), [("light", 1440), ("dark", 390)])
def test_empty_and_too_long_prompts_are_told_and_nothing_is_cut_off(served: Served, visit: Visit, theme: str, width: int) -> None:
    page = visit("?tab=compare", theme=theme, width=width)
    fits(page, width)
    page.locator("#compare-prompt textarea").fill("   ")
    page.locator("#compare-send").click()
    expect(page.locator("#compare-facts-0")).to_contain_text("The prompt is empty")
    expect(page.locator("#compare-send")).to_be_visible()
    if width == 390:
        return
    ask(page, "long " * 500)
    answered(page)
    expect(page.locator("#compare-facts-0")).to_contain_text("only its first 2,000 were sent")


def test_two_visitors_at_once_wait_in_line_and_are_told(served: Served, visit: Visit) -> None:
    one, two = visit("?tab=compare"), visit("?tab=compare")
    lengthen(one, 16)
    ask(one, "Are you there?")
    answered(one)
    with held(served):
        ask(one, "Me first")
        expect(one.locator("#compare-facts-0")).to_contain_text("Reading the prompt")
        ask(two, "And me")
        expect(two.locator("#compare-facts-0")).to_contain_text("another visitor's answer first", timeout=LONG_MS)
    answered(one)
    answered(two)
    assert "And me" not in " ".join(said(one, 0))


def test_a_crash_leaves_the_page_usable(served: Served, visit: Visit) -> None:
    page = visit("?tab=compare")
    lengthen(page, 16)
    ask(page, "Hello")
    answered(page)
    processes = chat_processes(served)
    for process in processes:
        os.kill(process.pid, signal.SIGSTOP)  # else a tiny model has answered before anybody can kill it
    ask(page, "Hello again")
    page.wait_for_timeout(5000)  # the question reaches the processes, which sleep
    for process in processes:
        os.kill(process.pid, signal.SIGKILL)
    expect(page.locator("#compare-facts-0")).to_contain_text("was killed", timeout=LONG_MS)
    expect(page.locator("#compare-send")).to_be_visible(timeout=LONG_MS)
    ask(page, "Still there?")
    answered(page)


def test_a_finished_run_can_be_chosen(served: Served, visit: Visit) -> None:
    from salq import recipes
    from salq.runs.execute import execute
    from salq.runs.requests import CalibrateRequest, Evaluation

    recipe = recipes.get("rtn", bits=8, group_size=32)
    request = CalibrateRequest(
        model=str(served.model), recipe=recipe, evaluation=Evaluation(text="bundled", windows=1, window=64), title="eight bits"
    )
    run_id = served.store.create(request)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SALQ_HOME", str(served.home))
        list(execute(served.store, run_id))
    assert served.store.get(run_id).status == "done", served.store.get(run_id).problem
    page = visit("?tab=compare")
    page.locator("#compare-side-1 input").click()
    page.get_by_role("option", name=re.compile("eight bits")).click()
    ask(page, "Hello")
    answered(page)
    expect(page.locator("#compare-facts-1")).to_contain_text("eight bits")
    page.locator("#compare-side-1 input").click()
    page.get_by_role("option", name="original", exact=True).click()
    page.locator("#compare-prompt textarea").fill("Hello")
    page.locator("#compare-send").click()
    expect(page.locator("#compare-facts-0")).to_contain_text("The same side is chosen twice")
    expect(page.locator("#compare-prompt textarea")).to_have_value("Hello")  # a refused question is not lost


def test_a_third_side_answers_too(served: Served, visit: Visit) -> None:
    page = visit("?tab=compare")
    expect(page.locator("#compare-chat-2")).to_be_hidden()
    page.locator("#compare-side-1 input").click()
    page.get_by_role("option", name=re.compile("eight bits")).click()
    expect(page.get_by_role("option")).to_have_count(0)  # the first list has closed before the second one opens
    page.locator("#compare-side-2 input").click()
    page.get_by_role("option", name=re.compile("rounded to nearest")).click()
    expect(page.locator("#compare-chat-2")).to_be_visible()
    lengthen(page, 16)
    ask(page, "Hello")
    answered(page)
    expect(page.locator("#compare-facts-2")).to_contain_text(SPEED)
    assert [len(said(page, side)) for side in range(3)] == [2, 2, 2]
    page.locator("#compare-side-2 input").click()
    page.get_by_role("option", name="none", exact=True).click()
    expect(page.locator("#compare-chat-2")).to_be_hidden()


def fits(page: Page, width: int) -> None:
    """Nothing is cut off, and every control says what it is for."""
    page.locator("#compare-settings button").first.click()
    expect(page.locator("#compare-system")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for name in ("compare-side-0", "compare-side-1", "compare-length", "compare-temperature", "compare-seed", "compare-system"):
        text = page.locator(f"#{name}").inner_text()
        assert len(text.split()) > 3, f"{name}: {text!r}"
