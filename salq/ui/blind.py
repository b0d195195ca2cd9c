"""The blind test at the foot of Compare: two answers without names, a guess, the reveal, and the score against chance."""

from collections.abc import Iterator
from html import escape
from typing import Any

import gradio as gr

from salq.chat.lockstep import Side
from salq.chat.pool import ChatPool
from salq.core.errors import SalqError
from salq.runs.blind import Outcome, Tally
from salq.ui.blind_actions import PROMPTS, RTN, Round, Rounds, answered, choices_of, deal, failure, judge, play, run_tally, waiting_words
from salq.ui.compare_actions import Stops, side_words
from salq.ui.context import Choices, UiContext, errors_shown
from salq.ui.html import lede, note, reading
from salq.ui.listening import LATEST, QUIET

TITLE = "Blind test: which one is quantized?"
LEDE = "Two answers to one prompt, one of them by the original. Can you tell?"
WHO_INFO = "A finished run, or rounding to nearest, against its own original."
PROMPT_INFO = "Ours or your own; what you type is not kept."
KEPT_NOTE = "Guesses on a run are counted in the run's folder: the outcome and the day, nothing about you or your prompt."
OUTCOME_WORDS: dict[Outcome, str] = {
    "right": "Right.",
    "wrong": "Wrong.",
    "tie": "Both wrote the same, word for word: nothing to guess, and it counts as neither.",
}
PLACES = ("Left", "Right")
Updates = list[Any]


def build(ctx: UiContext, pool: ChatPool) -> None:
    """Lay the section out and wire it. `pool`: the processes that the tab's other answers use."""
    first = choices_of(ctx.store, Choices(ctx.default_model, 3, 64, False, "auto", "auto"))
    with gr.Accordion(TITLE, open=False, elem_id="blind"):
        gr.HTML(lede(LEDE))
        with gr.Row(elem_classes="salq-fields"):
            who = gr.Dropdown(first, value=first[0][1], label="Under test", info=WHO_INFO, elem_id="blind-who", min_width=240)
            prompt = gr.Textbox(PROMPTS[0], label="Prompt", info=PROMPT_INFO, max_length=20_000, max_lines=4, elem_id="blind-prompt", min_width=240)
        with gr.Row():
            start = gr.Button("Ask both", variant="primary", elem_id="blind-ask", scale=0, min_width=140)
            other = gr.Button("Another prompt", elem_id="blind-next", scale=0, min_width=170)
        told = gr.HTML(note(KEPT_NOTE), elem_id="blind-told")
        answers, guesses = [], []
        with gr.Row(equal_height=False, visible=False, elem_id="blind-sides") as stage:
            for place, name in enumerate(PLACES):
                with gr.Column(min_width=280):
                    answers.append(gr.HTML("", elem_id=f"blind-answer-{place}", elem_classes="salq-talk"))
                    guesses.append(gr.Button(f"{name} is quantized", visible=False, elem_id=f"blind-guess-{place}"))
        result = gr.HTML("", elem_id="blind-result")
        score = gr.HTML("", elem_id="blind-score")
        mine = gr.State((0, 0, 0))
        drawn = gr.State(0)
    outputs = [told, stage, *answers, *guesses, start, result, score, mine]
    _wire(ctx, pool, {"who": who, "prompt": prompt, "start": start, "other": other, "score": score, "mine": mine, "drawn": drawn}, guesses, outputs)


def _wire(ctx: UiContext, pool: ChatPool, parts: dict[str, Any], guesses: list[gr.Button], outputs: list[Any]) -> None:
    rounds, stops = Rounds(), Stops()
    who, prompt, mine = parts["who"], parts["prompt"], parts["mine"]

    def ask(request: gr.Request, chosen: str, text: str, own: tuple[int, int, int], *shared: Any) -> Iterator[Updates]:
        session = request.session_hash or ""
        stop = stops.begin(session)
        rounds.take(session)
        try:
            for update, dealt in _asked(ctx, pool, stop, (chosen, text), own, shared):
                if dealt is not None:
                    rounds.put(session, dealt)
                yield update
        finally:
            stops.end(session, stop)

    def guesser(place: int) -> Any:
        def guess(request: gr.Request, own: tuple[int, int, int]) -> Updates:
            dealt = rounds.take(request.session_hash or "")
            if dealt is None:  # a second click, or a page that was restarted meanwhile
                return [gr.skip()] * len(outputs)
            with errors_shown():
                outcome = judge(ctx.store, dealt, place)
            return _revealed(ctx, dealt, outcome, own)

        return guess

    def next_prompt(number: int) -> Updates:
        following = (number + 1) % len(PROMPTS)
        return [following, PROMPTS[following]]

    def now(chosen: str | None, own: tuple[int, int, int], *shared: Any) -> Updates:
        try:
            options = choices_of(ctx.store, Choices.of(*shared))
        except SalqError:
            return [gr.skip(), gr.skip()]
        value = chosen if any(chosen == known for _, known in options) else options[0][1]
        return [gr.Dropdown(choices=options, value=value), _score_html(run_tally(ctx.store, value or ""), Tally(*own), value or "")]

    def show_score(chosen: str | None, own: tuple[int, int, int]) -> str:
        return _score_html(run_tally(ctx.store, chosen or ""), Tally(*own), chosen or "")

    side = ctx.sidebar
    gr.on([parts["start"].click, prompt.submit], ask, [who, prompt, mine, *side.inputs], outputs, **(QUIET | {"concurrency_limit": 16}))
    for place, button in enumerate(guesses):
        button.click(guesser(place), mine, outputs, **QUIET)
    parts["other"].click(next_prompt, parts["drawn"], [parts["drawn"], prompt], queue=False, **QUIET)
    who.input(show_score, [who, mine], parts["score"], **LATEST, **QUIET)
    renamed = [ctx.items["compare"].select, *[one.input for one in (side.model, side.bits, side.group_size, side.symmetric)]]
    gr.on(renamed, now, [who, mine, *side.inputs], [who, parts["score"]], **LATEST, **QUIET)
    ctx.load_hooks.append(lambda opened: opened.then(now, [who, mine, *side.inputs], [who, parts["score"]], **QUIET))


def _asked(
    ctx: UiContext, pool: ChatPool, stop: Any, wanted: tuple[str, str], own: tuple[int, int, int], shared: tuple[Any, ...]
) -> Iterator[tuple[Updates, Round | None]]:
    """The page while both write, and with their answers; the round that may be guessed comes with the last update."""
    yield _told(waiting_words(())), None
    sides: tuple[Side, ...] = ()
    shown = ""
    try:
        dealt = deal(ctx.store, Choices.of(*shared), *wanted)
        for sides in play(pool, dealt, stop):
            if (words := waiting_words(sides)) != shown:
                shown = words
                yield _told(words), None
    except SalqError as error:
        yield _told(str(error), problem=True), None
        return
    if why := failure(sides):
        yield _told(why, problem=True), None
        return
    dealt = answered(dealt, sides)
    if dealt.is_tie:
        with errors_shown():
            outcome = judge(ctx.store, dealt, None)
        yield _revealed(ctx, dealt, outcome, own), None
        return
    yield [
        note(dealt.note), gr.Row(visible=True), *(_answer_html(place, side) for place, side in enumerate(sides)), *[gr.Button(visible=True)] * 2,
        gr.Button(interactive=True), reading("Which one is quantized?"), gr.skip(), gr.skip(),
    ], dealt  # fmt: skip


def _told(words: str, *, problem: bool = False) -> Updates:
    """In the order of the outputs: a sentence, and nothing to guess yet."""
    hidden = [gr.Row(visible=False), "", "", *[gr.Button(visible=False)] * 2, gr.Button(interactive=problem)]
    return [reading(words, problem=problem), *hidden, "", gr.skip(), gr.skip()]


def _revealed(ctx: UiContext, dealt: Round, outcome: Outcome, own: tuple[int, int, int]) -> Updates:
    """In the order of the outputs: who was who, what each side cost, and the score."""
    mine = Tally(*own).plus(outcome)
    who = dealt.run or RTN
    facts = "".join(
        f'<p class="salq-side-facts">{PLACES[place]}: <b>{escape(side.participant.title)}</b> {escape(side_words(side))}</p>'
        for place, side in enumerate(dealt.sides)
    )
    words = OUTCOME_WORDS[outcome] + (f" {PLACES[dealt.quantized]} was quantized." if outcome != "tie" else "")
    answers = [_answer_html(place, side) for place, side in enumerate(dealt.sides)]
    return [
        note(dealt.note), gr.Row(visible=True), *answers, *[gr.Button(visible=False)] * 2, gr.Button(interactive=True), reading(words) + facts,
        _score_html(run_tally(ctx.store, who), mine, who), (mine.right, mine.wrong, mine.tie),
    ]  # fmt: skip


def _answer_html(place: int, side: Side) -> str:
    """An answer under the name of its place alone; text of a model is never markup."""
    text = f'<div class="assistant"><span class="salq-hidden">{PLACES[place]}: </span>{escape(side.text)}</div>'
    return f'<div class="salq-log-talk" role="group" tabindex="0" aria-label="{PLACES[place]} answer">{text}</div>'


def _score_html(everybody: Tally, mine: Tally, who: str) -> str:
    """This visitor's score, and that of everybody who judged the run."""
    own = note(f"You so far: {mine.words}") if mine.words else ""
    return own + (note(f"Everybody on this run: {everybody.words}") if who != RTN and everybody.words else "")
