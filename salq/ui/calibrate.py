"""The Calibrate tab: choose a method, see what it will take, start it, watch it, and find it again after a reload.

The work is a worker process over the run store; this page only reads the run's events (`run_view`), so it may be closed at any time.
"""

from typing import Any

import gradio as gr

from salq.core.errors import SalqError
from salq.ui.calibrate_actions import Form, resume, start
from salq.ui.calibrate_form import FormParts, build_form
from salq.ui.calibrate_panel import Panel, build_panel, nothing, updates
from salq.ui.context import Choices, UiContext, as_gr_error
from salq.ui.html import lede
from salq.ui.listening import LATEST, QUIET
from salq.ui.run_papers import papers_html
from salq.ui.run_view import RunView, Watcher, run_to_show

LEDE = "Teach each block, in a few bits, to do what the original block does. Then measure the result on text it has not seen."

Updates = list[Any]


def build(ctx: UiContext) -> None:
    """Lay the tab out and wire it."""
    gr.HTML(lede(LEDE))
    with gr.Row(equal_height=False, elem_id="calibrate-columns"):
        with gr.Column(scale=5, min_width=330):
            form = build_form(ctx)
        with gr.Column(scale=7, min_width=330):
            panel = build_panel(ctx)
    _wire(ctx, form, panel)


def _wire(ctx: UiContext, form: FormParts, panel: Panel) -> None:
    store, watcher = ctx.store, Watcher(ctx.store)

    @as_gr_error
    def begin(current: str, *values: Any) -> str:
        given = Form.of(*values[:6])
        return start(store, given, Choices.of(*values[6:]), ctx.limits, current=current, public=ctx.public)

    @as_gr_error
    def go_on(run_id: str) -> None:
        resume(store, run_id)

    @as_gr_error
    def cancel(run_id: str) -> None:
        if run_id:
            store.cancel(run_id)

    def find(run_id: str) -> str:
        return run_to_show(store, run_id, public=ctx.public)

    def watch(run_id: str, block: Any, seen: dict[str, Any], model: str, bits: int) -> Updates:
        try:
            view = watcher.view(run_id) if run_id else None
        except SalqError:
            view = None
        return nothing(model, bits) if view is None else updates(view, block, seen, lambda: _papers(ctx, view), own=store.may_change(run_id))

    # One event watches, and the last of several wishes to look is never dropped: two that overlap could leave an older state on the page for good.
    watched = [ctx.run_id, panel.block, panel.seen, ctx.sidebar.model, ctx.sidebar.bits]
    nudged = gr.State(0)
    nudge: dict[str, Any] = {"fn": lambda count: count + 1, "inputs": nudged, "outputs": nudged, **QUIET}
    started = form.start.click(begin, [ctx.run_id, *form.inputs, *ctx.sidebar.inputs], ctx.run_id, api_visibility="private", concurrency_limit=4)
    started.success(**nudge)
    panel.resume.click(go_on, ctx.run_id, None, api_visibility="private", concurrency_limit=4).success(**nudge)
    panel.cancel.click(cancel, ctx.run_id, None, api_visibility="private", concurrency_limit=None).then(**nudge)
    # The chip changes with every event of the run, so the panel needs no timer of its own.
    looks = [nudged.change, panel.block.input, ctx.run_id.change, ctx.chip.change, ctx.items["calibrate"].select]
    gr.on(looks, watch, watched, panel.outputs, **LATEST, **QUIET)

    def on_load(opened: Any) -> None:
        opened.then(find, ctx.run_id, ctx.run_id, **QUIET).then(**nudge)

    ctx.load_hooks.append(on_load)


def _papers(ctx: UiContext, view: RunView) -> str:
    return papers_html(ctx.store, view.info.id, status=view.info.status, public=ctx.public)
