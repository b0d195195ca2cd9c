"""The blind test and the verdict in a browser: nothing tells the sides apart before the guess, the score is kept, and the report is a file."""

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Served, Visit, choose, drawn, enter

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(900)]

LONG_MS = 180_000
TITLES = ("coarse", "fine")


@pytest.fixture(scope="module", autouse=True)
def runs(served: Served) -> dict[str, str]:
    """Two finished runs of the page's model, by title."""
    from salq import recipes
    from salq.runs.execute import execute
    from salq.runs.requests import CalibrateRequest, Evaluation

    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SALQ_HOME", str(served.home))
        for title, bits in zip(TITLES, (2, 8), strict=True):
            request = CalibrateRequest(
                model=str(served.model), recipe=recipes.get("rtn", bits=bits, group_size=32), device="cpu", title=title,
                evaluation=Evaluation(text="bundled", windows=8, window=32),
            )  # fmt: skip
            found[title] = served.store.create(request)
            for _ in execute(served.store, found[title]):
                pass
            assert served.store.get(found[title]).status == "done"
    return found


def open_blind(page: Page) -> None:
    if not page.locator("#blind-ask").is_visible():
        page.locator("#blind button").first.click()
    expect(page.locator("#blind-ask")).to_be_visible()


def ask(page: Page, prompt: str) -> None:
    enter(page.locator("#blind-prompt textarea, #blind-prompt input").first, prompt)
    page.locator("#blind-ask").click()


def test_a_guess_is_revealed_counted_and_shown_with_the_run(served: Served, visit: Visit, runs: dict[str, str]) -> None:
    page = visit("?tab=compare", theme="dark")
    open_blind(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 1440
    choose(page, "blind-who", re.compile("coarse"))
    evil = "<img src=x onerror=\"document.title='owned'\"> my secret"
    ask(page, evil)
    expect(page.locator("#blind-guess-0")).to_be_visible(timeout=LONG_MS)
    expect(page.locator("#blind-answer-1 .assistant")).not_to_be_empty()
    # Nothing that the browser holds names a side, a recipe or a speed.
    before = page.locator("#blind").inner_html()
    stage = page.locator("#blind-sides").inner_html()
    for word in ("original", "RTN", "tokens/s", "memory", "coarse", "w2g32"):
        assert word not in stage, word
    assert "tokens/s" not in before
    attributes = [page.locator(f"#blind-answer-{place}").evaluate("(one) => one.className + Object.keys(one.dataset)") for place in (0, 1)]
    assert attributes[0] == attributes[1]
    page.locator("#blind-guess-0").click()
    expect(page.locator("#blind-result")).to_contain_text(re.compile("(Left|Right) was quantized"))
    expect(page.locator("#blind-result")).to_contain_text("tokens/s")
    expect(page.locator("#blind-score")).to_contain_text(re.compile(r"Everybody on this run: [01] of 1 guesses right"))
    expect(page.locator("#blind-guess-0")).to_be_hidden()
    assert page.title() != "owned"
    kept = (served.store.folder(runs["coarse"]) / "blind.jsonl").read_text()
    assert [set(json.loads(line)) for line in kept.splitlines()] == [{"day", "outcome", "prompt"}]
    assert "secret" not in kept
    other = visit("?tab=runs")  # somebody else opens the run, and sees its score
    choose(other, "runs-picker", re.compile("coarse"))
    other.locator("#runs-open").click()
    expect(other.locator("#tab-calibrate")).to_contain_text("Blind test: ")
    expect(other.locator("#tab-calibrate")).to_contain_text("of 1 guesses right")


def test_on_a_phone_bad_prompts_are_told_and_the_next_round_is_possible(visit: Visit) -> None:
    page = visit("?tab=compare", width=390)
    open_blind(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    ask(page, "   ")
    expect(page.locator("#blind-told")).to_contain_text("The prompt is empty")
    page.locator("#blind-next").click()
    expect(page.locator("#blind-prompt textarea, #blind-prompt input").first).to_have_value(re.compile("capital of France"))
    page.locator("#blind-ask").click()
    expect(page.locator("#blind-result")).not_to_be_empty(timeout=LONG_MS)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.locator("#tab-runs-button").click()
    expect(page.locator("#verdict-go")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_the_verdict_of_two_runs_and_its_files(visit: Visit, tmp_path: Path) -> None:
    page = visit("?tab=runs")
    page.locator("#verdict-go").click()
    expect(page.locator("body")).to_contain_text("Two sides are needed")
    choose(page, "verdict-a", re.compile("coarse"))
    choose(page, "verdict-b", re.compile("fine"))
    page.locator("#verdict-go").click()
    expect(page.locator("#verdict-told")).to_contain_text(
        re.compile(r"fine lowers KL by [\d.]+ nats/token, 95 % interval [\d.]+ to [\d.]+, over coarse")
    )
    expect(page.locator("#verdict-table")).to_contain_text("8 windows of 32 tokens")
    files = {}
    for ending in ("html", "json"):
        with page.expect_download() as download:
            page.locator(f"#verdict-{ending}").click()
        assert download.value.suggested_filename.endswith(f".{ending}")
        files[ending] = tmp_path / f"report.{ending}"
        download.value.save_as(files[ending])
    assert "fine lowers KL" in json.loads(files["json"].read_text())["verdict"]
    look_at_the_report(page, files["html"])
    choose(page, "verdict-b", re.compile("coarse"))
    page.locator("#verdict-go").click()
    expect(page.locator("body")).to_contain_text("coarse is on both sides")


def look_at_the_report(page: Page, file: Path) -> None:
    """Opened from the disk: no request, no error, nothing cut off at phone width in both themes."""
    for width, theme in ((390, "light"), (1440, "dark")):
        context = page.context.browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)  # type: ignore[union-attr, arg-type]
        requests: list[str] = []
        problems: list[str] = []
        report = context.new_page()
        report.on("request", lambda request, seen=requests: seen.append(request.url))
        report.on("console", lambda message, seen=problems: seen.append(message.text))
        report.goto(file.as_uri())
        expect(report.locator(".verdict")).to_contain_text("lowers KL by")
        assert requests == [file.as_uri()]
        assert problems == []
        assert report.locator("svg").count() >= 5
        assert report.evaluate("document.documentElement.scrollWidth") <= width
        paper = report.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (paper == "rgb(255, 255, 255)") is (theme == "light")
        context.close()


POINT = """(run) => {
    const plot = document.querySelector('#trade-off .js-plotly-plot'), trace = plot._fullData.find((one) => one.name === 'rtn');
    const at = trace.customdata.findIndex((one) => one[0] === run), layout = plot._fullLayout;
    plot.scrollIntoView();
    const now = plot.getBoundingClientRect();
    return [now.left + layout.xaxis._offset + layout.xaxis.d2p(trace.x[at]), now.top + layout.yaxis._offset + layout.yaxis.d2p(trace.y[at])];
}"""
"""Where a run's point of the trade-off chart is in the window."""


def click_point(page: Page, run: str, title: str) -> None:
    """Click a run's point until its run is picked: a chart that is drawn anew between the hover and the click swallows the click."""
    page.wait_for_function("() => (document.querySelector('#trade-off .js-plotly-plot') || {}).salqAttached")
    for _ in range(3):
        page.mouse.move(0, 0)
        place = page.evaluate(POINT, run)
        page.mouse.move(*place)
        expect(page.locator("#trade-off .hovertext")).to_contain_text(title)  # a click belongs to the point that is hovered
        page.mouse.click(*place)
        try:
            expect(page.locator("#runs-picker input")).to_have_value(re.compile(title), timeout=8_000)
        except AssertionError:
            continue
        return
    raise AssertionError(f"no click on the point of {title} picked its run")


def test_a_point_of_the_trade_off_picks_its_run_and_has_an_error_bar(visit: Visit, runs: dict[str, str]) -> None:
    page = visit("?tab=runs", theme="dark")
    assert {trace["name"] for trace in drawn(page, "trade-off")["traces"]} == {"frontier", "rtn"}
    expect(page.locator("#trade-off .errorbars path").first).to_be_attached()
    click_point(page, runs["fine"], "fine")
    expect(page.locator("#verdict-go")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 1440
