"""The Calibrate tab: choose a method, see what it will take, start it, watch it, and find it again after a reload.

The work is a worker process over the run store; this page only reads the run's events (`run_view`), so it may be closed at any time.
"""

from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from salq.core.errors import SalqError
from salq.ui.calibrate_actions import (
    Form,
    PlanView,
    about_recipe,
    advanced_fields,
    by_heading,
    command_of,
    plan_view,
    recipe_choices,
    resume,
    start,
)
from salq.ui.context import Choices, UiContext, as_gr_error
from salq.ui.explore_shown import plot_data
from salq.ui.html import duration, facts, lede, note, progress_bar, reading, section
from salq.ui.run_papers import TROUBLED, papers_html
from salq.ui.run_view import (
    TABLE_HEADER,
    RunView,
    Watcher,
    errors_figure,
    errors_table,
    kept_facts,
    loss_figure,
    result_facts,
    run_to_show,
)

LEDE = "Teach each block, in a few bits, to do what the original block does. Then measure the result on text it has not seen."
PRESET_INFO = "quick: minutes on two CPU cores. base: longer and better. published: the paper's own settings, for a GPU and hours."
BLOCKS_INFO = "Only the first N, for a try; 0 is all."
SEED_INFO = "Same seed, same codes."
TITLE_INFO = "How the run is listed."
COMMAND_INFO = "The same run from a terminal."
LATEST = "latest"
BLOCK_INFO = "Whose loss curves are drawn."
EMPTY = "No calibration is running. Choose a recipe and press Start; it goes on if you close this page, and is found again when you come back."
ADVANCED = "Every setting of the recipe. Changed ones appear in the command line; bits, group size and symmetric are in the sidebar."

Updates = list[Any]
QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": None}


def build(ctx: UiContext) -> None:
    """Lay the tab out and wire it."""
    gr.HTML(lede(LEDE))
    with gr.Row(equal_height=False, elem_id="calibrate-columns"):
        with gr.Column(scale=5, min_width=330):
            form = _build_form(ctx)
        with gr.Column(scale=7, min_width=330):
            panel = _build_panel(ctx)
    _wire_form(ctx, form)
    _wire_run(ctx, form, panel)


@dataclass(frozen=True)
class _FormParts:
    recipe: gr.Radio
    about: gr.HTML
    preset: gr.Radio
    blocks: gr.Number
    seed: gr.Number
    title: gr.Textbox
    overrides: gr.State
    """{field path: value} of what the visitor changed under Advanced."""
    fields_of: gr.State
    """Which recipe's fields Advanced shows; a change draws them anew, at their defaults."""
    reset: gr.Button
    estimate: gr.HTML
    command: gr.Textbox
    start: gr.Button

    @property
    def inputs(self) -> list[Any]:
        """In the order of `Form.of`."""
        return [self.recipe, self.preset, self.blocks, self.seed, self.title, self.overrides]


@dataclass(frozen=True)
class _Panel:
    headline: gr.HTML
    cancel: gr.Button
    resume: gr.Button
    results: gr.HTML
    block: gr.Dropdown
    loss: gr.Plot
    errors: gr.Plot
    table_fold: gr.Accordion
    table: gr.Dataframe
    log_fold: gr.Accordion
    log: gr.HTML
    papers_fold: gr.Accordion
    papers: gr.HTML
    seen: gr.State
    """What this visitor's page shows already: {"run", "loss", "errors"}; equal parts are not sent again."""

    @property
    def outputs(self) -> list[Any]:
        """In the order of `_updates`."""
        return [
            self.headline, self.cancel, self.resume, self.results, self.block, self.loss, self.errors, self.table_fold, self.table,
            self.log_fold, self.log, self.papers_fold, self.papers, self.seen,
        ]  # fmt: skip


def _build_form(ctx: UiContext) -> _FormParts:
    recipe = gr.Radio([], label="Recipe", elem_id="calibrate-recipe", elem_classes="salq-switch")
    about = gr.HTML("", elem_id="calibrate-about")
    preset = gr.Radio(
        ["quick", "base", "published"], value="quick", label="Preset", info=PRESET_INFO, elem_id="calibrate-preset", elem_classes="salq-switch"
    )
    with gr.Row(elem_id="calibrate-numbers"):
        blocks = gr.Number(0, label="Blocks", info=BLOCKS_INFO, elem_id="calibrate-blocks", scale=1, min_width=110)
        seed = gr.Number(0, label="Seed", info=SEED_INFO, elem_id="calibrate-seed", scale=1, min_width=110)
        title = gr.Textbox(
            "", label="Name", info=TITLE_INFO, placeholder="automatic", max_length=60, elem_id="calibrate-title", scale=1, min_width=150
        )
    overrides, fields_of = gr.State({}), gr.State({})
    estimate = gr.HTML("", elem_id="calibrate-estimate")
    begin = gr.Button("Start", variant="primary", elem_id="calibrate-start")
    command = gr.Textbox("", label="Command", info=COMMAND_INFO, lines=2, interactive=False, buttons=["copy"], elem_id="calibrate-command")
    with gr.Accordion("Advanced", open=False, elem_id="calibrate-advanced"):
        gr.HTML(note(ADVANCED))
        reset = gr.Button("Back to the preset", size="sm", elem_id="calibrate-reset")
        _render_fields(overrides, fields_of)
    return _FormParts(recipe, about, preset, blocks, seed, title, overrides, fields_of, reset, estimate, command, begin)


def _render_fields(overrides: gr.State, fields_of: gr.State) -> None:
    """A control for every field of the chosen recipe; all their values travel with every change, so none is lost."""

    @gr.render(inputs=[fields_of], triggers=[fields_of.change], show_progress="hidden", concurrency_limit=1)
    def draw(chosen: dict[str, Any]) -> None:
        if not chosen:
            return
        found = advanced_fields(chosen["recipe"], chosen["preset"])
        controls = []
        for heading, members in by_heading(found).items():
            gr.HTML(section(heading))
            with gr.Row(elem_classes="salq-fields"):
                controls += [_control(one) for one in members]
        fields = [one for members in by_heading(found).values() for one in members]

        def collect(*values: Any) -> dict[str, Any]:
            changed = zip(fields, values, strict=True)
            return {one.path: value for one, value in changed if value not in (None, "") and value != one.value}

        gr.on([control.input for control in controls], collect, controls, overrides, trigger_mode="always_last", **QUIET)


def _control(one: Any) -> Any:
    """The control that fits a field; bounds are said here and enforced, with a sentence, when the recipe is made."""
    name = one.path.rsplit(".", 1)[-1]
    common = {
        "label": name,
        "info": f"{one.help} {_bounds(one.minimum, one.maximum)}".strip(),
        "elem_id": f"set-{one.path.replace('.', '-')}",
        "interactive": True,
        "min_width": 150,
    }
    if one.kind == "choice":
        return gr.Dropdown(list(one.choices), value=one.value, **common)
    if one.kind == "switch":
        return gr.Checkbox(one.value, **common)
    if one.kind in {"integer", "number"}:
        return gr.Number(one.value, **common)
    return gr.Textbox("" if one.value is None else str(one.value), **common)


def _bounds(low: float | None, high: float | None) -> str:
    if low is None and high is None:
        return ""
    if low is not None and high is not None:
        return f"{low:g} to {high:g}."
    return f"At least {low:g}." if low is not None else f"At most {high:g}."


def _build_panel(ctx: UiContext) -> _Panel:
    headline = gr.HTML(_idle_html(ctx.default_model, 3), elem_id="calibrate-status")
    with gr.Row(elem_id="calibrate-buttons"):
        cancel = gr.Button("Cancel", variant="stop", visible=False, elem_id="calibrate-cancel", scale=0, min_width=130)
        again = gr.Button("Resume", visible=False, elem_id="calibrate-resume", scale=0, min_width=130)
    results = gr.HTML("", elem_id="calibrate-results")
    errors = gr.Plot(show_label=False, visible=False, elem_id="calibrate-errors", elem_classes="salq-chart")
    with gr.Row():
        block = gr.Dropdown([LATEST], value=LATEST, label="Block", info=BLOCK_INFO, visible=False, elem_id="calibrate-block", scale=0, min_width=200)
    loss = gr.Plot(show_label=False, visible=False, elem_id="calibrate-loss", elem_classes="salq-chart")
    with gr.Accordion("The blocks as a table", open=False, visible=False, elem_id="calibrate-table-fold") as table_fold:
        table = gr.Dataframe(headers=TABLE_HEADER, interactive=False, show_label=False, elem_id="calibrate-table", max_height=320)
    with gr.Accordion("Last events", open=True, visible=False, elem_id="calibrate-log-fold") as log_fold:
        log = gr.HTML("", elem_id="calibrate-log")
    with gr.Accordion("To repeat this run", open=False, visible=False, elem_id="calibrate-papers-fold") as papers_fold:
        papers = gr.HTML("", elem_id="calibrate-papers")
    return _Panel(
        headline, cancel, again, results, block, loss, errors, table_fold, table, log_fold, log, papers_fold, papers, gr.State({})
    )  # fmt: skip


def _wire_form(ctx: UiContext, form: _FormParts) -> None:
    inputs = [*form.inputs, *ctx.sidebar.inputs]

    def fill() -> Updates:
        choices = recipe_choices()
        chosen = choices[min(1, len(choices) - 1)][1]
        return [gr.Radio(choices=choices, value=chosen), _about_html(chosen), {"recipe": chosen, "preset": "quick", "drawn": 0}]

    def redraw(recipe: str, preset: str, drawn: dict[str, Any]) -> Updates:
        return [_about_html(recipe), {}, {"recipe": recipe, "preset": preset, "drawn": drawn.get("drawn", 0) + 1}]

    def refresh(*values: Any) -> Updates:
        return _form_updates(ctx, values)

    gr.on([form.recipe.input, form.preset.input, form.reset.click], redraw, [form.recipe, form.preset, form.fields_of],
          [form.about, form.overrides, form.fields_of], **QUIET)  # fmt: skip
    own = [form.recipe, form.preset, form.blocks, form.seed, form.title]
    changed = [one.input for one in [*own, *ctx.sidebar.inputs]] + [form.overrides.change, ctx.items["calibrate"].select]
    gr.on(changed, refresh, inputs, [form.command, form.estimate], trigger_mode="always_last", **QUIET)

    def on_load(opened: Any) -> None:
        filled = opened.then(fill, None, [form.recipe, form.about, form.fields_of], **QUIET)
        filled.then(refresh, inputs, [form.command, form.estimate], **QUIET)

    ctx.load_hooks.append(on_load)


def _wire_run(ctx: UiContext, form: _FormParts, panel: _Panel) -> None:
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
        return _nothing(model, bits) if view is None else _updates(view, block, seen, lambda: _papers(ctx, view))

    watched = [ctx.run_id, panel.block, panel.seen, ctx.sidebar.model, ctx.sidebar.bits]
    started = form.start.click(begin, [ctx.run_id, *form.inputs, *ctx.sidebar.inputs], ctx.run_id, api_visibility="private", concurrency_limit=4)
    started.success(watch, watched, panel.outputs, **QUIET)
    resumed = panel.resume.click(go_on, ctx.run_id, None, api_visibility="private", concurrency_limit=4)
    resumed.success(watch, watched, panel.outputs, **QUIET)
    panel.cancel.click(cancel, ctx.run_id, None, queue=False, api_visibility="private").then(watch, watched, panel.outputs, **QUIET)
    # The chip changes with every event of the run, so the panel needs no timer of its own.
    others = [panel.block.input, ctx.run_id.change, ctx.chip.change, ctx.items["calibrate"].select]
    gr.on(others, watch, watched, panel.outputs, **QUIET)

    def on_load(opened: Any) -> None:
        opened.then(find, ctx.run_id, ctx.run_id, **QUIET).then(watch, watched, panel.outputs, **QUIET)

    ctx.load_hooks.append(on_load)


def _form_updates(ctx: UiContext, values: tuple[Any, ...]) -> Updates:
    """The command line and the estimate; a problem is said in the estimate's place."""
    try:
        form, choices = Form.of(*values[:6]), Choices.of(*values[6:])
    except SalqError as error:
        return [gr.skip(), reading(str(error), problem=True)]
    return [command_of(form, choices), _plan_html(plan_view(form, choices, ctx.limits, ctx.store.root))]


def _plan_html(view: PlanView) -> str:
    return facts(view.facts) + reading(view.problem, problem=True) + note(view.note)


def _about_html(recipe: str) -> str:
    try:
        summary, deviations = about_recipe(recipe)
    except SalqError as error:
        return reading(str(error), problem=True)
    items = "".join(f"<li>{escape(one)}</li>" for one in deviations)
    fold = f"<details class='salq-fold'><summary>Where it differs from the paper</summary><ul>{items}</ul></details>" if items else ""
    return note(summary) + fold


def _idle_html(model: str, bits: int) -> str:
    kept, source = kept_facts(model, bits)
    return reading(EMPTY) + facts(kept) + note(source)


def _nothing(model: str, bits: int) -> Updates:
    folds = [gr.Accordion(visible=False), gr.skip(), gr.Accordion(visible=False), "", gr.Accordion(visible=False), ""]
    buttons = [gr.Button(visible=False), gr.Button(visible=False)]
    plots = [gr.Dropdown(visible=False), gr.Plot(visible=False), gr.Plot(visible=False)]
    return [_idle_html(model, bits), *buttons, "", *plots, *folds, {}]


def _papers(ctx: UiContext, view: RunView) -> str:
    return papers_html(ctx.store, view.info.id, status=view.info.status, public=ctx.public)


def _updates(view: RunView, block: Any, seen: dict[str, Any], papers: Callable[[], str]) -> Updates:
    """What changed since the page last heard of this run; in the order of `_Panel.outputs`."""
    chosen = block if isinstance(block, int) and block in view.blocks else None
    now = view.stamps(chosen)
    known = seen if seen.get("id") == view.info.id else {}

    def when(part: str, build: Callable[[], Any]) -> Any:
        return build() if now[part] != known.get(part) else gr.skip()

    found, source = result_facts(view.info.metrics)
    return [
        when("headline", lambda: _headline_html(view)),
        when("state", lambda: gr.Button(visible=view.is_active, interactive=not view.is_stopping)),
        when("state", lambda: gr.Button(visible=view.info.can_resume)),
        when("state", lambda: facts(found) + note(source) + note(view.blind)),
        when("blocks", lambda: gr.Dropdown(choices=[LATEST, *view.blocks], visible=len(view.blocks) > 0, value=LATEST if chosen is None else chosen)),
        when("loss", lambda: _plot(loss_figure(view, chosen))),
        when("errors", lambda: _plot(errors_figure(view))),
        when("errors", lambda: gr.Accordion(visible=bool(view.progress.output_errors))),
        when("errors", lambda: errors_table(view)),
        when("log", lambda: gr.Accordion(visible=bool(view.log))),
        when("log", lambda: _log_html(view.log)),
        when("state", lambda: gr.Accordion(visible=True, open=True) if view.info.status in TROUBLED else gr.Accordion(visible=True)),
        when("state", papers),
        now,
    ]


def _plot(figure: str | None) -> Any:
    return gr.update(value=plot_data(figure), visible=figure is not None)


def _headline_html(view: RunView) -> str:
    info = view.info
    if info.status == "running":
        silent = f"It gave {info.silence_words}; if it hangs, Cancel ends it and Resume goes on from its finished blocks."
        return progress_bar(view.headline, view.progress) + (reading(silent, problem=True) if info.silence is not None else "")
    if info.status == "queued":
        starts = "" if info.wait is None else f" It starts in about {duration(info.wait)}."
        return reading(f"{view.headline}: {info.position or 0} other run(s) are before it.{starts}")
    if info.status == "cancelled":
        return reading(f"{info.title}: {info.problem[:1].lower()}{info.problem[1:]}")
    problem = f" {info.problem}" if info.problem else ""
    hint = " Finished blocks are kept; Resume goes on from them." if info.status in {"failed", "interrupted"} else ""
    return reading(f"{view.headline}.{problem}{hint}", problem=info.status in {"failed", "interrupted", "unreadable"})


def _log_html(lines: list[str]) -> str:
    newest_first = "\n".join(escape(line) for line in reversed(lines))
    return f'<pre class="salq-log" tabindex="0" aria-label="Last events, newest first">{newest_first}</pre>'
