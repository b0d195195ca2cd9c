"""The Runs tab: every run as a point and as a row; open, resume, cancel, delete, link, and sweeps that fill the chart."""

import json
from typing import Any

import gradio as gr

from salq.core.errors import ConfigError
from salq.ui import verdict, words
from salq.ui.context import BITS, GROUP_SIZES, WHOLE_ROW, Choices, UiContext, as_gr_error
from salq.ui.explore_shown import digest, plot_data
from salq.ui.html import lede, note, reading, section
from salq.ui.links import COPY_RUN_LINK
from salq.ui.listening import EVERY, LATEST, QUIET
from salq.ui.runs_actions import HEADER, QUALITY, Picked, RunsView, picked, runs_view, start_sweep, sweep_requests

RECIPES = ("rtn", "apiq", "sapr", "salq", "salq-full")
WIDTHS = ["220px", "190px", "130px", "105px", "130px", "110px", "100px", "75px", "105px", "150px"]
PRESETS = ("quick", "base", "published")


def build(ctx: UiContext) -> None:
    """Lay the tab out and wire it."""
    first = runs_view(ctx.store, ctx.default_model, "perplexity")
    gr.HTML(lede(words.RUNS_LEDE))
    quality = gr.Radio(
        [(label, key) for key, label in QUALITY.items()], value="perplexity", label="Quality", info=words.RUNS_QUALITY_INFO,
        elem_id="runs-quality", elem_classes="salq-switch",
    )  # fmt: skip
    chart = gr.Plot(plot_data(first.figure), show_label=False, elem_id="trade-off", elem_classes="salq-chart")
    summary = gr.HTML(_summary(first), elem_id="runs-reading")
    table = gr.Dataframe(
        first.table, headers=HEADER, column_widths=WIDTHS, interactive=False, show_label=False, elem_id="runs-table", max_height=420
    )  # fmt: skip
    with gr.Row(elem_id="runs-controls"):
        picker = gr.Dropdown(first.choices, value=None, label="Run", info=words.RUN_INFO, elem_id="runs-picker", scale=3, min_width=260)
        opened = gr.Button("Open", variant="primary", elem_id="runs-open", scale=1, min_width=100)
        resume = gr.Button("Resume", elem_id="runs-resume", scale=1, min_width=100)
        cancel = gr.Button("Cancel", elem_id="runs-cancel", scale=1, min_width=100)
        delete = gr.Button("Delete", elem_id="runs-delete", scale=1, min_width=100, visible=not ctx.public)
        pin = gr.Button(words.PIN, elem_id="runs-pin", scale=1, min_width=100, visible=not ctx.public)
        link = gr.Button("Copy link", elem_id="runs-link", scale=1, min_width=100)
    told = gr.HTML("", elem_id="runs-told")
    with gr.Row(visible=False, elem_id="runs-confirm") as confirm:
        gr.HTML(note(words.DELETE_CONFIRM))
        sure = gr.Button("Delete this run", variant="stop", elem_id="runs-delete-sure", scale=0, min_width=160)
        keep = gr.Button("Keep it", elem_id="runs-keep", scale=0, min_width=120)
    timer = gr.Timer(2.0, active=first.any_active)
    verdict.build(ctx, timer)
    sweep = _build_sweep(ctx)

    seen = gr.State(_seen(first))
    drawn = [chart, summary, table, picker, timer, pin, told, seen]
    inputs = [ctx.sidebar.model, quality, picker, seen]

    def draw(model: str, quality_key: str, chosen: str | None, known: dict[str, str]) -> list[Any]:
        view = runs_view(ctx.store, model, quality_key)
        return [*_updates(view, chosen, known), *_picked(picked(ctx.store, chosen)), _seen(view)]

    def pick_row(event: gr.SelectData) -> Any:
        ids = ctx.store.ids()
        row = event.index[0] if isinstance(event.index, list | tuple) and event.index else event.index
        return ids[row] if isinstance(row, int) and 0 <= row < len(ids) else gr.skip()

    def pick_point(event: gr.EventData) -> Any:
        run = getattr(event, "run", None)
        return run if run in ctx.store.ids() else gr.skip()

    act = _Actions(ctx)
    gr.on([ctx.items["runs"].select, quality.input, ctx.sidebar.model.input, timer.tick], draw, inputs, drawn, **LATEST, **QUIET)
    picker.change(lambda chosen: _picked(picked(ctx.store, chosen)), picker, [pin, told], **QUIET)
    pin.click(act.pin, picker, None, api_visibility="private").then(draw, inputs, drawn, **QUIET)
    table.select(pick_row, None, picker, **EVERY, **QUIET)
    ctx.bridge.point(pick_point, None, picker, **EVERY, **QUIET)
    opened.click(act.open, picker, [ctx.run_id, ctx.tabs, ctx.chip], api_visibility="private")
    resume.click(act.resume, picker, ctx.run_id, api_visibility="private").then(draw, inputs, drawn, **QUIET)
    cancel.click(act.cancel, picker, None, api_visibility="private").then(draw, inputs, drawn, **QUIET)
    delete.click(act.ask, picker, confirm, api_visibility="private")
    keep.click(lambda: gr.Row(visible=False), None, confirm, queue=False, **QUIET)
    sure.click(act.delete, picker, [confirm, picker], api_visibility="private").then(draw, inputs, drawn, **QUIET)
    link.click(None, [picker], None, js=COPY_RUN_LINK)
    sweep["start"].click(
        act.sweep, [*ctx.sidebar.inputs, *(sweep[key] for key in ("recipes", "bits", "groups", "preset"))], sweep["told"], api_visibility="private"
    ).then(draw, inputs, drawn, **QUIET)
    ctx.load_hooks.append(lambda loaded: loaded.then(draw, inputs, drawn, **QUIET))


class _Actions:
    """The buttons; each raises its one sentence when the run does not allow it."""

    def __init__(self, ctx: UiContext) -> None:
        self._ctx, self._store = ctx, ctx.store

    @property
    def open(self) -> Any:
        @as_gr_error
        def action(run: str | None) -> list[Any]:
            from salq.ui.status import chip

            info = self._store.get(_chosen(run))
            return [info.id, gr.Tabs(selected="explore" if info.kind == "explore" else "calibrate"), chip(self._store, info.id)]

        return action

    @property
    def resume(self) -> Any:
        @as_gr_error
        def action(run: str | None) -> str:
            from salq.runs import worker

            info = self._store.get(_chosen(run))
            if not info.can_resume:
                raise ConfigError(f"{info.title} is {info.status}; only a cancelled, failed or interrupted run can be resumed.")
            worker.start(self._store, info.id)
            return info.id

        return action

    @property
    def cancel(self) -> Any:
        @as_gr_error
        def action(run: str | None) -> None:
            info = self._store.get(_chosen(run))
            if not info.is_active:
                raise ConfigError(f"{info.title} is {info.status}; there is nothing to cancel.")
            self._store.cancel(info.id)

        return action

    @property
    def pin(self) -> Any:
        @as_gr_error
        def action(run: str | None) -> None:
            info = self._store.get(_chosen(run))
            self._store.pin(info.id, pinned=not info.pinned)

        return action

    @property
    def ask(self) -> Any:
        @as_gr_error
        def action(run: str | None) -> Any:
            info = self._store.get(_chosen(run))
            if info.is_active:
                raise ConfigError(f"{info.title} is {info.status}; cancel it first.")
            return gr.Row(visible=True)

        return action

    @property
    def delete(self) -> Any:
        @as_gr_error
        def action(run: str | None) -> list[Any]:
            if self._ctx.public:
                raise ConfigError("On a public host runs are not deleted by visitors.")
            self._store.delete(_chosen(run))
            return [gr.Row(visible=False), gr.Dropdown(value=None)]

        return action

    @property
    def sweep(self) -> Any:
        @as_gr_error
        def action(*values: Any) -> str:
            *shared, recipes, bits, groups, preset = values
            requests = sweep_requests(Choices.of(*shared), recipes, bits, groups, preset, self._ctx.limits)
            started = start_sweep(self._store, requests)
            again = len(requests) - len(started)
            return reading(f"{len(started)} runs started{f'; {again} were there already' if again else ''}. They run one after the other.")

        return action


def _build_sweep(ctx: UiContext) -> dict[str, Any]:
    gr.HTML(section("Sweep"))
    with gr.Column(elem_id="sweep"):
        with gr.Row():
            found = {
                "recipes": gr.CheckboxGroup(
                    list(RECIPES), value=["rtn"], label="Recipes", info=words.SWEEP_RECIPES_INFO, elem_id="sweep-recipes", elem_classes="salq-switch",
                ),
                "bits": gr.CheckboxGroup(
                    list(BITS), value=list(BITS), label="Bits", info=words.SWEEP_BITS_INFO, elem_id="sweep-bits", elem_classes="salq-switch"
                ),
            }  # fmt: skip
        with gr.Row():
            found["groups"] = gr.CheckboxGroup(
                [("row" if size == WHOLE_ROW else str(size), size) for size in GROUP_SIZES], value=[64], label="Group sizes",
                info=words.SWEEP_GROUPS_INFO, elem_id="sweep-groups", elem_classes="salq-switch",
            )  # fmt: skip
            presets = PRESETS[:1] if ctx.public else PRESETS
            found["preset"] = gr.Radio(
                list(presets), value="quick", label="Preset", info=words.SWEEP_PRESET_INFO, elem_id="sweep-preset", elem_classes="salq-switch"
            )  # fmt: skip
    with gr.Row():
        found["start"] = gr.Button("Start the sweep", elem_id="sweep-start", scale=0, min_width=180)
        found["told"] = gr.HTML(note(words.SWEEP_INFO), elem_id="sweep-told")
    return found


def _updates(view: RunsView, chosen: str | None, known: dict[str, str]) -> list[Any]:
    """[chart, summary, table, picker, timer]; what this visitor's page shows already is not sent again."""
    gone = {} if chosen in {run_id for _, run_id in view.choices} else {"value": None}
    updates = {
        "chart": plot_data(view.figure), "summary": _summary(view), "table": view.table,
        "picker": gr.Dropdown(choices=view.choices, **gone), "timer": gr.Timer(active=view.any_active),
    }  # fmt: skip
    now = _seen(view)
    return [update if now[name] != known.get(name) else gr.skip() for name, update in updates.items()]


def _seen(view: RunsView) -> dict[str, str]:
    """What is drawn, as digests."""
    parts = {"chart": view.figure, "summary": view.reading, "table": view.table, "picker": view.choices, "timer": view.any_active}
    return {name: digest(json.dumps(part)) for name, part in parts.items()}


def _picked(one: Picked | None) -> list[Any]:
    """[pin button, what is said of the chosen run]."""
    if one is None:
        return [gr.Button(words.PIN), ""]
    return [gr.Button(words.UNPIN if one.pinned else words.PIN), reading(one.told)]


def _summary(view: RunsView) -> str:
    return reading(view.reading or words.RUNS_EMPTY) + note(words.RUNS_LEGEND if view.reading else "")


def _chosen(run: Any) -> str:
    if not isinstance(run, str) or not run:
        raise ConfigError("No run is chosen; click a row of the table or pick one from the list.")
    return run
