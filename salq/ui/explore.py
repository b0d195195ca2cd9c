"""The Explore tab: the whole model as a grid, one matrix as maps, and one selection that runs through both."""

from collections.abc import Iterator
from typing import Any

import gradio as gr
from gradio.components.plot import PlotData

from salq.core.errors import SalqError, ShapeError
from salq.figures import METRICS
from salq.runs.store import RunStore
from salq.ui import words
from salq.ui.context import Choices, UiContext, as_gr_error
from salq.ui.explore_actions import (
    LINEARS,
    POOLINGS,
    TABLE_HEADER,
    GridView,
    MatrixPicture,
    explore_request,
    grid_view,
    is_here,
    kept_picture,
    matrix_picture,
    n_blocks_of,
    selection_of,
    size_facts,
)
from salq.ui.html import facts, lede, note, progress_bar, reading, section
from salq.ui.links import COPY_LINK

Updates = list[Any]


def build(ctx: UiContext) -> None:
    """Lay the tab out and wire it."""
    first = _First(ctx)
    gr.HTML(lede(words.EXPLORE_LEDE))
    sizes = gr.HTML(first.sizes, elem_id="explore-sizes")
    with gr.Row(elem_id="explore-controls"):
        metric = gr.Radio(
            [(one.title, key) for key, one in METRICS.items()], value="weight_error", label="Colour by", info=words.METRIC_INFO,
            elem_id="explore-metric", elem_classes="salq-switch", scale=4, min_width=300,
        )  # fmt: skip
        compute = gr.Button("Compute", variant="primary", elem_id="explore-compute", scale=1, min_width=130)
        cancel = gr.Button("Cancel", visible=False, elem_id="explore-cancel", scale=1, min_width=130)
    progress = gr.HTML("", elem_id="explore-progress")
    grid_problem = gr.HTML(reading(first.grid.problem, problem=True), elem_id="explore-problem")
    grid = gr.Plot(
        plot_data(first.grid.figure), show_label=False, elem_id="explore-grid", elem_classes="salq-chart", visible=first.grid.figure is not None
    )
    grid_text = gr.HTML(reading(first.grid.reading) + note(first.grid.source), elem_id="explore-reading")
    with gr.Accordion("The grid as a table", open=False, elem_id="explore-table-fold", visible=bool(first.grid.table)) as fold:
        grid_table = gr.Dataframe(
            first.grid.table, headers=first.grid.header or ["block", *LINEARS], interactive=False, show_label=False,
            elem_id="explore-table", max_height=360,
        )  # fmt: skip

    gr.HTML(section("One matrix"))
    with gr.Row(elem_id="matrix-controls"):
        block = gr.Dropdown(
            list(range(first.n_blocks)), value=first.block, label="Block", info=words.BLOCK_INFO, elem_id="matrix-block", scale=1, min_width=120,
        )  # fmt: skip
        matrix = gr.Dropdown(
            list(LINEARS), value=first.matrix, label="Matrix", info=words.MATRIX_INFO, elem_id="matrix-name", scale=2, min_width=200
        )  # fmt: skip
        how = gr.Radio(
            list(POOLINGS), value="max", label="Pooling", info=words.POOLING_INFO, elem_id="matrix-pooling", elem_classes="salq-switch",
            scale=2, min_width=260,
        )  # fmt: skip
    matrix_text = gr.HTML(first.matrix_text, elem_id="matrix-reading")
    maps = gr.Plot(
        plot_data(first.maps.figure), show_label=False, elem_id="matrix-maps", elem_classes="salq-chart", visible=first.maps.figure is not None
    )  # fmt: skip
    gr.HTML(note(words.MAPS_HINT))
    with gr.Accordion("The maps in numbers", open=False, elem_id="matrix-table-fold"):
        matrix_table = gr.Dataframe(first.maps.table, headers=TABLE_HEADER, interactive=False, show_label=False, elem_id="matrix-table")
    with gr.Row():
        link = gr.Button("Copy a link to this view", size="sm", elem_id="explore-link", scale=0, min_width=220)
    timer = gr.Timer(1.0, active=False)
    finished = gr.State("")

    store, sidebar = ctx.store, ctx.sidebar
    grid_outputs = [grid, grid_text, grid_problem, grid_table, fold, sizes]
    matrix_outputs = [maps, matrix_text, matrix_table, block, matrix, ctx.bridge]
    quiet = {"api_visibility": "private", "show_progress": "hidden"}
    minimal = {"api_visibility": "private", "show_progress": "minimal", "concurrency_limit": 4}

    def draw_grid(metric_key: str, *values: Any) -> Updates:
        return _grid_updates(store, metric_key, values)

    def draw_first_grid(metric_key: str, *values: Any) -> Updates:
        return _unless_shown(_grid_updates(store, metric_key, values), first.grid.figure)

    def draw_matrix(selection: dict[str, Any], pooling: str, *values: Any) -> Iterator[Updates]:
        if isinstance(values[0], str) and not is_here(values[0]):
            yield [gr.skip(), reading(words.FETCHING.format(model=values[0])), *[gr.skip()] * 4]
        yield _matrix_updates(store, selection, pooling, values)

    def draw_first_matrix(selection: dict[str, Any], pooling: str, *values: Any) -> Updates:
        kept_is_shown = selection == {"block": first.block, "matrix": first.matrix} and first.maps.figure is not None
        if not is_here(values[0]):
            return [gr.skip(), gr.skip() if kept_is_shown else reading(words.NOT_FETCHED), *[gr.skip()] * 3, selection]
        return _unless_shown(_matrix_updates(store, selection, pooling, values), first.maps.figure)

    def pick_cell(event: gr.EventData, current: dict[str, Any], model: str) -> Any:
        chosen = selection_of(getattr(event, "block", None), getattr(event, "matrix", None), n_blocks_of(model) or 1)
        return gr.skip() if chosen is None or chosen == current else chosen

    def pick_names(block_value: Any, matrix_value: Any, current: dict[str, Any], model: str) -> Any:
        chosen = selection_of(block_value, matrix_value, n_blocks_of(model) or 1)
        return gr.skip() if chosen is None or chosen == current else chosen

    @as_gr_error
    def start(*values: Any) -> Updates:
        from salq.runs import worker

        request = explore_request(Choices.of(*values), ctx.limits)
        run_id = store.create(request)
        worker.start(store, run_id)
        return [run_id, gr.Timer(active=True), gr.Button(visible=True), gr.Button(interactive=False), reading("Started; the page may be closed.")]

    def watch(run_id: str) -> Updates:
        return _watch(store, run_id)

    @as_gr_error
    def stop(run_id: str) -> None:
        if run_id:
            store.cancel(run_id)

    drawn_by = [sidebar.model, sidebar.bits, sidebar.group_size, sidebar.symmetric]
    inputs = [metric, *sidebar.inputs]
    metric.input(draw_grid, inputs, grid_outputs, **minimal)
    gr.on([one.input for one in drawn_by], draw_grid, inputs, grid_outputs, trigger_mode="always_last", **minimal).then(
        draw_matrix, [ctx.selection, how, *sidebar.inputs], matrix_outputs, **minimal
    )
    gr.on(
        [ctx.selection.change, how.input], draw_matrix, [ctx.selection, how, *sidebar.inputs], matrix_outputs, trigger_mode="always_last", **minimal
    )
    ctx.bridge.cell(pick_cell, [ctx.selection, sidebar.model], ctx.selection, trigger_mode="always_last", **quiet)
    gr.on([block.input, matrix.input], pick_names, [block, matrix, ctx.selection, sidebar.model], ctx.selection, trigger_mode="always_last", **quiet)
    compute.click(start, sidebar.inputs, [ctx.explore_id, timer, cancel, compute, progress], api_visibility="private")
    cancel.click(stop, ctx.explore_id, None, queue=False, api_visibility="private")
    watched = [progress, timer, cancel, compute, finished]
    timer.tick(watch, ctx.explore_id, watched, concurrency_limit=None, **quiet)
    finished.change(draw_grid, inputs, grid_outputs, **minimal).then(draw_matrix, [ctx.selection, how, *sidebar.inputs], matrix_outputs, **minimal)
    link.click(None, [sidebar.model, sidebar.bits, ctx.selection, ctx.run_id], None, js=COPY_LINK)

    def on_load(opened: Any) -> None:
        opened.then(draw_first_grid, inputs, grid_outputs, **quiet).then(
            draw_first_matrix, [ctx.selection, how, *sidebar.inputs], matrix_outputs, **quiet
        ).then(watch, ctx.explore_id, watched, **quiet)

    ctx.load_hooks.append(on_load)


class _First:
    """What the tab shows before any event: computed once, when the page is built, from what is on disk."""

    def __init__(self, ctx: UiContext) -> None:
        choices = Choices(ctx.default_model, 3, 64, False, "auto", "auto")
        self.block, self.matrix = ctx.selection.value["block"], ctx.selection.value["matrix"]
        self.n_blocks = max(n_blocks_of(ctx.default_model), 1)
        self.grid = _safe_grid(ctx.store, "weight_error", choices)
        self.maps = kept_picture(choices, self.block, self.matrix)
        self.matrix_text = _matrix_html(self.maps)
        self.sizes = _sizes_html(choices)


def plot_data(figure: str | None) -> PlotData | None:
    """A figure's JSON as the plot component takes it."""
    return None if figure is None else PlotData(type="plotly", plot=figure)


def _plot(figure: str | None) -> Any:
    return gr.update(value=plot_data(figure), visible=figure is not None)


def _unless_shown(updates: Updates, figure: str | None) -> Updates:
    """The updates of the first drawing without a figure that the page came with: the browser need not draw it twice."""
    value = updates[0].get("value") if isinstance(updates[0], dict) else None
    if value is not None and value.plot == figure:
        updates[0] = gr.skip()
    return updates


def _grid_updates(store: RunStore, metric_key: str, values: tuple[Any, ...]) -> Updates:
    try:
        choices = Choices.of(*values)
        view = grid_view(store, choices, metric_key)
    except SalqError as error:
        return [_plot(None), "", reading(str(error), problem=True), gr.skip(), gr.Accordion(visible=False), ""]
    table = gr.Dataframe(value=view.table, headers=view.header) if view.table else gr.skip()
    told = [reading(view.reading) + note(view.source), reading(view.problem, problem=True)]
    return [_plot(view.figure), *told, table, gr.Accordion(visible=bool(view.table)), _sizes_html(choices)]


def _matrix_updates(store: RunStore, selection: dict[str, Any], pooling: str, values: tuple[Any, ...]) -> Updates:
    block, matrix = selection["block"], selection["matrix"]
    try:
        choices = Choices.of(*values)
        count = n_blocks_of(choices.model)
        block = min(block, count - 1) if count else block
        picture = matrix_picture(store, choices, block, matrix, pooling)
    except SalqError as error:
        return [_plot(None), reading(str(error), problem=True), [], gr.skip(), gr.skip(), gr.skip()]
    pickers = [gr.Dropdown(choices=list(range(count or block + 1)), value=block), gr.Dropdown(value=matrix)]
    return [_plot(picture.figure), _matrix_html(picture), picture.table, *pickers, {"block": block, "matrix": matrix}]


def _watch(store: RunStore, run_id: str) -> Updates:
    """Progress of the visitor's exploration; the last value changes once when it ends, which redraws what it computed."""
    idle = [gr.Timer(active=False), gr.Button(visible=False), gr.Button(interactive=True)]
    try:
        info = store.get(run_id) if run_id else None
    except SalqError:
        info = None
    if info is None:
        return ["", *idle, ""]
    if info.is_active:
        label = "Computing" if info.status == "running" else f"Waiting for {info.position or 0} other run(s)"
        return [progress_bar(label, info.progress), gr.Timer(active=True), gr.Button(visible=True), gr.Button(interactive=False), gr.skip()]
    failed = info.status != "done"
    text = reading(info.problem or f"The exploration ended: {info.status}.", problem=True) if failed else ""
    return [text, *idle, f"{run_id} {info.status}"]


def _safe_grid(store: RunStore, metric: str, choices: Choices) -> GridView:
    try:
        return grid_view(store, choices, metric)
    except SalqError as error:
        return GridView(None, "", "", str(error), [], [])


def _matrix_html(picture: MatrixPicture) -> str:
    return facts(picture.facts) + reading(picture.reading) + note(picture.problem)


def _sizes_html(choices: Choices) -> str:
    """Bits per weight and megabytes, or why this grid does not fit the model."""
    try:
        return facts(size_facts(choices))
    except ShapeError as error:
        return reading(str(error), problem=True)
    except (SalqError, KeyError):
        return ""  # a model that is not here yet: its size is not known
