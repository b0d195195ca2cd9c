"""What the blind test does, without gradio: two answers without names in an order that only this process knows, one guess, the reveal.

Nothing that the browser is sent before the guess differs between the sides by which one is quantized: not the place, not a speed, not a remark.
"""

import secrets
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from salq.chat.lockstep import Side, lockstep
from salq.chat.participants import Participant
from salq.chat.pool import ChatPool
from salq.chat.sampling import Sampling
from salq.chat.text import clean_prompt
from salq.core.errors import ConfigError, SalqError
from salq.runs import blind
from salq.runs.blind import Outcome, Tally
from salq.runs.sides import run_participant, talking_runs
from salq.runs.store import RunStore
from salq.ui.context import Choices

RTN = "rtn"
TOKENS = 96
OPEN_ROUNDS = 4096
"""Rounds that wait for a guess; visitors who left without guessing are forgotten, the oldest first."""
PROMPTS = (
    "Explain in two sentences why the sky is blue.",
    "What is the capital of France, and what is it known for?",
    "Write a short poem about a lighthouse.",
    "Give three tips for sleeping better.",
    "What happens when you mix vinegar and baking soda?",
    "Tell a story of three sentences about a lost key.",
    "How do you make a cup of tea?",
    "Name four planets and one fact about each.",
    "Why do leaves fall in autumn?",
    "Write a polite message that declines an invitation.",
)


@dataclass(frozen=True)
class Round:
    """One question of the test. `quantized` is the place, 0 or 1, of the quantized side; `run` is "" when rounding to nearest is tested."""

    participants: tuple[Participant, Participant]
    quantized: int
    run: str
    prompt: str
    note: str
    own_prompt: bool
    device: str
    sides: tuple[Side, ...] = ()

    @property
    def is_tie(self) -> bool:
        """Whether both wrote the same."""
        return len({side.text for side in self.sides}) == 1


def choices_of(store: RunStore, choices: Choices) -> list[tuple[str, str]]:
    """(label, value) of what can be tested against its original: finished runs, and rounding to nearest at the sidebar's grid."""
    runs = [(f"run: {info.title} ({info.id})", info.id) for info in talking_runs(store)]
    return [*runs, (f"{choices.short_model} rounded to nearest, {choices.spec.tag}", RTN)]


def deal(store: RunStore, choices: Choices, who: str, prompt: str) -> Round:
    """A new round: the original and `who` in an order drawn by the system's own randomness. Raises SalqError."""
    if not who:
        raise ConfigError("Nothing is chosen to be tested; pick a run or rounding to nearest.")
    cleaned = clean_prompt(prompt if isinstance(prompt, str) else "")
    quantized = Participant.rtn(choices.model, choices.spec) if who == RTN else run_participant(store, who)
    original = Participant.original(quantized.model)
    place = secrets.randbelow(2)
    order = (original, quantized) if place else (quantized, original)
    run = "" if who == RTN else who
    return Round(order, place, run, cleaned.text, cleaned.note, cleaned.text not in PROMPTS, choices.device)


def play(pool: ChatPool, dealt: Round, stop: threading.Event) -> Iterator[tuple[Side, ...]]:
    """Both sides after every piece of news, until both have ended."""
    messages = [{"role": "user", "content": dealt.prompt}]
    return lockstep(pool, dealt.participants, [messages, messages], Sampling(TOKENS), stop, dealt.device)


def waiting_words(sides: Sequence[Side]) -> str:
    """What both are doing, without saying which."""
    if any(side.state in {"waiting", "loading"} for side in sides):
        return "The models are being loaded, or wait for another visitor's answer."
    return "Both are writing; the answers appear together, so that speed gives nothing away."


def failure(sides: Sequence[Side]) -> str:
    """Why there is nothing to judge; '' when both answered."""
    failed = next((side.message for side in sides if side.state == "failed"), "")
    if failed:
        return failed
    return "" if sides and all(side.text.strip() for side in sides) else "One side wrote nothing; ask something else."


class Rounds:
    """Rounds that wait for a guess, by visitor; they never leave this process."""

    def __init__(self) -> None:
        """Nobody plays."""
        self._open: OrderedDict[str, Round] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, session: str, dealt: Round) -> None:
        """This visitor may guess; an older round of theirs is forgotten."""
        with self._lock:
            self._open.pop(session, None)
            self._open[session] = dealt
            while len(self._open) > OPEN_ROUNDS:
                self._open.popitem(last=False)

    def take(self, session: str) -> Round | None:
        """The visitor's round, once: a second guess finds nothing."""
        with self._lock:
            return self._open.pop(session, None)


def answered(dealt: Round, sides: Sequence[Side]) -> Round:
    """The round with its answers."""
    return replace(dealt, sides=tuple(sides))


def judge(store: RunStore, dealt: Round, guess: int | None) -> Outcome:
    """The outcome of a guess (the place, 0 or 1; None for a tie), kept with the run when it is one's result. Raises ResourceError."""
    outcome: Outcome = "tie" if dealt.is_tie else "right" if guess == dealt.quantized else "wrong"
    if dealt.run:
        blind.record(store, dealt.run, outcome, own_prompt=dealt.own_prompt)
    return outcome


def run_tally(store: RunStore, who: str) -> Tally:
    """All judgements of a run; none for rounding to nearest, which has no folder to keep them, and for a run that is gone."""
    try:
        return blind.tally(store, who) if who and who != RTN else Tally()
    except SalqError:
        return Tally()
