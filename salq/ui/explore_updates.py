"""What happens in Explore, as Gradio updates: drawing, selecting, computing. Layout and wiring are in `explore`."""

import hashlib
from collections.abc import Iterator
from typing import Any

import gradio as gr
from gradio.components.plot import PlotData

from salq.core.errors import SalqError, ShapeError
from salq.models.catalogue import CATALOGUE
from salq.runs.store import RunStore
from salq.ui import words
from salq.ui.context import Choices, UiContext, as_gr_error
from salq.ui.explore_actions import (
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
from salq.ui.html import facts, note, progress_bar, reading

Updates = list[Any]
Selection = dict[str, Any]

FIRST_METRIC = "output_error"
"""It differs most between matrices: the same rounding hurts some a lot and others hardly."""


class First:
    """What the tab shows before any event: computed once, when the page is built, from what is on disk."""

    def __init__(self, ctx: UiContext) -> None:
        """Reads the run store and the kept results; fetches nothing."""
        choices = Choices(ctx.default_model, 3, 64, False, "auto", "auto")
        self.block, self.matrix = ctx.selection.value["block"], ctx.selection.value["matrix"]
        self.n_blocks = max(n_blocks_of(ctx.default_model), 1)
        self.grid = _safe_grid(ctx.store, FIRST_METRIC, choices)
        self.maps = kept_picture(choices, self.block, self.matrix)
        self.matrix_text = matrix_html(self.maps)
        self.sizes = sizes_html(choices)


class Drawing:
    """The tab's event handlers. Figures that the visitor's browser shows already (by their digest) are not sent again."""

    def __init__(self, ctx: UiContext) -> None:
        """Keeps the context; every handler reads the run store anew."""
        self._store, self._limits = ctx.store, ctx.limits

    def grid(self, shown: str, metric: str, *values: Any) -> Updates:
        """[grid, reading, problem, table, table's fold, sizes, digest]."""
        try:
            choices = Choices.of(*values)
            self._limits.check_model(choices.model)
            view = grid_view(self._store, choices, metric)
        except SalqError as error:
            return [plot_update(None), "", reading(str(error), problem=True), gr.skip(), gr.Accordion(visible=False), "", ""]
        table = gr.Dataframe(value=view.table, headers=view.header) if view.table else gr.skip()
        told = [reading(view.reading) + note(view.source), reading(view.problem, problem=True)]
        drawn = digest(view.figure)
        figure = gr.skip() if drawn and drawn == shown else plot_update(view.figure)
        return [figure, *told, table, gr.Accordion(visible=bool(view.table)), sizes_html(choices), drawn]

    def matrix(self, shown: str, selection: Selection, pooling: str, *values: Any) -> Iterator[Updates]:
        """[maps, reading, table, block picker, matrix picker, bridge, digest]; fetches a model only when its matrix was asked for."""
        try:
            choices = Choices.of(*values)
            self._limits.check_model(choices.model)
            if not is_here(choices.model):
                if selection.get("asked") != choices.model:
                    yield self._not_fetched(choices, selection)
                    return
                yield [gr.skip(), reading(words.FETCHING.format(model=choices.short_model)), *[gr.skip()] * 5]
            yield self._matrix(shown, choices, selection, pooling)
        except SalqError as error:
            yield [plot_update(None), reading(str(error), problem=True), [], gr.skip(), gr.skip(), gr.skip(), ""]

    def _matrix(self, shown: str, choices: Choices, selection: Selection, pooling: str) -> Updates:
        block, matrix, count = selection["block"], selection["matrix"], n_blocks_of(choices.model)
        block = min(block, count - 1) if count else block
        picture = matrix_picture(self._store, choices, block, matrix, pooling)
        pickers = [gr.Dropdown(choices=list(range(count or block + 1)), value=block), gr.Dropdown(value=matrix)]
        drawn = digest(picture.figure)
        figure = gr.skip() if drawn and drawn == shown else plot_update(picture.figure)
        return [figure, matrix_html(picture), picture.table, *pickers, {"block": block, "matrix": matrix}, drawn]

    def _not_fetched(self, choices: Choices, selection: Selection) -> Updates:
        """The model is not on this machine and nobody asked for it: what is kept of it, or how to get it."""
        kept = kept_picture(choices, selection["block"], selection["matrix"])
        count = n_blocks_of(choices.model)
        pickers = [gr.Dropdown(choices=list(range(count))) if count else gr.skip(), gr.skip()]
        text = matrix_html(kept) if kept.figure else reading(not_fetched(choices))
        return [plot_update(kept.figure), text, kept.table, *pickers, gr.skip(), digest(kept.figure)]

    def pick_cell(self, event: gr.EventData, current: Selection, model: str) -> Any:
        """The selection after a click or a key on the grid; what the browser sends may be anything."""
        return _picked(getattr(event, "block", None), getattr(event, "matrix", None), current, model)

    def pick_names(self, block: Any, matrix: Any, current: Selection, model: str) -> Any:
        """The selection after a change of the pickers."""
        return _picked(block, matrix, current, model)

    def start(self, *values: Any) -> Updates:
        """Start an exploration: [run id, timer, cancel button, compute button, progress]."""
        from salq.runs import worker

        request = explore_request(Choices.of(*values), self._limits)
        run_id = self._store.create(request)
        worker.start(self._store, run_id)
        return [run_id, gr.Timer(active=True), gr.Button(visible=True), gr.Button(interactive=False), reading(words.STARTED)]

    def stop(self, run_id: str) -> None:
        """Ask the visitor's exploration to stop."""
        if run_id:
            self._store.cancel(run_id)

    def watch(self, run_id: str) -> Updates:
        """[progress, timer, cancel, compute, finished]; `finished` changes once when the run ends, which redraws what it computed."""
        idle = [gr.Timer(active=False), gr.Button(visible=False), gr.Button(interactive=True)]
        try:
            info = self._store.get(run_id) if run_id else None
        except SalqError:
            info = None
        if info is None:
            return ["", *idle, ""]
        if info.is_active:
            label = "Computing" if info.status == "running" else f"Waiting for {info.position or 0} other run(s)"
            return [progress_bar(label, info.progress), gr.Timer(active=True), gr.Button(visible=True), gr.Button(interactive=False), gr.skip()]
        text = "" if info.status == "done" else reading(info.problem or f"The exploration ended: {info.status}.", problem=True)
        return [text, *idle, f"{run_id} {info.status}"]


def guarded(handler: Any) -> Any:
    """A bound handler whose SalqError becomes the page's red note."""

    @as_gr_error
    def call(*values: Any) -> Any:
        return handler(*values)

    return call


def plot_data(figure: str | None) -> PlotData | None:
    """A figure's JSON as the plot component takes it."""
    return None if figure is None else PlotData(type="plotly", plot=figure)


def plot_update(figure: str | None) -> Any:
    """The plot with this figure; hidden without one."""
    return gr.update(value=plot_data(figure), visible=figure is not None)


def digest(figure: str | None) -> str:
    """Short name of a figure's content; "" for none."""
    return "" if figure is None else hashlib.sha256(figure.encode()).hexdigest()[:16]


def matrix_html(picture: MatrixPicture) -> str:
    """What is said above the maps."""
    return facts(picture.facts) + reading(picture.reading) + note(picture.problem)


def sizes_html(choices: Choices) -> str:
    """Bits per weight and megabytes, or why this grid does not fit the model; empty for a model that is not here yet."""
    try:
        return facts(size_facts(choices))
    except ShapeError as error:
        return reading(str(error), problem=True)
    except (SalqError, KeyError):
        return ""


def not_fetched(choices: Choices) -> str:
    """How to get the model's weights, and how much that is when it is known."""
    entry = CATALOGUE.get(choices.model)
    size = f" (about {entry.memory_gb(2):.1f} GB)" if entry is not None else ""
    return words.NOT_FETCHED.format(model=choices.short_model, size=size)


def _picked(block: Any, matrix: Any, current: Selection, model: Any) -> Any:
    chosen = selection_of(block, matrix, n_blocks_of(str(model)))
    if chosen is None:
        return gr.skip()
    asked = chosen | {"asked": model}
    return gr.skip() if asked == current else asked


def _safe_grid(store: RunStore, metric: str, choices: Choices) -> GridView:
    try:
        return grid_view(store, choices, metric)
    except SalqError as error:
        return GridView(None, "", "", str(error), [], [])
