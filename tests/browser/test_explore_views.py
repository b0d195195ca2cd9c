"""Explore below the grid in a browser: one group, A minus B, depth, sizes, budgets; by mouse, keys and links; what is drawn and exported."""

import csv
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from salq import recipes
from salq.core import settings
from salq.models.llama import read_weight
from salq.models.source import resolve
from salq.quant.frozen import rtn
from salq.quant.spec import QuantSpec
from salq.runs.exploration import of_run
from salq.runs.requests import CalibrateRequest, Evaluation, ExploreRequest
from tests.browser.conftest import Served, Visit, choose, drawn

EVALUATION = settings.ASSETS / "text" / "evaluation.txt"
SPECS = tuple(QuantSpec(bits=bits, group_size=64) for bits in (3, 8, 4, 2))  # type: ignore[arg-type]

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def runs(served: Served) -> tuple[str, str]:
    """(calibration, exploration that measured it) of the page's model, made before the browser comes."""
    from salq.runs.execute import execute

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SALQ_HOME", str(served.home))
        changes = {"rank": 2, "epochs": 1, "batch_size": 1, "data.n_samples": 2, "data.seq_len": 24}
        recipe = recipes.get("apiq", bits=3, group_size=64, overrides=changes)
        evaluation = Evaluation(text=str(EVALUATION), windows=2, window=32)
        request = CalibrateRequest(model=str(served.model), recipe=recipe, text=str(EVALUATION), device="cpu", evaluation=evaluation, title="mine")
        calibrated = served.store.create(request)
        list(execute(served.store, calibrated))
        asked = ExploreRequest(model=str(served.model), specs=SPECS, text=str(EVALUATION), n_samples=2, seq_len=32, device="cpu", run=calibrated)
        explored = served.store.create(asked)
        list(execute(served.store, explored))
    assert served.store.get(explored).status == "done", served.store.get(explored).problem
    return calibrated, explored


def plot_of(page: Page, plot: str, expression: str, until: str = "true") -> Any:
    """A value out of a drawn chart, `p`, once it is one of which `until` is true: plotly draws a moment after the text beside it has changed."""
    page.locator(f"#{plot} .js-plotly-plot .main-svg").first.wait_for(state="attached")  # its tab may be a hidden one
    page.wait_for_function(f"(id) => {{ const p = document.querySelector(`#${{id}} .js-plotly-plot`); return p && {until}; }}", arg=plot)
    return page.evaluate(f"(id) => {{ const p = document.querySelector(`#${{id}} .js-plotly-plot`); return {expression}; }}", plot)


def dots(page: Page) -> list[float]:
    """The weights on the first number line."""
    return plot_of(page, "group-line", "Array.from(p._fullData[2].x)")


def test_a_click_and_the_keys_on_the_map_choose_a_group(served: Served, runs: tuple[str, str], visit: Visit) -> None:
    page = visit("?block=1&matrix=down_proj")
    weight = read_weight(resolve(str(served.model)), 1, "mlp.down_proj")
    expect(page.locator("#group-facts")).to_contain_text("row 0, group 0")
    assert dots(page) == pytest.approx(weight[0, :64].tolist())
    page.locator("#matrix-maps").scroll_into_view_if_needed()
    x, y, row, column = plot_of(
        page, "matrix-maps",
        """(() => { const l = p._fullLayout, m = p.layout.meta, box = p.getBoundingClientRect(), r = 9, c = 70;
            return [box.left + l.xaxis._offset + l.xaxis.l2p((m.cols[c] + m.cols[c + 1]) / 2),
                    box.top + l.yaxis._offset + l.yaxis.l2p((m.rows[r] + m.rows[r + 1]) / 2), m.rows[r], m.cols[c]]; })()""",
    )  # fmt: skip
    page.mouse.move(x, y)
    page.mouse.click(x, y)
    group = column // 64
    expect(page.locator("#group-facts")).to_contain_text(f"row {row}, group {group}")
    expect(page.locator("#group-line")).to_contain_text("min/max: 8 levels")
    page.wait_for_function(
        "want => Math.abs(document.querySelector('#group-line .js-plotly-plot')._fullData[2].x[0] - want) < 1e-6", arg=float(weight[row, group * 64])
    )
    made = rtn(weight, SPECS[0])
    levels = plot_of(page, "group-line", "Array.from(p._fullData[1].x).filter((one, i) => i % 3 === 0)")
    assert levels == pytest.approx([(code - int(made.zero_point[row, group])) * float(made.scale[row, group]) for code in range(8)], rel=1e-5)
    expect(page.locator("#matrix-maps .salq-spot").first).to_be_visible()
    page.locator("#matrix-maps").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#group-facts")).to_contain_text(f"row {row}, group {group + 1}")
    page.locator("#group-row input").fill("3")
    page.locator("#group-row input").press("Enter")
    expect(page.locator("#group-facts")).to_contain_text(f"row 3, group {group + 1}")


def test_a_link_carries_group_run_and_value(served: Served, runs: tuple[str, str], visit: Visit) -> None:
    page = visit(f"?block=2&matrix=q_proj&group=7,1&run={runs[0]}&minus=rounding&value=weighted_error&tab=explore")
    expect(page.locator("#group-facts")).to_contain_text("row 7, group 1")
    expect(page.locator("#group-line")).to_contain_text("learned by mine")
    expect(page.locator("#explore-reading")).to_contain_text("A (mine) has the smaller saliency-weighted error")
    explored = of_run(served.store.get(runs[1]))
    assert explored is not None
    a, b = explored.cells("weighted_error", runs[0]), explored.cells("weighted_error", "w3g64")
    assert a is not None
    assert b is not None
    heat = plot_of(
        page,
        "explore-grid",
        "({ z: p.calcdata[0][0].z.map((row) => Array.from(row)), low: p._fullData[0].zmin, high: p._fullData[0].zmax })",
        until="p._fullData[0].zmin < 0",
    )
    assert heat["low"] == -heat["high"] < 0
    want = [[a[block][row] - b[block][row] for block in range(3)] for row in range(7)]  # type: ignore[operator]
    assert [value for row in heat["z"] for value in row] == pytest.approx([value for row in want for value in row], rel=1e-5)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator("#explore-link").click()
    expect(page.locator("#explore-link")).to_have_text("Copied")
    copied = page.evaluate("navigator.clipboard.readText()")
    for part in ("block=2", "matrix=self_attn.q_proj", "group=7%2C1", f"run={runs[0]}", "minus=rounding", "value=weighted_error", "bits=3"):
        assert part in copied
    page = visit("?block=1&group=no&run=20200101-000000-abcd&minus=x&value=y&tab=explore")
    expect(page.locator("#link-notice")).to_contain_text("run, group, minus, value")
    expect(page.locator("#group-facts")).to_contain_text("row 0, group 0")


@pytest.mark.parametrize(("theme", "width"), [("light", 1440), ("dark", 390)])
def test_every_view_is_drawn_in_its_tab(served: Served, runs: tuple[str, str], visit: Visit, theme: str, width: int) -> None:
    page = visit(f"?tab=explore&run={runs[0]}&block=1&matrix=mlp.down_proj&group=3,1", theme=theme, width=width)
    drawn(page, "explore-grid")
    views = {
        "explore-model-tabs": [("Through the blocks", "explore-depth"), ("Size", "explore-size"), ("Bits for a budget", "explore-budget")],
        "matrix-tabs": [("All its weights", "matrix-histogram"), ("What an adapter can repair", "matrix-spectrum")],
        "group-tabs": [("Real weights around it", "group-tile")],
    }
    for tabs, parts in views.items():
        for name, plot in parts:
            tab = page.locator(f"#{tabs}").get_by_role("tab", name=name).first
            if width == 1440:
                tab.press("Enter")
            else:
                tab.click()
            expect(page.locator(f"#{plot} .main-svg").first).to_be_visible()
            page.wait_for_function(
                "id => { const p = document.querySelector(`#${id} .js-plotly-plot`); return Math.abs(p._fullLayout.width - p.clientWidth) < 3; }",
                arg=plot,
            )
            assert page.evaluate("document.documentElement.scrollWidth") <= width, name
    explored = of_run(served.store.get(runs[1]))
    assert explored is not None
    together = plot_of(page, "explore-depth", "p._fullData.filter((one) => one.name.includes('mine, quantized')).map((one) => Array.from(one.y))[0]")
    assert together == pytest.approx(explored.depth[runs[0]].together)
    weight = read_weight(resolve(str(served.model)), 1, "mlp.down_proj")
    assert sum(plot_of(page, "matrix-histogram", "Array.from(p._fullData[0].y, (one) => one || 0)")) == weight.numel()
    frozen = served.store.result(runs[0]).load(1)["mlp.down_proj"]
    tile = plot_of(page, "group-tile", "({ w: Array.from(p.calcdata[0][0].z[3]), q: Array.from(p.calcdata[1][0].z[3]), x0: p._fullData[0].x0 })")
    count = len(tile["w"])
    assert tile["w"] == pytest.approx(weight[3, tile["x0"] : tile["x0"] + count].tolist(), rel=1e-5)
    assert tile["q"] == pytest.approx(frozen.effective_weight()[3, tile["x0"] : tile["x0"] + count].tolist(), rel=1e-4, abs=1e-7)
    expect(page.locator("#explore-budget-reading")).to_contain_text("This is a prediction")
    expect(page.locator("#matrix-spectrum-reading")).to_contain_text("this run's adapter leaves")


def test_what_is_drawn_can_be_saved_and_runs_are_compared_by_the_pickers(served: Served, runs: tuple[str, str], visit: Visit, tmp_path: Path) -> None:
    page = visit("?tab=explore&block=1&matrix=mlp.down_proj")

    def saved(plot: str) -> list[list[str]]:
        page.locator(f"#{plot} .main-svg").first.wait_for()
        with page.expect_download() as waiting:
            page.locator(f"button[data-plot={plot}]").click()
        path = tmp_path / f"{plot}.csv"
        waiting.value.save_as(path)
        assert waiting.value.suggested_filename.startswith("salq-")
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.reader(file))

    header, *rows = saved("explore-grid")
    assert header[:3] == ["series", "block (index)", "matrix"]
    assert "‖(W−Ŵ)X‖ / ‖WX‖" in header[3]
    explored = of_run(served.store.get(runs[1]))
    assert explored is not None
    cells = explored.cells("output_error", "w3g64")
    assert cells is not None
    assert {(int(row[1]), row[2]): float(row[3]) for row in rows}[2, "up"] == pytest.approx(cells[2][5], rel=1e-5)
    header, *rows = saved("matrix-maps")
    assert len(header) == len(rows[0]) == 6
    weight = read_weight(resolve(str(served.model)), 1, "mlp.down_proj")
    moved = (weight - rtn(weight, SPECS[0]).effective_weight()).abs()
    errors = [row for row in rows if row[0] == "Rounding error"]
    top, bottom, left, right = map(int, errors[500][1:5])
    logs = [float(row[5]) for row in errors]
    assert min(logs) <= float(errors[500][5]) <= max(logs)
    want = float(moved[top : bottom + 1, left : right + 1].max())
    assert float(errors[500][5]) == pytest.approx(want, rel=0.05)  # 8-bit colour codes on a log scale
    header, *rows = saved("group-line")
    assert "weight units" in header[1]
    assert sum(row[0].endswith(": weights") for row in rows) == 64
    with page.expect_download() as waiting:
        page.locator("#explore-grid").hover()
        page.locator("#explore-grid .modebar-btn[data-title*='PNG']").click()
    assert waiting.value.suggested_filename.endswith(".png")
    compared_by_the_pickers(page)


def compared_by_the_pickers(page: Page) -> None:
    """A run in A, rounding in B, nothing in B again, another metric: the grid follows."""
    choose(page, "explore-made-by", "mine")
    expect(page.locator("#explore-reading")).to_contain_text("Mine moves what a matrix computes")
    expect(page.locator("#matrix-reading")).to_contain_text("mine")
    choose(page, "explore-minus", "rounding to nearest")
    expect(page.locator("#explore-grid")).to_contain_text("A minus B")
    choose(page, "explore-minus", "nothing")
    expect(page.locator("#explore-grid")).not_to_contain_text("A minus B")
    page.locator("#explore-metric").get_by_text("Saliency-weighted error", exact=True).click()
    expect(page.locator("#explore-reading")).to_contain_text("should raise the loss by")
