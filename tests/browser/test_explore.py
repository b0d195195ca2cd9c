"""Explore in a browser: compute, click a cell, use the keys and the pickers, follow a link; light and dark, wide and narrow."""

import re

import pytest
from playwright.sync_api import Page, expect

from salq.core import settings
from tests.browser.conftest import Served, Visit, drawn

EVALUATION = settings.ASSETS / "text" / "evaluation.txt"

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def computed(served: Served) -> Served:
    """A page whose model was explored before the browser comes, by the same code that Compute starts."""
    from salq.quant.spec import QuantSpec
    from salq.runs.execute import execute
    from salq.runs.requests import ExploreRequest

    specs = tuple(QuantSpec(bits=bits, group_size=64) for bits in (3, 2))
    run_id = served.store.create(ExploreRequest(model=str(served.model), specs=specs, text=str(EVALUATION), n_samples=2, seq_len=32, device="cpu"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SALQ_HOME", str(served.home))
        list(execute(served.store, run_id))
    info = served.store.get(run_id)
    assert info.status == "done", info.problem
    return served


def click_cell(page: Page, block: int, row: int) -> None:
    """A real mouse click in the middle of a cell of the grid."""
    page.locator("#explore-grid .nsewdrag").first.wait_for()
    page.locator("#explore-grid").scroll_into_view_if_needed()
    x, y = page.evaluate(
        """([block, row]) => {
            const plot = document.querySelector("#explore-grid .js-plotly-plot"), layout = plot._fullLayout, box = plot.getBoundingClientRect();
            return [box.left + layout.xaxis._offset + layout.xaxis.l2p(block), box.top + layout.yaxis._offset + layout.yaxis.l2p(row)];
        }""",
        [block, row],
    )
    page.mouse.move(x, y)
    page.mouse.click(x, y)


def chosen_block(page: Page) -> str:
    return page.locator("#matrix-block input").input_value()


def test_compute_fills_the_grid_and_adds_saliency(served: Served, visit: Visit) -> None:
    page = visit("?tab=explore")
    expect(page.locator("#explore-problem")).to_contain_text("press Compute")
    expect(page.locator("#matrix-reading")).to_contain_text("Compute adds saliency")
    assert [trace["name"] for trace in drawn(page, "matrix-maps")["traces"]] == ["Rounding error"]
    page.locator("#explore-compute").click()
    expect(page.locator("#explore-progress progress")).to_be_visible()
    expect(page.locator("#explore-reading")).to_contain_text("moves what a matrix computes by", timeout=120_000)
    assert drawn(page, "explore-grid")["traces"][0]["size"] == [7, 3]
    expect(page.locator("#matrix-reading")).to_contain_text("of the saliency")
    assert [trace["name"] for trace in drawn(page, "matrix-maps")["traces"]] == ["Saliency", "Rounding error", "Saliency × error²"]
    assert served.store.list()[0].status == "done"
    page.locator("#explore-pin").click()
    expect(page.locator("#explore-pin")).to_have_text("Unpin these results")
    expect(page.locator("#explore-progress")).to_contain_text("It is pinned.")
    assert served.store.list()[0].pinned


@pytest.mark.parametrize(("theme", "width"), [("light", 1440), ("dark", 390)])
def test_the_grid_by_mouse_keys_and_pickers(computed: Served, visit: Visit, theme: str, width: int) -> None:
    page = visit("?tab=explore", theme=theme, width=width)
    drawn(page, "explore-grid")
    drawn(page, "matrix-maps")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    ink = page.evaluate("getComputedStyle(document.querySelector('#explore-grid .xtick text')).fill")
    channel = int(re.findall(r"\d+", ink)[0])
    assert (channel > 150) == (theme == "dark"), ink
    for name in ("explore-metric", "matrix-block", "matrix-name", "matrix-pooling"):
        assert len(page.locator(f"#{name}").inner_text().split()) > 4, f"{name} has no help"
    if width == 1440:
        by_mouse_keys_and_pickers(page)


def by_mouse_keys_and_pickers(page: Page) -> None:
    """A click opens a matrix, arrow keys move on, pickers move the outline, metrics switch, a hover names the cell in all maps."""
    for name in ("model", "bits", "group-size", "symmetric", "device", "text"):
        assert len(page.locator(f"#{name}").inner_text().split()) > 4, f"{name} has no help"
    expect(page.locator("#explore-grid .salq-cell")).to_be_visible()
    page.locator("#explore-grid").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowUp")
    expect(page.locator("#matrix-block input")).to_have_value("1")
    expect(page.locator("#matrix-name input")).to_have_value("mlp.up_proj")
    click_cell(page, 2, 1)
    expect(page.locator("#matrix-block input")).to_have_value("2")
    expect(page.locator("#matrix-name input")).to_have_value("self_attn.k_proj")
    expect(page.locator("#matrix-reading")).to_contain_text("64 × 192")
    titles = drawn(page, "matrix-maps")
    assert (titles["x"], titles["y"]) != ("", "")
    before = page.locator("#explore-grid .salq-cell").bounding_box()
    page.locator("#matrix-block input").click()
    page.get_by_role("option", name="0", exact=True).click()
    page.wait_for_function(
        "left => Math.abs(document.querySelector('#explore-grid .salq-cell').getBoundingClientRect().left - left) > 20", arg=before and before["x"]
    )
    for metric, words in (("Saliency", "matters"), ("Relative weight error", "moves the weights of a matrix")):
        page.locator("#explore-metric").get_by_text(metric, exact=True).click()
        expect(page.locator("#explore-reading")).to_contain_text(words)
        expect(page.locator("#explore-grid")).to_contain_text(metric)
    page.locator("#matrix-maps").scroll_into_view_if_needed()
    page.locator("#matrix-maps .nsewdrag").first.hover()
    tip = page.locator("#matrix-maps .salq-tip")
    expect(tip).to_contain_text(re.compile(r"outputs \d+"))
    for name in ("Saliency:", "Rounding error:", "Saliency × error²:"):
        expect(tip).to_contain_text(name)


def test_on_a_slow_line_the_last_key_counts(computed: Served, visit: Visit) -> None:
    page = visit("?tab=explore")
    expect(page.locator("#explore-grid .salq-cell")).to_be_visible()
    line = page.context.new_cdp_session(page)
    line.send("Network.emulateNetworkConditions", {"offline": False, "latency": 700, "downloadThroughput": -1, "uploadThroughput": -1})
    page.locator("#explore-grid").focus()
    for key, pause_ms in (("ArrowRight", 0), ("ArrowUp", 1200), ("ArrowUp", 0)):  # the third while the answer to the first is on its way
        page.keyboard.press(key)
        page.wait_for_timeout(pause_ms)
    expect(page.locator("#matrix-name input")).to_have_value("mlp.gate_proj")
    expect(page.locator("#matrix-block input")).to_have_value("1")


def test_pooling_and_bits_redraw_and_a_misfit_is_one_sentence(computed: Served, visit: Visit) -> None:
    page = visit("?tab=explore")
    drawn(page, "matrix-maps")
    page.locator("#matrix-pooling").get_by_text("mean", exact=True).click()
    expect(page.locator("#matrix-maps")).to_contain_text("mean over")
    page.locator("#bits").get_by_text("2", exact=True).click()
    expect(page.locator("#explore-reading")).to_contain_text("w2g64")
    expect(page.locator("#explore-sizes")).to_contain_text("2.28 bits per weight")
    page.locator("#group-size input").click()
    page.get_by_role("option", name="128", exact=True).click()
    expect(page.locator("#explore-sizes")).to_contain_text("is not a multiple of group size 128")
    expect(page.locator("#explore-problem")).to_contain_text("shown is w2g64")


def test_a_link_opens_its_view(computed: Served, visit: Visit) -> None:
    page = visit("?block=1&matrix=o_proj&bits=2")
    expect(page.locator("#tab-explore-button")).to_have_attribute("aria-selected", "true")
    expect(page.locator("#matrix-name input")).to_have_value("self_attn.o_proj")
    assert chosen_block(page) == "1"
    expect(page.locator("#bits input[value='2']")).to_be_checked()


def test_a_bad_link_says_so_and_two_visitors_do_not_share_a_selection(computed: Served, visit: Visit) -> None:
    one, two = visit("?tab=explore"), visit("?block=99&matrix=<b>x</b>&run=../../x&tab=explore")
    drawn(one, "explore-grid")
    drawn(two, "explore-grid")
    expect(two.locator("#link-notice")).to_contain_text("run, block or matrix")
    assert chosen_block(two) == "0"
    click_cell(one, 1, 0)
    expect(one.locator("#matrix-name input")).to_have_value("self_attn.q_proj")
    assert (chosen_block(two), two.locator("#matrix-name input").input_value()) == ("0", "mlp.down_proj")
