"""The right side of Calibrate: one run as it stands. Progress, curves, tables and final numbers; only what changed is sent again."""

from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from salq.ui.context import Choices, UiContext
from salq.ui.explore_charts import chart_or_problem, depth_chart
from salq.ui.explore_shown import plot_data, plot_update
from salq.ui.explore_subject import NOTHING, ROUNDING
from salq.ui.html import csv_button, facts, note, progress_bar, reading
from salq.ui.run_papers import TROUBLED
from salq.ui.run_view import TABLE_HEADER, RunView, errors_figure, errors_table, kept_facts, loss_figure, result_facts
from salq.ui.status import waiting

LATEST = "latest"
BLOCK_INFO = "Whose loss curves are drawn."
KEPT_CHART = (
    "What calibration repairs, measured before: how far the hidden state has moved after each block (solid lines: all blocks quantized). "
    "A recipe that ends with a pass over the whole model (salq) aims at the predictions: its states may move further while those move less."
)
EMPTY = "No calibration is running. Choose a recipe and press Start; it goes on if you close this page, and is found again when you come back."

Updates = list[Any]


@dataclass(frozen=True)
class Panel:
    """The parts of the panel."""

    headline: gr.HTML
    kept: gr.Column
    """What calibration has repaired in a kept result: shown while no run is watched."""
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
    """What this visitor's page shows already (`RunView.stamps`); equal parts are not sent again."""

    @property
    def outputs(self) -> list[Any]:
        """In the order of `updates`."""
        return [
            self.headline, self.kept, self.cancel, self.resume, self.results, self.block, self.loss, self.errors, self.table_fold, self.table,
            self.log_fold, self.log, self.papers_fold, self.papers, self.seen,
        ]  # fmt: skip


def build_panel(ctx: UiContext) -> Panel:
    """Lay it out; before any run it shows what is kept."""
    headline = gr.HTML(_idle_html(ctx.default_model, 3), elem_id="calibrate-status")
    with gr.Column(elem_id="calibrate-kept") as kept:
        _build_kept(ctx)
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
    return Panel(
        headline, kept, cancel, again, results, block, loss, errors, table_fold, table, log_fold, log, papers_fold, papers, gr.State({})
    )  # fmt: skip


def _build_kept(ctx: UiContext) -> None:
    """How the error grows through the blocks, rounded and calibrated, as the repository keeps it; nothing for a model that it does not know."""
    chart = chart_or_problem(lambda: depth_chart(ctx.store, Choices(ctx.default_model, 3, 64, False, "auto", "auto"), ROUNDING, NOTHING, None))
    if chart.figure is not None:
        gr.HTML(note(KEPT_CHART))
        gr.Plot(plot_data(chart.figure), show_label=False, elem_id="calibrate-kept-chart", elem_classes="salq-chart")
        gr.HTML(csv_button("calibrate-kept-chart") + reading(chart.reading))


def _idle_html(model: str, bits: int) -> str:
    kept, source = kept_facts(model, bits)
    return reading(EMPTY) + facts(kept) + note(source)


def nothing(model: str, bits: int) -> Updates:
    """No run is watched: what the repository keeps at these bits; in the order of `Panel.outputs`."""
    folds = [gr.Accordion(visible=False), gr.skip(), gr.Accordion(visible=False), "", gr.Accordion(visible=False), ""]
    buttons = [gr.Button(visible=False), gr.Button(visible=False)]
    plots = [gr.Dropdown(visible=False), gr.Plot(visible=False), gr.Plot(visible=False)]
    return [_idle_html(model, bits), gr.Column(visible=True), *buttons, "", *plots, *folds, {}]


def updates(view: RunView, block: Any, seen: dict[str, Any], papers: Callable[[], str], *, own: bool) -> Updates:
    """What changed since the page last heard of this run; in the order of `Panel.outputs`. own: this visitor may stop and resume it."""
    chosen = block if isinstance(block, int) and block in view.blocks else None
    now = view.stamps(chosen)
    known = seen if seen.get("id") == view.info.id else {}

    def when(part: str, build: Callable[[], Any]) -> Any:
        return build() if now[part] != known.get(part) else gr.skip()

    found, source = result_facts(view.info.metrics)
    return [
        when("headline", lambda: _headline_html(view)),
        when("state", lambda: gr.Column(visible=False)),
        when("state", lambda: gr.Button(visible=own and view.is_active, interactive=not view.is_stopping)),
        when("state", lambda: gr.Button(visible=own and view.info.can_resume)),
        when("state", lambda: facts(found) + note(source) + note(view.blind)),
        when("blocks", lambda: gr.Dropdown(choices=[LATEST, *view.blocks], visible=len(view.blocks) > 0, value=LATEST if chosen is None else chosen)),
        when("loss", lambda: plot_update(loss_figure(view, chosen))),
        when("errors", lambda: plot_update(errors_figure(view))),
        when("errors", lambda: gr.Accordion(visible=bool(view.progress.output_errors))),
        when("errors", lambda: errors_table(view)),
        when("log", lambda: gr.Accordion(visible=bool(view.log))),
        when("log", lambda: _log_html(view.log)),
        when("state", lambda: gr.Accordion(visible=True, open=True) if view.info.status in TROUBLED else gr.Accordion(visible=True)),
        when("state", papers),
        now,
    ]


def _headline_html(view: RunView) -> str:
    info = view.info
    if info.status == "running":
        end = "it does not stop: end it in the terminal that it was started in" if view.is_stopping else "if it hangs, Cancel ends it"
        silent = f"It gave {info.silence_words}; {end}. Resume goes on from its finished blocks."
        return progress_bar(view.headline, view.progress) + (reading(silent, problem=True) if info.silence is not None else "")
    if info.status == "queued":
        return reading(f"{info.title}: {'stopping' if view.is_stopping else waiting(info)}.")
    if info.status == "cancelled":
        return reading(f"{info.title}: {info.problem[:1].lower()}{info.problem[1:]}")
    problem = f" {info.problem}" if info.problem else ""
    hint = " Finished blocks are kept; Resume goes on from them." if info.status in {"failed", "interrupted"} else ""
    return reading(f"{view.headline}.{problem}{hint}", problem=info.status in {"failed", "interrupted", "unreadable"})


def _log_html(lines: list[str]) -> str:
    newest_first = "\n".join(escape(line) for line in reversed(lines))
    return f'<pre class="salq-log" tabindex="0" aria-label="Last events, newest first">{newest_first}</pre>'
