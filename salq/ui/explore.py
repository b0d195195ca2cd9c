"""The Explore tab: the whole model as a grid, one matrix as maps, and one selection that runs through both."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from salq.figures import METRICS
from salq.ui import words
from salq.ui.context import UiContext
from salq.ui.explore_actions import LINEARS, POOLINGS, TABLE_HEADER
from salq.ui.explore_updates import FIRST_METRIC, Drawing, First, digest, guarded, plot_data
from salq.ui.html import lede, note, reading, section
from salq.ui.links import COPY_LINK

__all__ = ["build", "plot_data"]

QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
DRAW: dict[str, Any] = {"api_visibility": "private", "show_progress": "minimal", "concurrency_limit": 4, "trigger_mode": "always_last"}


def build(ctx: UiContext) -> None:
    """Lay the tab out and wire it."""
    first = First(ctx)
    gr.HTML(lede(words.EXPLORE_LEDE))
    overview, detail = _build_overview(first), _build_detail(first)
    with gr.Row():
        link = gr.Button("Copy a link to this view", size="sm", elem_id="explore-link", scale=0, min_width=220)
    link.click(None, [ctx.sidebar.model, ctx.sidebar.bits, ctx.selection, ctx.run_id], None, js=COPY_LINK)
    _wire(ctx, overview, detail, first)


@dataclass(frozen=True)
class _Overview:
    sizes: gr.HTML
    metric: gr.Radio
    compute: gr.Button
    cancel: gr.Button
    progress: gr.HTML
    problem: gr.HTML
    grid: gr.Plot
    text: gr.HTML
    fold: gr.Accordion
    table: gr.Dataframe


@dataclass(frozen=True)
class _Detail:
    block: gr.Dropdown
    matrix: gr.Dropdown
    how: gr.Radio
    text: gr.HTML
    maps: gr.Plot
    table: gr.Dataframe


def _build_overview(first: First) -> _Overview:
    sizes = gr.HTML(first.sizes, elem_id="explore-sizes")
    with gr.Row(elem_id="explore-controls"):
        metric = gr.Radio(
            [(one.title, key) for key, one in METRICS.items()], value=FIRST_METRIC, label="Colour by", info=words.METRIC_INFO,
            elem_id="explore-metric", elem_classes="salq-switch", scale=4, min_width=300,
        )  # fmt: skip
        compute = gr.Button("Compute", variant="primary", elem_id="explore-compute", scale=1, min_width=130)
        cancel = gr.Button("Cancel", visible=False, elem_id="explore-cancel", scale=1, min_width=130)
    progress = gr.HTML("", elem_id="explore-progress")
    problem = gr.HTML(reading(first.grid.problem, problem=True), elem_id="explore-problem")
    grid = gr.Plot(
        plot_data(first.grid.figure), show_label=False, elem_id="explore-grid", elem_classes="salq-chart", visible=first.grid.figure is not None
    )  # fmt: skip
    text = gr.HTML(reading(first.grid.reading) + note(first.grid.source), elem_id="explore-reading")
    with gr.Accordion("The grid as a table", open=False, elem_id="explore-table-fold", visible=bool(first.grid.table)) as fold:
        table = gr.Dataframe(
            first.grid.table, headers=first.grid.header or ["block", *LINEARS], interactive=False, show_label=False, elem_id="explore-table",
            max_height=360,
        )  # fmt: skip
    return _Overview(sizes, metric, compute, cancel, progress, problem, grid, text, fold, table)


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
    maps = gr.Plot(
        plot_data(first.maps.figure), show_label=False, elem_id="matrix-maps", elem_classes="salq-chart", visible=first.maps.figure is not None
    )  # fmt: skip
    gr.HTML(note(words.MAPS_HINT))
    with gr.Accordion("The maps in numbers", open=False, elem_id="matrix-table-fold"):
        table = gr.Dataframe(first.maps.table, headers=TABLE_HEADER, interactive=False, show_label=False, elem_id="matrix-table")
    return _Detail(block, matrix, how, text, maps, table)


def _wire(ctx: UiContext, over: _Overview, detail: _Detail, first: First) -> None:
    """Everything that changes a picture goes through one event per picture, so that the last of several quick changes wins."""
    draw, side = Drawing(ctx), ctx.sidebar
    timer, finished, opened_once = gr.Timer(1.0, active=False), gr.State(""), gr.State(0)
    grid_shown, maps_shown = gr.State(digest(first.grid.figure)), gr.State(digest(first.maps.figure))
    changed = [side.model.input, side.bits.input, side.group_size.input, side.symmetric.input, finished.change, opened_once.change]
    gr.on(
        [over.metric.input, *changed], draw.grid, [grid_shown, over.metric, *side.inputs],
        [over.grid, over.text, over.problem, over.table, over.fold, over.sizes, grid_shown], **DRAW,
    )  # fmt: skip
    gr.on(
        [ctx.selection.change, detail.how.input, *changed], draw.matrix, [maps_shown, ctx.selection, detail.how, *side.inputs],
        [detail.maps, detail.text, detail.table, detail.block, detail.matrix, ctx.bridge, maps_shown], **DRAW,
    )  # fmt: skip
    ctx.bridge.cell(draw.pick_cell, [ctx.selection, side.model], ctx.selection, trigger_mode="always_last", **QUIET)
    pickers = [detail.block, detail.matrix]
    gr.on([one.input for one in pickers], draw.pick_names, [*pickers, ctx.selection, side.model], ctx.selection, trigger_mode="always_last", **QUIET)
    over.compute.click(guarded(draw.start), side.inputs, [ctx.explore_id, timer, over.cancel, over.compute, over.progress], api_visibility="private")
    over.cancel.click(guarded(draw.stop), ctx.explore_id, None, queue=False, api_visibility="private")
    watched = [over.progress, timer, over.cancel, over.compute, finished]
    timer.tick(draw.watch, ctx.explore_id, watched, concurrency_limit=None, **QUIET)
    ctx.load_hooks.append(lambda opened: opened.then(lambda: 1, None, opened_once, **QUIET).then(draw.watch, ctx.explore_id, watched, **QUIET))
