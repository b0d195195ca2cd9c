"""The Explore tab: the whole model as a grid, one matrix as maps, one group of weights on its number line; one selection runs through all."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from salq.figures import METRICS
from salq.ui import words
from salq.ui.context import UiContext
from salq.ui.explore_actions import LINEARS, POOLINGS, TABLE_HEADER
from salq.ui.explore_charts import Chart
from salq.ui.explore_first import FIRST_METRIC, First
from salq.ui.explore_shown import chart_html, digest, group_html, plot_data
from salq.ui.explore_subject import NOTHING, ROUNDING
from salq.ui.explore_updates import Drawing, guarded
from salq.ui.html import csv_button, lede, note, reading, section
from salq.ui.links import COPY_LINK
from salq.ui.listening import EVERY, LATEST, QUIET

__all__ = ["build", "plot_data"]

DRAW: dict[str, Any] = {"api_visibility": "private", "show_progress": "minimal", "concurrency_limit": 4, **LATEST}
WAITING = 16
"""Visitors whose matrix may be on its way at a time: most of them wait for the process that reduces it, and must not hold up the others."""
RESIZE = "() => setTimeout(() => window.dispatchEvent(new Event('resize')), 60)"
"""A chart that was drawn while its tab was hidden has no width yet."""


def build(ctx: UiContext) -> None:
    """Lay the tab out and wire it."""
    first = First(ctx)
    gr.HTML(lede(words.EXPLORE_LEDE))
    over = _build_overview(first)
    with gr.Tabs(elem_id="explore-model-tabs", elem_classes="salq-subtabs", overflow_behavior="wrap") as tabs:
        with gr.Tab("All matrices", id="grid"):
            grid = _build_grid(first)
        with gr.Tab("Through the blocks", id="depth"):
            depth = _panel(first.depth, "explore-depth", "The way of the error in numbers")
        with gr.Tab("Size", id="size"):
            size = _panel(first.size, "explore-size", "The sizes in numbers")
        with gr.Tab("Bits for a budget", id="budget"):
            budget = _build_budget(first)
    detail = _build_detail(first)
    group = _build_group(first)
    with gr.Row():
        link = gr.Button("Copy a link to this view", size="sm", elem_id="explore-link", scale=0, min_width=220)
    # The bridge and not the state: the browser knows no values of states.
    link.click(None, [ctx.sidebar.model, ctx.sidebar.bits, ctx.bridge, over.made_by, over.minus, over.metric, ctx.run_id], None, js=COPY_LINK)
    for one in (tabs, detail.tabs, group.tabs):
        one.select(None, None, None, js=RESIZE)
    _wire(ctx, over, _Parts(grid, depth, size, budget, detail, group), first)


@dataclass(frozen=True)
class _Panel:
    """A chart with its sentence and its folded table."""

    plot: gr.Plot
    text: gr.HTML
    table: gr.Dataframe

    @property
    def all(self) -> list[Any]:
        return [self.plot, self.text, self.table]


@dataclass(frozen=True)
class _Overview:
    sizes: gr.HTML
    metric: gr.Radio
    made_by: gr.Dropdown
    minus: gr.Dropdown
    compute: gr.Button
    cancel: gr.Button
    pin: gr.Button
    progress: gr.HTML
    problem: gr.HTML


@dataclass(frozen=True)
class _Grid:
    grid: gr.Plot
    text: gr.HTML
    fold: gr.Accordion
    table: gr.Dataframe


@dataclass(frozen=True)
class _Budget:
    slider: gr.Slider
    curve: _Panel
    widths: gr.Plot


@dataclass(frozen=True)
class _Detail:
    tabs: gr.Tabs
    block: gr.Dropdown
    matrix: gr.Dropdown
    how: gr.Radio
    text: gr.HTML
    maps: gr.Plot
    table: gr.Dataframe
    spectrum: _Panel
    histogram: _Panel


@dataclass(frozen=True)
class _Group:
    tabs: gr.Tabs
    row: gr.Number
    group: gr.Number
    facts: gr.HTML
    line: _Panel
    tile: gr.Plot


@dataclass(frozen=True)
class _Parts:
    grid: _Grid
    depth: _Panel
    size: _Panel
    budget: _Budget
    detail: _Detail
    group: _Group


def _build_overview(first: First) -> _Overview:
    sizes = gr.HTML(first.sizes, elem_id="explore-sizes")
    with gr.Row(elem_id="explore-controls"):
        metric = gr.Radio(
            [(one.title, key) for key, one in METRICS.items()], value=FIRST_METRIC, label="Colour by", info=words.METRIC_INFO,
            elem_id="explore-metric", elem_classes="salq-switch", scale=5, min_width=300,
        )  # fmt: skip
        compute = gr.Button("Compute", variant="primary", elem_id="explore-compute", scale=1, min_width=130)
        cancel = gr.Button("Cancel", visible=False, elem_id="explore-cancel", scale=1, min_width=130)
        pin = gr.Button(words.PIN_EXPLORED, visible=False, elem_id="explore-pin", scale=1, min_width=130)
    with gr.Row(elem_id="explore-runs"):
        made_by = gr.Dropdown(
            first.subjects, value=ROUNDING, label="Quantized by (A)", info=words.MADE_BY_INFO, elem_id="explore-made-by", min_width=240
        )  # fmt: skip
        minus = gr.Dropdown(
            [("nothing", NOTHING), *first.subjects], value=NOTHING, label="Minus (B)", info=words.MINUS_INFO, elem_id="explore-minus", min_width=240
        )  # fmt: skip
    progress = gr.HTML("", elem_id="explore-progress")
    problem = gr.HTML(reading(first.grid.problem, problem=True), elem_id="explore-problem")
    return _Overview(sizes, metric, made_by, minus, compute, cancel, pin, progress, problem)


def _plot(figure: str | None, elem_id: str) -> gr.Plot:
    """A chart, hidden without a figure, with the button that exports it below."""
    plot = gr.Plot(plot_data(figure), show_label=False, elem_id=elem_id, elem_classes="salq-chart", visible=figure is not None)
    gr.HTML(csv_button(elem_id), elem_classes="salq-export")
    return plot


def _build_grid(first: First) -> _Grid:
    grid = _plot(first.grid.figure, "explore-grid")
    text = gr.HTML(reading(first.grid.reading) + note(first.grid.source), elem_id="explore-reading")
    with gr.Accordion("The grid as a table", open=False, elem_id="explore-table-fold", visible=bool(first.grid.table)) as fold:
        table = gr.Dataframe(
            first.grid.table, headers=first.grid.header or ["block", *LINEARS], interactive=False, show_label=False, elem_id="explore-table",
            max_height=360,
        )  # fmt: skip
    return _Grid(grid, text, fold, table)


def _panel(chart: Chart, elem_id: str, table_title: str) -> _Panel:
    plot = _plot(chart.figure, elem_id)
    text = gr.HTML(chart_html(chart), elem_id=f"{elem_id}-reading")
    with gr.Accordion(table_title, open=False, elem_id=f"{elem_id}-table-fold"):
        table = gr.Dataframe(
            chart.table, headers=chart.header or ["nothing yet"], interactive=False, show_label=False, elem_id=f"{elem_id}-table", max_height=360
        )  # fmt: skip
    return _Panel(plot, text, table)


def _build_budget(first: First) -> _Budget:
    view = first.budget
    slider = gr.Slider(
        round(view.low, 1), max(round(view.high, 1), round(view.low, 1) + 1), value=round(view.mb, 1), step=0.1,
        label="Budget for the quantized matrices, MB", info=words.BUDGET_INFO, elem_id="explore-budget-mb",
    )  # fmt: skip
    curve = _panel(view.curve, "explore-budget", "All matrices, the most salient first")
    return _Budget(slider, curve, _plot(view.grid, "explore-widths"))


def _build_detail(first: First) -> _Detail:
    gr.HTML(section("One matrix"))
    with gr.Row(elem_id="matrix-controls"):
        block = gr.Dropdown(
            list(range(first.n_blocks)), value=first.block, label="Block", info=words.BLOCK_INFO, elem_id="matrix-block", scale=1, min_width=120
        )
        matrix = gr.Dropdown(
            list(LINEARS), value=first.matrix, label="Matrix", info=words.MATRIX_INFO, elem_id="matrix-name", scale=2, min_width=200
        )  # fmt: skip
        how = gr.Radio(
            list(POOLINGS), value="max", label="Pooling", info=words.POOLING_INFO, elem_id="matrix-pooling", elem_classes="salq-switch",
            scale=2, min_width=260,
        )  # fmt: skip
    text = gr.HTML(first.matrix_text, elem_id="matrix-reading")
    with gr.Tabs(elem_id="matrix-tabs", elem_classes="salq-subtabs", overflow_behavior="wrap") as tabs:
        with gr.Tab("From above", id="maps"):
            maps = _plot(first.maps.figure, "matrix-maps")
            gr.HTML(note(words.MAPS_HINT))
            with gr.Accordion("The maps in numbers", open=False, elem_id="matrix-table-fold"):
                table = gr.Dataframe(first.maps.table, headers=TABLE_HEADER, interactive=False, show_label=False, elem_id="matrix-table")
        with gr.Tab("All its weights", id="histogram"):
            histogram = _panel(first.group.histogram, "matrix-histogram", "The histogram in numbers")
        with gr.Tab("What an adapter can repair", id="spectrum"):
            spectrum = _panel(first.maps.spectrum, "matrix-spectrum", "The ranks in numbers")
    return _Detail(tabs, block, matrix, how, text, maps, table, spectrum, histogram)


def _build_group(first: First) -> _Group:
    gr.HTML(section("One group of weights"))
    picture = first.group
    with gr.Row(elem_id="group-controls"):
        row = gr.Number(picture.row, label="Row (output)", info=words.ROW_INFO, precision=0, minimum=0, elem_id="group-row", min_width=160)
        group = gr.Number(picture.group, label="Group", info=words.GROUP_NUMBER_INFO, precision=0, minimum=0, elem_id="group-number", min_width=160)
    told = gr.HTML(group_html(picture), elem_id="group-facts")
    with gr.Tabs(elem_id="group-tabs", elem_classes="salq-subtabs", overflow_behavior="wrap") as tabs:
        with gr.Tab("On its number line", id="line"):
            line = _panel(picture.line, "group-line", "Its weights and their codes")
        with gr.Tab("Real weights around it", id="tile"):
            tile = _plot(picture.tile, "group-tile")
            gr.HTML(note(words.TILE_HINT))
    return _Group(tabs, row, group, told, line, tile)


def _wire(ctx: UiContext, over: _Overview, parts: _Parts, first: First) -> None:
    """Everything that changes a picture goes through one event per picture, so that the last of several quick changes wins."""
    draw, side = Drawing(ctx), ctx.sidebar
    grid, detail, group, budget = parts.grid, parts.detail, parts.group, parts.budget
    timer, finished, opened_once = gr.Timer(1.0, active=False), gr.State(""), gr.State(0)
    grid_shown, maps_shown = gr.State(digest(first.grid.figure)), gr.State(digest(first.maps.figure))
    depth_shown, money_shown, group_shown = gr.State(digest(first.depth.figure)), gr.State(first.money_digests), gr.State(first.group_digests)
    who = [over.made_by, over.minus]
    changed = [side.model.input, side.bits.input, side.group_size.input, side.symmetric.input, finished.change, opened_once.change]
    gr.on(
        [over.metric.change, *(one.change for one in who), *changed], draw.grid, [grid_shown, over.metric, *who, *side.inputs],
        [grid.grid, grid.text, over.problem, grid.table, grid.fold, over.sizes, grid_shown], **DRAW,
    )  # fmt: skip
    gr.on(
        [ctx.selection.change, *(one.change for one in who), *changed], draw.depth, [depth_shown, ctx.selection, *who, *side.inputs],
        [*parts.depth.all, depth_shown], **DRAW,
    )  # fmt: skip
    gr.on(
        [budget.slider.release, *(one.change for one in who), *changed], draw.money, [money_shown, budget.slider, *who, *side.inputs],
        [*parts.size.all, *budget.curve.all, budget.widths, budget.slider, money_shown], **DRAW,
    )  # fmt: skip
    drawn = gr.on(
        [ctx.selection.change, detail.how.input, over.made_by.change, *changed], draw.matrix,
        [maps_shown, ctx.selection, ctx.spot, detail.how, over.made_by, *side.inputs],
        [detail.maps, detail.text, detail.table, *detail.spectrum.all, detail.block, detail.matrix, ctx.bridge, maps_shown],
        **(DRAW | {"concurrency_limit": WAITING}),
    )  # fmt: skip
    of_group = (
        [group_shown, ctx.selection, ctx.spot, *who, *side.inputs],
        [*group.line.all, group.tile, group.facts, *detail.histogram.all, group.row, group.group, ctx.bridge, group_shown],
    )
    drawn.then(draw.group, *of_group, **DRAW)
    gr.on([ctx.spot.change, over.minus.change], draw.group, *of_group, **DRAW)
    _wire_selecting(ctx, draw, detail, group)
    _wire_computing(ctx, draw, over, timer, finished, opened_once)


def _wire_selecting(ctx: UiContext, draw: Drawing, detail: _Detail, group: _Group) -> None:
    model = ctx.sidebar.model
    both = [ctx.selection, ctx.spot]
    ctx.bridge.cell(draw.pick_cell, [ctx.selection, model], ctx.selection, **EVERY, **QUIET)
    ctx.bridge.spot(draw.pick_spot, [*both, model], both, **EVERY, **QUIET)
    pickers, numbers = [detail.block, detail.matrix], [group.row, group.group]
    gr.on([one.input for one in pickers], draw.pick_names, [*pickers, ctx.selection, model], ctx.selection, **LATEST, **QUIET)
    gr.on([one.input for one in numbers], draw.pick_numbers, [*numbers, *both, model], both, **LATEST, **QUIET)


def _wire_computing(ctx: UiContext, draw: Drawing, over: _Overview, timer: gr.Timer, finished: gr.State, opened_once: gr.State) -> None:
    side, who = ctx.sidebar, [over.made_by, over.minus]
    over.compute.click(
        guarded(draw.start), [*who, *side.inputs], [ctx.explore_id, timer, over.cancel, over.compute, over.progress], api_visibility="private"
    )
    over.cancel.click(guarded(draw.stop), ctx.explore_id, None, api_visibility="private", concurrency_limit=None)
    watched = [over.progress, timer, over.cancel, over.compute, over.pin, finished]
    over.pin.click(guarded(draw.pin), ctx.explore_id, None, api_visibility="private").then(draw.watch, ctx.explore_id, watched, **QUIET)
    timer.tick(draw.watch, ctx.explore_id, watched, **QUIET)
    offered = [side.model.input, finished.change, ctx.items["explore"].select]
    gr.on(offered, draw.subjects, [*who, side.model], who, **LATEST, **QUIET)
    ctx.load_hooks.append(
        lambda opened: (
            opened.then(draw.follow, side.model, [*who, over.metric], **QUIET)
            .then(lambda: 1, None, opened_once, **QUIET)
            .then(draw.watch, ctx.explore_id, watched, **QUIET)
        )
    )
