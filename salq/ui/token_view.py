"""The token view under Compare's answers: a text scored by the original and one side, the fork of their answers, and where a token breaks.

Scoring happens in a process of its own (`chat.scorer`); the words are drawn by assets/ui/tokens, which gets plain values and sets text only.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from salq.chat.scorer import ScorePool
from salq.core.errors import ConfigError, SalqError
from salq.core.settings import ASSETS
from salq.ui.compare_actions import Stops
from salq.ui.context import Choices, UiContext
from salq.ui.explore_shown import plot_data
from salq.ui.html import how_made, note, reading, section, work_bar
from salq.ui.listening import EVERY, LATEST, QUIET
from salq.ui.token_actions import (
    HEADER,
    MAX_TOKENS,
    OWN_CHARACTERS,
    SOURCES,
    Json,
    KeptTokens,
    Task,
    conditions,
    kept_tokens,
    rows,
    score,
    shown_of,
    task_of,
    where,
    where_figures,
    where_rows,
    where_words,
)

SCRIPTS = ASSETS / "ui" / "tokens"
TITLE = "Token by token"
INTRO = (
    "Two answers drift apart after one different word. So here both models predict the same text, token by token, "
    "and each token shows how far the quantized model's prediction is from the original's."
)
TEXT_INFO = "Both models read it as it stands."
SIDE_INFO = "Compared with the original."
SCORE, WHERE = "Score", "Where does token {number} break?"
WHERE_INTRO = "Puts one block after the other back to full precision, then one kind of matrix in all blocks, and looks at the chosen token's KL."
STOPPED = "Stopped."
EMPTY = "Nothing is scored yet: ask something above and press Score, or score a text of your own."
WHERE_HEADER = ("put back", "KL left (nats)", "KL removed (%)")
BRIDGE = """
let view = null;
const root = () => document.querySelector("#token-text .salq-tokens"), base = (window.gradio_config && window.gradio_config.root) || "";
const show = () => view && (root() ? view.receive(props.value) : setTimeout(show, 50));
import(`${base}/gradio_api/file=${props.scripts}/view.js`).then((module) => {
  view = module.start(root, (index) => trigger("picked", { index }));
  show();
});
watch("value", show);
"""

Updates = list[Any]


@dataclass(frozen=True)
class _Parts:
    source: gr.Radio
    side: gr.Radio
    own: gr.Textbox
    score: gr.Button
    stop: gr.Button
    status: gr.HTML
    label: gr.HTML
    """What the kept example is, until a text is scored."""
    bridge: gr.HTML
    text: gr.HTML
    fold: gr.Accordion
    table: gr.Dataframe
    where: gr.Column
    ask: gr.Button
    where_stop: gr.Button
    where_status: gr.HTML
    blocks: gr.Plot
    kinds: gr.Plot
    where_fold: gr.Accordion
    where_table: gr.Dataframe
    task: gr.State
    """The `Task` whose text is shown: descriptions of models and ids of tokens, in the visitor's own state."""
    picked: gr.State
    """Index of the chosen token."""

    @property
    def scored(self) -> list[Any]:
        """In the order of `_scored` and `_told`."""
        return [self.status, self.label, self.bridge, self.fold, self.table, self.where, self.task, self.picked, self.score, self.stop, *self.broken]

    @property
    def broken(self) -> list[Any]:
        """In the order of `_broken`."""
        return [self.where_status, self.blocks, self.kinds, self.where_fold, self.where_table, self.ask, self.where_stop]


BROKEN = 7
"""Outputs of `_Parts.broken`."""


def build(ctx: UiContext, pickers: Sequence[gr.Dropdown], turns: gr.State) -> None:
    """Lay the view out below the conversation and wire it. pickers: who answers on each side; turns: the conversation."""
    gr.set_static_paths([SCRIPTS])
    _wire(ctx, _build(len(pickers), kept_tokens(ctx.default_model)), pickers, turns)


def _build(sides: int, kept: KeptTokens | None) -> _Parts:
    gr.HTML(section(TITLE))
    gr.HTML(note(INTRO))
    with gr.Row(elem_id="token-controls", elem_classes="salq-fields"):
        source = gr.Radio(
            [(name, key) for key, name in SOURCES.items()], value="original", label="Text", info=TEXT_INFO, elem_id="token-source",
            elem_classes="salq-switch", scale=4, min_width=300,
        )  # fmt: skip
        side = gr.Radio(
            [("ABC"[index], index) for index in range(sides)], value=1, label="Quantized side", info=SIDE_INFO, elem_id="token-side",
            elem_classes="salq-switch", scale=2, min_width=230,
        )  # fmt: skip
        start = gr.Button(SCORE, variant="primary", elem_id="token-score", scale=1, min_width=120)
        stop = gr.Button("Stop", variant="stop", visible=False, elem_id="token-stop", scale=1, min_width=120)
    own = gr.Textbox(
        "", label="My own text", placeholder="Paste a text of at least two words", lines=3, max_lines=10, max_length=2 * OWN_CHARACTERS,
        visible=False, elem_id="token-own",
    )  # fmt: skip
    status = gr.HTML(note(EMPTY), elem_id="token-status")
    label = gr.HTML(reading(kept.reading) + note(kept.note) + how_made(kept.command) if kept else "", elem_id="token-kept")
    text = gr.HTML('<div class="salq-tokens"></div>', elem_id="token-text")
    bridge = gr.HTML(
        {} if kept is None else kept.shown, html_template="<span></span>", js_on_load=BRIDGE, elem_id="token-bridge", elem_classes="salq-bridge",
        scripts=SCRIPTS.as_posix(),
    )  # fmt: skip
    has_kept = kept is not None
    with gr.Accordion("The tokens in numbers", open=False, visible=has_kept, elem_id="token-fold") as fold:
        table = gr.Dataframe(
            kept.rows if kept else [], headers=list(HEADER), interactive=False, show_label=False, elem_id="token-table", max_height=420
        )
    with gr.Column(visible=has_kept, elem_id="where") as place:
        gr.HTML(note(WHERE_INTRO))
        with gr.Row():
            ask = gr.Button(WHERE.format(number=1), visible=not has_kept, elem_id="where-ask")  # what is kept is broken down already
            where_stop = gr.Button("Stop", variant="stop", visible=False, elem_id="where-stop")
        where_told = gr.HTML(reading(kept.where_reading) if kept else "", elem_id="where-status")
        with gr.Row():
            blocks, kinds = (
                gr.Plot(
                    plot_data(kept.figures[index]) if kept else None, show_label=False, visible=has_kept, elem_id=f"where-{name}",
                    elem_classes="salq-chart", min_width=300, scale=3 - index,
                )
                for index, name in enumerate(("blocks", "kinds"))
            )  # fmt: skip
        with gr.Accordion("The same in numbers", open=False, visible=has_kept, elem_id="where-fold") as where_fold:
            where_table = gr.Dataframe(
                kept.where_rows if kept else [], headers=list(WHERE_HEADER), interactive=False, show_label=False, elem_id="where-table",
                max_height=420,
            )  # fmt: skip
    return _Parts(
        source, side, own, start, stop, status, label, bridge, text, fold, table, place, ask, where_stop, where_told, blocks, kinds, where_fold,
        where_table, gr.State(None), gr.State(0),
    )  # fmt: skip


def _wire(ctx: UiContext, parts: _Parts, pickers: Sequence[gr.Dropdown], turns: gr.State) -> None:
    pool, stops = ScorePool(), Stops()

    def run(request: gr.Request, source: Any, side: Any, own: Any, conversation: Any, *values: Any) -> Iterator[Updates]:
        session = request.session_hash or ""
        stop = stops.begin(session)
        try:
            named, shared = values[: len(pickers)], values[len(pickers) :]
            task = task_of(ctx.store, Choices.of(*shared), named, side, source, own, conversation)
            ctx.limits.check_model(task.original.model)
            for event in score(pool, task, stop):
                yield _scored(task, event)
        except SalqError as error:
            yield _told(reading(str(error), problem=True), idle=True)
        finally:
            stops.end(session, stop)

    def break_down(request: gr.Request, task: Task | None, index: Any) -> Iterator[Updates]:
        session = request.session_hash or ""
        stop = stops.begin(session)
        try:
            if task is None:
                raise ConfigError("No text is scored yet; score one first.")
            for event in where(pool, task, index, stop):
                yield _broken(event)
        except SalqError as error:
            yield _broken({"event": "error", "message": str(error)})
        finally:
            stops.end(session, stop)

    def halt(request: gr.Request) -> Any:
        stops.stop(request.session_hash or "")
        return gr.Button("Stopping", interactive=False)

    def begin() -> Updates:
        return [gr.Button(visible=False), gr.Button("Stop", visible=True, interactive=True)]

    parts.source.input(lambda source: gr.Textbox(visible=source == "own"), parts.source, parts.own, queue=False, api_visibility="private", **LATEST)
    inputs = [parts.source, parts.side, parts.own, turns, *pickers, *ctx.sidebar.inputs]
    parts.score.click(begin, None, [parts.score, parts.stop], queue=False, api_visibility="private").then(
        run, inputs, parts.scored, **(QUIET | {"concurrency_limit": 16})
    )
    parts.stop.click(halt, None, parts.stop, queue=False, api_visibility="private")
    parts.bridge.picked(_picked, None, [parts.picked, parts.ask], queue=False, api_visibility="private", **EVERY)
    parts.ask.click(begin, None, [parts.ask, parts.where_stop], queue=False, api_visibility="private").then(
        break_down, [parts.task, parts.picked], parts.broken, **(QUIET | {"concurrency_limit": 16})
    )
    parts.where_stop.click(halt, None, parts.where_stop, queue=False, api_visibility="private")


def _picked(event: gr.EventData) -> Updates:
    """What arrives from the browser may be anything; the process checks the upper bound."""
    sent = getattr(event, "index", 0)
    index = sent if isinstance(sent, int) and 0 <= sent < MAX_TOKENS else 0
    return [index, gr.Button(WHERE.format(number=index + 1))]


def _scored(task: Task, event: Json) -> Updates:
    """In the order of `_Parts.scored`."""
    kind = event["event"]
    if kind == "error":
        return _told(reading(event["message"], problem=True), idle=True)
    if kind != "done":
        return _told(_working(event))
    if event["end"] == "stopped":
        return _told(note(STOPPED), idle=True)
    view = event["view"]
    notes = " ".join(part for part in (conditions(view, event["seconds"]), task.note, task.missing) if part)
    start = gr.Button(WHERE.format(number=view["worst"] + 1), visible=True)
    cleared = ["", *[gr.Plot(visible=False)] * 2, gr.Accordion(visible=False), [], start, gr.Button(visible=False)]
    return [
        reading(view["reading"]) + note(notes), "", shown_of(view, event["fork"]), gr.Accordion(visible=True), rows(view),
        gr.Column(visible=view["related"]), task, view["worst"], *_idle(), *cleared,
    ]  # fmt: skip


def _told(words: str, *, idle: bool = False) -> Updates:
    """In the order of `_Parts.scored`: words only; `idle` when nothing is under way any more."""
    buttons = _idle() if idle else [gr.skip()] * 2
    return [words, *[gr.skip()] * 7, *buttons, *[gr.skip()] * BROKEN]


def _broken(event: Json) -> Updates:
    """In the order of `_Parts.broken`."""
    kind = event["event"]
    if kind == "error":
        return [reading(event["message"], problem=True), *[gr.skip()] * 4, *_idle()]
    if kind != "done":
        return [_working(event), *[gr.skip()] * 6]
    if event["end"] == "stopped":
        return [note(STOPPED), *[gr.skip()] * 4, *_idle()]
    found = event["breakdown"]
    plots = [gr.Plot(plot_data(one), visible=True) for one in where_figures(found)]
    words = reading(where_words(found)) + note(f"Computed in {event['seconds']:.1f} s.")
    return [words, *plots, gr.Accordion(visible=True), where_rows(found), *_idle()]


def _idle() -> Updates:
    """A button that starts and the one that stops, when nothing is under way."""
    return [gr.Button(visible=True), gr.Button(visible=False)]


def _working(event: Json) -> str:
    """How far it is, or what it waits for."""
    if event["event"] == "progress":
        return work_bar(event["text"], event["done"], event["of"])
    return note(event.get("text", "Loading both models"))
