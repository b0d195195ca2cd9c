"""What Compare does, without gradio: who can talk, one conversation per visitor as plain turns, and how a side is told in words."""

import math
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from salq.chat.lockstep import Side, lockstep
from salq.chat.participants import Participant
from salq.chat.pool import ChatPool
from salq.chat.sampling import MAX_SEED, Sampling
from salq.chat.text import clean_prompt, printable
from salq.core.errors import ConfigError, SalqError
from salq.core.files import read_json
from salq.runs.exploration import kept_folder
from salq.runs.sides import run_participant, talking_runs
from salq.runs.store import RunStore
from salq.ui.context import Choices

ORIGINAL, RTN, NOBODY = "original", "rtn", "nobody"
SYSTEM_CHARACTERS = 1000

Turn = dict[str, Any]
"""{"prompt": str, "answers": [str, ...], "who": [str, ...], "system": str, "ids": [[int, ...], ...], "longest": int}: what was asked, what each side
said, which model each side was then, and, to score it again, the system prompt, the answers' tokens and the longest answer allowed.
Plain values, in the visitor's own state."""


def side_choices(store: RunStore, choices: Choices) -> list[tuple[str, str]]:
    """(label, value) of everybody who can talk: none, the original, rounding to nearest at the sidebar's grid, finished runs."""
    runs = [(f"run: {info.title} ({info.id})", info.id) for info in talking_runs(store)]
    return [("none", NOBODY), ("original", ORIGINAL), (f"rounded to nearest, {choices.spec.tag}", RTN), *runs]


def participant_of(store: RunStore, choices: Choices, value: str) -> Participant:
    """Who is meant by a picker's value. Raises ConfigError, StoreError, UnknownNameError."""
    if value == ORIGINAL:
        return Participant.original(choices.model)
    if value == RTN:
        return Participant.rtn(choices.model, choices.spec)
    return run_participant(store, str(value))


def conversation(turns: Sequence[Turn], side: int, who: str, prompt: str, system: str) -> list[dict[str, Any]]:
    """The messages that one side sees: its own answers, never the other's, and none of another model that was there before."""
    messages = [{"role": "system", "content": system}] if system else []
    for turn in turns:
        said = turn["answers"][side] if side < len(turn["answers"]) and turn["who"][side] == who else ""
        if said:
            messages += [{"role": "user", "content": turn["prompt"]}, {"role": "assistant", "content": said}]
    return [*messages, {"role": "user", "content": prompt}]


def key_of(participant: Participant) -> str:
    """Which model a side is, for the history of a conversation."""
    return f"{participant.kind} {participant.model} {participant.run_id or ''} {participant.spec.tag if participant.spec else ''}"


@dataclass(frozen=True)
class Question:
    """One message of a visitor to one to three sides. Built by `ask`."""

    participants: tuple[Participant, ...]
    prompt: str
    note: str
    system: str
    sampling: Sampling
    device: str


def ask(store: RunStore, choices: Choices, sides: Sequence[str], prompt: Any, system: Any, sampling: Sequence[Any]) -> Question:
    """Check a message and who is to answer it. `sampling`: longest answer, temperature, seed. Raises SalqError."""
    named = [value for value in sides if value != NOBODY]
    if not named:
        raise ConfigError("Nobody is chosen to answer; choose the original, rounding to nearest, or a run.")
    if len(set(named)) < len(named):
        raise ConfigError("The same side is chosen twice; choose two different ones to compare.")
    cleaned = clean_prompt(prompt if isinstance(prompt, str) else "")
    longest, temperature, seed = sampling
    return Question(
        participants=tuple(participant_of(store, choices, value) for value in named),
        prompt=cleaned.text,
        note=cleaned.note,
        system=printable(system if isinstance(system, str) else "").strip()[:SYSTEM_CHARACTERS],
        sampling=Sampling(_whole(longest), temperature, _whole(seed)),
        device=choices.device,
    )


def answer(pool: ChatPool, question: Question, turns: Sequence[Turn], stop: threading.Event) -> Iterator[tuple[Side, ...]]:
    """All sides after every piece of news."""
    conversations = [
        conversation(turns, index, key_of(participant), question.prompt, question.system) for index, participant in enumerate(question.participants)
    ]
    return lockstep(pool, question.participants, conversations, question.sampling, stop, question.device)


def bubbles(turns: Sequence[Turn], side: int, prompt: str = "", text: str = "") -> list[dict[str, str]]:
    """Messages of one side for the page: the turns so far and the one that is being written."""
    shown = [{"role": role, "content": content} for turn in turns for role, content in _pair(turn, side)]
    if prompt:
        shown.append({"role": "user", "content": prompt})
    if text:
        shown.append({"role": "assistant", "content": text})
    return shown


def turn_of(question: Question, sides: Sequence[Side]) -> Turn:
    """What is remembered of a finished answer."""
    return {
        "prompt": question.prompt,
        "answers": [side.text for side in sides],
        "who": [key_of(side.participant) for side in sides],
        "system": question.system,
        "ids": [list(side.ids) for side in sides],
        "longest": question.sampling.max_new_tokens,
    }


def last_question(turns: Sequence[Turn]) -> tuple[str, list[Turn]]:
    """The last prompt ('' when there is none) and the conversation before it."""
    return (str(turns[-1]["prompt"]) if turns else ""), list(turns[:-1])


def next_seed(temperature: Any, seed: Any) -> Any:
    """The seed of another answer to the same question: the same one where chance plays no part."""
    if not isinstance(seed, int | float) or not isinstance(temperature, int | float) or not temperature > 0:
        return seed
    return (int(seed) + 1) % (MAX_SEED + 1)


def side_words(side: Side) -> str:
    """Speed, memory and state of a side in one line."""
    parts = []
    if side.tokens_per_second is not None:
        parts.append(f"{side.tokens_per_second:.1f} tokens/s")
    if side.first_token_seconds is not None:
        parts.append(f"first token after {side.first_token_seconds:.2f} s")
    if side.memory_gb is not None:
        parts.append(f"{side.memory_gb:.2f} GB of memory")
    if side.device and side.device != "cpu":
        parts.append(f"on {side.device}")
    if side.count:
        parts.append(f"{side.count} tokens")
    return ", ".join(parts)


def side_remarks(side: Side) -> str:
    """What a reader must know about this answer: how it ended, what was cut, that it is a base model, what the original is made of, what ran it."""
    reference = "" if side.reference in {"", "full precision"} else f"This is a {side.reference}."
    message = "" if side.state == "failed" else side.message
    execution = f"Runs on {side.execution}: {_why(side)}." if side.execution else ""
    return " ".join(part for part in (message, *side.notes, reference, execution) if part)


def _why(side: Side) -> str:
    """Why this executor runs the side; what was passed over, and why, stands in `execution` itself."""
    if side.participant.kind == "original":
        return "its weights are not quantized, so torch's own products run them"
    if side.participant.executor != "auto":
        return "it was asked for"
    return "the fastest executor here that can run these codes"


@dataclass(frozen=True)
class KeptChat:
    """A conversation that the repository keeps: real answers of real models, with the command that made them."""

    prompt: str
    titles: tuple[str, ...]
    answers: tuple[str, ...]
    facts: tuple[str, ...]
    command: str

    @property
    def turn(self) -> Turn:
        """As a turn of a conversation."""
        return {"prompt": self.prompt, "answers": list(self.answers), "who": list(self.titles)}


def kept_chat(model: str) -> KeptChat | None:
    """The kept conversation of a catalogue model (the output of `salq chat --json` and its command); None when there is none."""
    try:
        found = read_json(kept_folder(model) / "chat.json")
        sides = found["sides"][:2]
        return KeptChat(
            prompt=printable(str(found["prompt"])),
            titles=tuple(str(side["title"]) for side in sides),
            answers=tuple(printable(str(side["text"])) for side in sides),
            facts=tuple(_kept_words(side) for side in sides),  # its speed would say how busy the machine that made it was
            command=str(found.get("command", "")),
        )
    except (OSError, ValueError, KeyError, TypeError, SalqError):
        return None


class Stops:
    """The stop request of every visitor's current answer, by session. One answer at a time for each visitor."""

    def __init__(self) -> None:
        """Nobody is waiting."""
        self._events: dict[str, threading.Event] = {}
        self._lock = threading.Lock()

    def begin(self, session: str) -> threading.Event:
        """A new answer of this visitor; an older one that still runs is stopped."""
        event = threading.Event()
        with self._lock:
            older, self._events[session] = self._events.get(session), event
        if older is not None:
            older.set()
        return event

    def end(self, session: str, event: threading.Event) -> None:
        """The answer is over."""
        event.set()
        with self._lock:
            if self._events.get(session) is event:
                del self._events[session]

    def stop(self, session: str) -> None:
        """Stop this visitor's answer, if there is one."""
        with self._lock:
            event = self._events.get(session)
        if event is not None:
            event.set()


def _kept_words(side: dict[str, Any]) -> str:
    reference = "" if side.get("reference") in {None, "", "full precision"} else f"a {side['reference']}, "
    return f"{reference}{side['memory_gb']:.2f} GB of memory"


def _pair(turn: Turn, side: int) -> list[tuple[str, str]]:
    answer = turn["answers"][side] if side < len(turn["answers"]) else ""
    return [("user", turn["prompt"]), *([("assistant", answer)] if answer else [])]


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value != int(value):
        raise ConfigError(f"{value!r} is not a whole number; length and seed must be.")
    return int(value)
