"""The Compare tab: one prompt, two or three answers side by side, and what each side costs. Every side is a process of its own (`chat`)."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr

from salq.chat.lockstep import Side
from salq.chat.pool import ChatPool
from salq.chat.sampling import MAX_NEW_TOKENS, MAX_SEED, MAX_TEMPERATURE
from salq.core.errors import SalqError
from salq.ui import blind, token_view
from salq.ui.compare_actions import (
    NOBODY,
    ORIGINAL,
    RTN,
    SYSTEM_CHARACTERS,
    Question,
    Stops,
    Turn,
    answer,
    ask,
    bubbles,
    kept_chat,
    last_question,
    next_seed,
    side_choices,
    turn_of,
)
from salq.ui.context import Choices, UiContext
from salq.ui.html import how_made, lede, note, reading
from salq.ui.listening import LATEST, QUIET
from salq.ui.presets import PRESETS
from salq.ui.talk import facts_html, talk_html

FIRST = (ORIGINAL, RTN, NOBODY)
"""Who talks before anybody chooses; only the last side may stay empty, so that a side keeps its place."""
SIDES = len(FIRST)
PROCESSES = SIDES
LEDE = "Does it still talk the same? One prompt, the original and its quantized form, side by side."
SIDE_INFO = (
    "The reference.",
    "Rounding to nearest, or a calibration.",
    "A third answer, if you like.",
)
PROMPT_HINT = "Ask something; Enter sends"
SAMPLING_NOTE = "All sides use the same settings and the same seed."
LENGTH_INFO = "Longest answer, in tokens."
TEMPERATURE_INFO = "0 always takes the most likely token, so asking again gives the same answer."
SEED_INFO = "Matters above temperature 0; asking again takes the next one."
SYSTEM_INFO = "Said to chat models before the conversation."
PUBLIC_TOKENS = 256
PRESETS_NOTE = "Prompts that show what quantization does to a model:"
AGAIN, EDIT = "Ask again", "Edit"
FIRST_WAIT = "The first answer starts a process for each side and loads the model: some seconds."
KEPT = "A kept conversation of this repository; ask to make your own."

Updates = list[Any]


def build(ctx: UiContext) -> None:
    """Lay the tab out and wire it."""
    gr.HTML(lede(LEDE))
    parts = _build(ctx)
    _wire(ctx, parts)
    token_view.build(ctx, parts.pickers, parts.turns)


@dataclass(frozen=True)
class _Parts:
    pickers: tuple[gr.Dropdown, ...]
    columns: tuple[gr.Column, ...]
    chats: tuple[gr.HTML, ...]
    facts: tuple[gr.HTML, ...]
    prompt: gr.Textbox
    send: gr.Button
    stop: gr.Button
    fresh: gr.Button
    tools: gr.Column
    """Ask again and edit: only where something was asked and nobody is writing."""
    again: gr.Button
    edit: gr.Button
    presets: tuple[gr.Button, ...]
    look: gr.HTML
    """What to look for in the answers to a preset."""
    system: gr.Textbox
    length: gr.Slider
    temperature: gr.Slider
    seed: gr.Number
    turns: gr.State
    """This visitor's conversation: a list of `Turn`, plain values only."""
    asked: gr.State
    """The prompt being answered; the text box is already empty then."""

    @property
    def sampling(self) -> list[Any]:
        """Longest answer, temperature, seed."""
        return [self.length, self.temperature, self.seed]

    @property
    def outputs(self) -> list[Any]:
        """In the order of `_at_work` and `_finished`."""
        return [*self.chats, *self.facts, self.turns, self.send, self.stop, self.prompt, self.tools]


def _build(ctx: UiContext) -> _Parts:
    choices = Choices(ctx.default_model, 3, 64, False, "auto", "auto")
    options = side_choices(ctx.store, choices)
    kept = kept_chat(ctx.default_model)
    pickers, chats, facts, columns = [], [], [], []
    with gr.Row(equal_height=False, elem_id="compare-pickers", elem_classes="salq-fields"):
        for index, value in enumerate(FIRST):
            picker = gr.Dropdown(
                _options(options, index), value=value, label=f"Side {'ABC'[index]}", info=SIDE_INFO[index], elem_id=f"compare-side-{index}",
                min_width=240,
            )  # fmt: skip
            pickers.append(picker)
    with gr.Row(equal_height=False, elem_id="compare-sides"):
        for index, value in enumerate(FIRST):
            with gr.Column(min_width=300, visible=value != NOBODY) as column:
                shown = kept if kept is not None and index < len(kept.titles) else None
                chat = gr.HTML(
                    talk_html(bubbles([shown.turn], index), f"Kept answer of {shown.titles[index]}") if shown else talk_html([]),
                    elem_id=f"compare-chat-{index}", elem_classes="salq-talk", min_height=220, max_height=460, autoscroll=True,
                )  # fmt: skip
                words = f"{shown.titles[index]}: {shown.facts[index]}. {KEPT}" if shown else (FIRST_WAIT if index == 1 else "")
                made = how_made(shown.command) if shown and index == 0 else ""
                facts.append(gr.HTML(note(words) + made, elem_id=f"compare-facts-{index}"))
            chats.append(chat)
            columns.append(column)
    with gr.Row(equal_height=True, elem_id="compare-ask"):
        prompt = gr.Textbox(
            "", show_label=False, label="Prompt", placeholder=PROMPT_HINT, lines=1, max_lines=6, max_length=20_000, container=False, scale=8,
            min_width=220, elem_id="compare-prompt",
        )  # fmt: skip
        with gr.Column(scale=1, min_width=130):
            send = gr.Button("Ask all", variant="primary", elem_id="compare-send")
            stop = gr.Button("Stop", variant="stop", visible=False, elem_id="compare-stop")
            with gr.Column(visible=False, min_width=0, elem_id="compare-tools") as tools:
                again = gr.Button(AGAIN, size="sm", elem_id="compare-again")
                edit = gr.Button(EDIT, size="sm", elem_id="compare-edit")
            fresh = gr.Button("New conversation", size="sm", elem_id="compare-new")
    gr.HTML(note(PRESETS_NOTE))
    with gr.Row(elem_id="compare-presets"):
        presets = [gr.Button(one.name, size="sm", min_width=120, elem_id=f"preset-{one.key}", elem_classes="salq-example") for one in PRESETS]
    look = gr.HTML("", elem_id="compare-look")
    with gr.Accordion("Sampling and system prompt", open=False, elem_id="compare-settings"):
        gr.HTML(note(SAMPLING_NOTE))
        longest = PUBLIC_TOKENS if ctx.public else MAX_NEW_TOKENS
        with gr.Row():
            length = gr.Slider(8, longest, value=128, step=8, label="Length", info=LENGTH_INFO, elem_id="compare-length", min_width=200)
            temperature = gr.Slider(
                0, MAX_TEMPERATURE, value=0, step=0.05, label="Temperature", info=TEMPERATURE_INFO, elem_id="compare-temperature", min_width=200
            )
            seed = gr.Number(0, label="Seed", info=SEED_INFO, minimum=0, maximum=MAX_SEED, precision=0, elem_id="compare-seed", min_width=120)
        system = gr.Textbox("", label="System prompt", info=SYSTEM_INFO, max_length=SYSTEM_CHARACTERS, lines=2, elem_id="compare-system")
    return _Parts(
        tuple(pickers), tuple(columns), tuple(chats), tuple(facts), prompt, send, stop, fresh, tools, again, edit, tuple(presets), look, system,
        length, temperature, seed, gr.State([]), gr.State(""),
    )  # fmt: skip


def _wire(ctx: UiContext, parts: _Parts) -> None:
    pool, stops = ChatPool(PROCESSES), Stops()
    sidebar = ctx.sidebar

    def take(text: str, look: str = "") -> Updates:
        """Move the prompt out of the box, so that the next one can be typed."""
        return [text, "", gr.Button(visible=False), gr.Button("Stop", visible=True, interactive=True), gr.Column(visible=False), reading(look)]

    def take_again(turns: list[Turn], temperature: float, seed: float) -> Updates:
        """The last question once more, from before its answer; where chance plays a part, with the next seed."""
        asked, kept = last_question(turns)
        _, _, *buttons, _ = take(asked)
        return [asked, gr.skip(), *buttons, gr.skip(), kept, next_seed(temperature, seed)]  # what is being typed stays

    def edit(turns: list[Turn]) -> Updates:
        """The last question back into its box, and its answers out of the conversation."""
        asked, kept = last_question(turns)
        return [asked, kept, gr.Column(visible=bool(kept)), *[talk_html(bubbles(kept, side)) for side in range(SIDES)], *[""] * SIDES]

    def run(request: gr.Request, asked: str, turns: list[Turn], system: str, *values: Any) -> Iterator[Updates]:
        named, sampling, shared = values[:SIDES], values[SIDES : SIDES + 3], values[SIDES + 3 :]
        session = request.session_hash or ""
        stop = stops.begin(session)
        try:
            yield from _answers(ctx, pool, stop, turns, asked, system, (named, sampling, shared))
        finally:
            stops.end(session, stop)

    def halt(request: gr.Request) -> Any:
        stops.stop(request.session_hash or "")
        return gr.Button("Stopping", interactive=False)

    def pickers_now(*values: Any) -> Updates:
        return _picker_updates(ctx, values[:SIDES], values[SIDES:])

    def forget(request: gr.Request) -> Updates:
        halt(request)
        return [*[talk_html([])] * SIDES, *[""] * SIDES, [], *_idle(), gr.skip(), gr.Column(visible=False)]

    inputs = [parts.asked, parts.turns, parts.system, *parts.pickers, *parts.sampling, *sidebar.inputs]
    taken = [parts.asked, parts.prompt, parts.send, parts.stop, parts.tools, parts.look]
    options: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": 16}
    gr.on([parts.send.click, parts.prompt.submit], take, parts.prompt, taken, queue=False, api_visibility="private").then(
        run, inputs, parts.outputs, **options
    )
    for button, one in zip(parts.presets, PRESETS, strict=True):
        button.click(partial(take, one.prompt, one.look), None, taken, queue=False, api_visibility="private").then(
            run, inputs, parts.outputs, **options
        )
    parts.again.click(
        take_again, [parts.turns, parts.temperature, parts.seed], [*taken, parts.turns, parts.seed], queue=False, api_visibility="private"
    ).then(run, inputs, parts.outputs, **options)
    parts.edit.click(
        edit, parts.turns, [parts.prompt, parts.turns, parts.tools, *parts.chats, *parts.facts], queue=False, api_visibility="private"
    ).then(None, js="() => document.querySelector('#compare-prompt textarea').focus()")
    parts.stop.click(halt, None, parts.stop, queue=False, api_visibility="private")
    parts.fresh.click(forget, None, parts.outputs, queue=False, api_visibility="private")
    gr.on([one.input for one in parts.pickers], forget, None, parts.outputs, **LATEST, **QUIET)
    last = parts.pickers[-1]
    last.change(lambda value: gr.Column(visible=value != NOBODY), last, parts.columns[-1], **QUIET)
    renamed = [ctx.items["compare"].select, *[one.input for one in (sidebar.model, sidebar.bits, sidebar.group_size, sidebar.symmetric)]]
    gr.on(renamed, pickers_now, [*parts.pickers, *sidebar.inputs], list(parts.pickers), **LATEST, **QUIET)

    def on_load(opened: Any) -> None:
        opened.then(pickers_now, [*parts.pickers, *sidebar.inputs], list(parts.pickers), **QUIET)

    ctx.load_hooks.append(on_load)
    blind.build(ctx, pool)


def _answers(
    ctx: UiContext, pool: ChatPool, stop: Any, turns: list[Turn], asked: str, system: str, values: tuple[Any, Any, Any]
) -> Iterator[Updates]:
    """The page after every piece of news; a problem is one sentence in the place of the speeds, and the prompt goes back into its box."""
    named, sampling, shared = values
    try:
        question = ask(ctx.store, Choices.of(*shared), named, asked, system, sampling)
        sides: tuple[Side, ...] = ()
        drawn: tuple[Side, ...] = ()
        for sides in answer(pool, question, turns, stop):
            yield _at_work(turns, question, sides, drawn)
            drawn = sides
    except SalqError as error:
        told = [reading(str(error), problem=True), *[""] * (SIDES - 1)]
        yield [*[gr.skip()] * SIDES, *told, gr.skip(), *_idle(), asked, gr.Column(visible=bool(turns))]
        return
    done = turn_of(question, sides)
    yield _finished([*turns, done] if any(done["answers"]) else turns, question, sides)


def _at_work(turns: list[Turn], question: Question, sides: tuple[Side, ...], drawn: tuple[Side, ...]) -> Updates:
    """In the order of `_Parts.outputs`; only what changed since `drawn` is sent."""
    chats, facts = [gr.skip()] * SIDES, [gr.skip()] * SIDES
    for index, side in enumerate(sides):
        if not drawn or side.text != drawn[index].text:
            chats[index] = talk_html(bubbles(turns, index, question.prompt, side.text))
        if not drawn or side != drawn[index]:
            facts[index] = facts_html(side, question.note if index == 0 else "")
    return [*chats, *facts, *[gr.skip()] * 5]


def _finished(turns: list[Turn], question: Question, sides: tuple[Side, ...]) -> Updates:
    """In the order of `_Parts.outputs`: the conversation with its new turn, and the next question may be asked."""
    chats = [talk_html(bubbles(turns, index)) for index in range(SIDES)]
    facts = [facts_html(side, question.note if index == 0 else "") for index, side in enumerate(sides)]
    return [*chats, *facts, *[""] * (SIDES - len(sides)), turns, *_idle(), gr.skip(), gr.Column(visible=bool(turns))]


def _idle() -> Updates:
    """Send and stop when nobody is writing."""
    return [gr.Button(visible=True), gr.Button(visible=False)]


def _options(everybody: list[tuple[str, str]], side: int) -> list[tuple[str, str]]:
    """Who may talk on a side: the last one may stay empty."""
    return [one for one in everybody if one[1] != NOBODY or FIRST[side] == NOBODY]


def _picker_updates(ctx: UiContext, chosen: tuple[str, ...], shared: tuple[Any, ...]) -> Updates:
    """The lists of who can talk, with the sidebar's grid in words; a choice that is gone becomes what the side began with."""
    try:
        options = side_choices(ctx.store, Choices.of(*shared))
    except SalqError:
        return [gr.skip()] * SIDES
    lists = [_options(options, side) for side in range(SIDES)]
    return [
        gr.Dropdown(choices=listed, value=value if any(value == known for _, known in listed) else FIRST[side])
        for side, (value, listed) in enumerate(zip(chosen, lists, strict=True))
    ]
