"""What happens in Explore, as Gradio updates: drawing, selecting, computing. Layout and wiring are in `explore`."""

from collections.abc import Iterator
from typing import Any

import gradio as gr

from salq.core.errors import SalqError
from salq.runs.reducer import Reducer
from salq.ui import words
from salq.ui.context import Choices, UiContext, as_gr_error
from salq.ui.explore_actions import (
    NotReducedError,
    config_or_none,
    explore_request,
    is_here,
    kept_picture,
    matrix_picture,
    n_blocks_of,
    selection_of,
)
from salq.ui.explore_charts import NO_BUDGET, NO_CHART, Chart, depth_chart, made_by_note, money_charts
from salq.ui.explore_grid import grid_view
from salq.ui.explore_group import GroupPicture, group_of, group_picture, kept_group_picture
from salq.ui.explore_shown import digest, group_html, matrix_html, not_fetched, panel_updates, plot_update, sizes_html, unless
from salq.ui.explore_subject import NOTHING, ROUNDING, measured, run_of, subjects
from salq.ui.html import note, progress_bar, reading
from salq.ui.links import read_link
from salq.ui.runs_actions import pin_words
from salq.ui.status import waiting

Updates = list[Any]
Selection = dict[str, Any]

MOST_REDUCTIONS = 2
"""A model that is fetched may turn out to have fewer blocks than were asked for: then its last one is reduced instead."""


class Drawing:
    """The tab's event handlers. Figures that the visitor's browser shows already (by their digest) are not sent again."""

    def __init__(self, ctx: UiContext) -> None:
        """Keeps the context; every handler reads the run store anew."""
        self._store, self._limits = ctx.store, ctx.limits
        self._ctx = ctx
        self._reducer = Reducer()

    def grid(self, shown: str, metric: str, made_by: str, minus: str, *values: Any) -> Updates:
        """[grid, reading, problem, table, table's fold, sizes, digest]."""
        try:
            choices = Choices.of(*values)
            self._limits.check_model(choices.model)
            view = grid_view(self._store, choices, metric, made_by, minus)
        except SalqError as error:
            return [plot_update(None), "", reading(str(error), problem=True), gr.skip(), gr.Accordion(visible=False), "", ""]
        table = gr.Dataframe(value=view.table, headers=view.header) if view.table else gr.skip()
        told = [reading(view.reading) + note(view.source), reading(view.problem, problem=True)]
        return [unless(shown, view.figure), *told, table, gr.Accordion(visible=bool(view.table)), sizes_html(choices), digest(view.figure)]

    def depth(self, shown: str, selection: Selection, made_by: str, minus: str, *values: Any) -> Updates:
        """[depth's panel, digest]."""
        try:
            choices = Choices.of(*values)
            self._limits.check_model(choices.model)
            chart = depth_chart(self._store, choices, made_by, minus, selection["block"])
        except SalqError as error:
            chart = Chart(problem=str(error))
        return [*panel_updates(shown, chart), digest(chart.figure)]

    def money(self, shown: list[str], megabytes: float, made_by: str, minus: str, *values: Any) -> Updates:
        """[size's panel, budget's panel, width grid, slider, digests]: what the whole model takes, and what a budget would buy."""
        try:
            choices = Choices.of(*values)
            self._limits.check_model(choices.model)
            size, budget = money_charts(self._store, choices, config_or_none(choices.model), made_by, minus, megabytes)
        except SalqError as error:
            size, budget = Chart(problem=str(error)), NO_BUDGET
        figures = [size.figure, budget.curve.figure, budget.grid]
        before = [*shown, *[""] * 3][:3]
        panels = [*panel_updates(before[0], size), *panel_updates(before[1], budget.curve)]
        low = round(budget.low, 1)
        slider = gr.Slider(minimum=low, maximum=max(round(budget.high, 1), low + 1), value=round(budget.mb, 1))
        return [*panels, unless(before[2], budget.grid), slider, [digest(one) for one in figures]]

    def matrix(self, shown: str, selection: Selection, spot: Selection, pooling: str, made_by: str, *values: Any) -> Iterator[Updates]:
        """[maps, reading, table, spectrum's panel, block picker, matrix picker, bridge, digest]; fetches a model only when asked to.

        What is not on disk yet is made in a process of its own, and said meanwhile.
        """
        try:
            choices = Choices.of(*values)
            self._limits.check_model(choices.model)
            if not is_here(choices.model):
                if selection.get("asked") != choices.model:
                    yield self._not_fetched(choices, selection)
                    return
                yield [gr.skip(), reading(words.FETCHING.format(model=choices.short_model)), *[gr.skip()] * 8]
            place = {**selection, **spot}
            for _ in range(MOST_REDUCTIONS):
                try:
                    yield self._matrix(shown, choices, place, pooling, made_by)
                    return
                except NotReducedError as missing:
                    wanted = missing.wanted
                if is_here(choices.model):
                    yield [gr.skip(), reading(words.BEING_REDUCED), *[gr.skip()] * 8]
                self._reducer.reduce(wanted)
            yield self._matrix(shown, choices, place, pooling, made_by)
        except SalqError as error:
            yield [plot_update(None), reading(str(error), problem=True), [], *panel_updates("", NO_CHART), *[gr.skip()] * 3, ""]

    def _matrix(self, shown: str, choices: Choices, selection: Selection, pooling: str, made_by: str) -> Updates:
        block, matrix, count = selection["block"], selection["matrix"], n_blocks_of(choices.model)
        block = min(block, count - 1) if count else block
        picture = matrix_picture(self._store, choices, block, matrix, pooling, made_by)
        pickers = [gr.Dropdown(choices=list(range(count or block + 1)), value=block), gr.Dropdown(value=matrix)]
        drawn = digest(picture.figure)
        spectrum = [gr.skip()] * 3 if drawn and drawn == shown else panel_updates("", picture.spectrum)
        text = matrix_html(picture, made_by_note(self._store, choices, made_by))
        place = {"block": block, "matrix": matrix, "row": selection["row"], "group": selection["group"]}
        return [unless(shown, picture.figure), text, picture.table, *spectrum, *pickers, place, drawn]

    def _not_fetched(self, choices: Choices, selection: Selection) -> Updates:
        """The model is not on this machine and nobody asked for it: what is kept of it, or how to get it."""
        kept = kept_picture(choices, selection["block"], selection["matrix"])
        count = n_blocks_of(choices.model)
        pickers = [gr.Dropdown(choices=list(range(count))) if count else gr.skip(), gr.skip()]
        text = matrix_html(kept) if kept.figure else reading(not_fetched(choices))
        return [plot_update(kept.figure), text, kept.table, *panel_updates("", kept.spectrum), *pickers, gr.skip(), digest(kept.figure)]

    def group(self, shown: list[str], selection: Selection, spot: Selection, made_by: str, minus: str, *values: Any) -> Updates:
        """[number line's panel, tile, facts, histogram's panel, row, group, bridge, digests]; what the last handler fetched is here by now."""
        try:
            choices = Choices.of(*values)
            self._limits.check_model(choices.model)
            count = n_blocks_of(choices.model)
            selection = {**selection, **spot, "block": min(selection["block"], count - 1) if count else selection["block"]}
            if is_here(choices.model):
                picture = group_picture(self._store, choices, selection, made_by, minus)
            else:
                picture = kept_group_picture(choices, selection)
        except SalqError as error:
            picture = GroupPicture(Chart(problem=str(error)))
        before = [*shown, *[""] * 3][:3]
        figures = [picture.line.figure, picture.tile, picture.histogram.figure]
        numbers, place = [gr.skip(), gr.skip()], gr.skip()
        if picture.rows:
            numbers = [picture.row, picture.group]
            place = {**selection, "row": picture.row, "group": picture.group}
        line, histogram = panel_updates(before[0], picture.line), panel_updates(before[2], picture.histogram)
        return [*line, unless(before[1], picture.tile), group_html(picture), *histogram, *numbers, place, [digest(one) for one in figures]]

    def pick_cell(self, event: gr.EventData, current: Selection, model: str) -> Any:
        """The selection after a click or a key on the grid; what the browser sends may be anything."""
        return _picked(getattr(event, "block", None), getattr(event, "matrix", None), current, model)

    def pick_spot(self, event: gr.EventData, selection: Selection, spot: Selection, model: str) -> Updates:
        """[selection, spot] after a click or a key on the maps of a matrix; what the browser sends may be anything."""
        return self.pick_numbers(getattr(event, "row", None), getattr(event, "group", None), selection, spot, model)

    def pick_names(self, block: Any, matrix: Any, current: Selection, model: str) -> Any:
        """The selection after a change of the pickers."""
        return _picked(block, matrix, current, model)

    def pick_numbers(self, row: Any, group: Any, selection: Selection, spot: Selection, model: str) -> Updates:
        """[selection, spot] after a change of row or group, clipped to the matrix when drawn; the selection asks for a model that is not here."""
        found = group_of(row, group)
        if found is None:
            return [gr.skip(), gr.skip()]
        wanted = gr.skip() if is_here(str(model)) else {**selection, "asked": model}
        return [wanted, gr.skip() if found == spot else found]

    def subjects(self, made_by: str, minus: str, model: str) -> Updates:
        """[A's picker, B's picker]: what can be looked at now; what is gone gives way to rounding, or to nothing."""
        try:
            self._limits.check_model(model)
            found = subjects(self._store, model)
        except SalqError:
            found = [("rounding to nearest", ROUNDING)]
        known = [value for _, value in found]
        # The value is left alone while it exists: a link may be setting it at this moment.
        gone = [{} if made_by in known else {"value": ROUNDING}, {} if minus in {NOTHING, *known} else {"value": NOTHING}]
        return [gr.Dropdown(choices=found, **gone[0]), gr.Dropdown(choices=[("nothing", NOTHING), *found], **gone[1])]

    def follow(self, request: gr.Request, model: str) -> Updates:
        """[A's picker, B's picker, metric] of the link that opened the page; the page says what of it cannot be found."""
        link = read_link(dict(request.query_params), self._store, default_model=self._ctx.default_model, public=self._ctx.public)
        try:
            found = subjects(self._store, model)
        except SalqError:
            found = [("rounding to nearest", ROUNDING)]
        one = gr.Dropdown(choices=found, value=link.made_by or ROUNDING)
        return [one, gr.Dropdown(choices=[("nothing", NOTHING), *found], value=link.minus or NOTHING), link.value or gr.skip()]

    def start(self, made_by: str, minus: str, *values: Any) -> Updates:
        """Start an exploration: [run id, timer, cancel button, compute button, progress]; a calibration that was picked is measured too."""
        from salq.runs import worker
        from salq.runs.plan import exploring_seconds

        choices = Choices.of(*values)
        picked = [info for info in (run_of(self._store, choices.model, one) for one in (made_by, minus)) if info is not None]
        wanted = [info.id for info in picked if measured(self._store, choices.model, info.id, "output_error", "") is None]
        request = explore_request(choices, self._limits, next(iter(wanted), None))
        config = config_or_none(choices.model)
        seconds = None if config is None else exploring_seconds(request, config)
        run_id = self._store.create(request)
        if seconds is not None:  # so that those who wait behind it know for how long
            self._store.expect(run_id, seconds)
        worker.start(self._store, run_id)
        return [run_id, gr.Timer(active=True), gr.Button(visible=True), gr.Button(interactive=False), reading(words.STARTED)]

    def stop(self, run_id: str) -> None:
        """Ask the visitor's exploration to stop."""
        if run_id:
            self._store.cancel(run_id)

    def pin(self, run_id: str) -> None:
        """Pin the visitor's exploration, or pin it no longer."""
        self._store.pin(run_id, pinned=not self._store.get(run_id).pinned)

    def watch(self, run_id: str) -> Updates:
        """[progress, timer, cancel, compute, pin, finished]; `finished` changes once when the run ends, which redraws what it computed."""
        try:
            info = self._store.get(run_id) if run_id else None
        except SalqError:
            info = None
        if info is None:
            return ["", gr.Timer(active=False), gr.Button(visible=False), gr.Button(interactive=True), gr.Button(visible=False), ""]
        pin = gr.Button(words.UNPIN_EXPLORED if info.pinned else words.PIN_EXPLORED, visible=not self._ctx.public)
        meaning = note(pin_words(info.pinned)) if info.pinned else ""
        if info.is_active:
            own = self._store.may_change(run_id)
            text = progress_bar("Computing", info.progress) if info.status == "running" else reading(f"This computation is {waiting(info)}.")
            return [text + meaning, gr.Timer(active=True), gr.Button(visible=own), gr.Button(interactive=False), pin, gr.skip()]
        text = "" if info.status == "done" else reading(info.problem or f"The exploration ended: {info.status}.", problem=True)
        idle = [gr.Timer(active=False), gr.Button(visible=False), gr.Button(interactive=True)]
        return [text + meaning, *idle, pin, f"{run_id} {info.status}"]


def guarded(handler: Any) -> Any:
    """A bound handler whose SalqError becomes the page's red note."""

    @as_gr_error
    def call(*values: Any) -> Any:
        return handler(*values)

    return call


def _picked(block: Any, matrix: Any, current: Selection, model: Any) -> Any:
    chosen = selection_of(block, matrix, n_blocks_of(str(model)))
    if chosen is None:
        return gr.skip()
    asked = {**chosen, "asked": model}
    return gr.skip() if asked == current else asked
