"""What the token view does, without gradio: which text is scored by whom, what the process is asked, and its answers as rows and words."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from salq.chat.participants import Participant
from salq.chat.scorer import ScorePool
from salq.chat.text import clean_prompt, printable
from salq.core.errors import ConfigError, TextError
from salq.core.files import read_json
from salq.figures import payload, restored_shares
from salq.runs.exploration import kept_folder
from salq.runs.store import RunStore
from salq.ui.compare_actions import NOBODY, ORIGINAL, Turn, conversation, key_of, participant_of
from salq.ui.context import Choices

OWN_CHARACTERS = 8000
MAX_TOKENS = 1024
"""Most tokens of a text that are scored (`scoring.MAX_TOKENS`, which would import torch)."""
SOURCES = {"original": "The original's last answer", "side": "The side's last answer", "own": "My own text"}
HEADER = (
    "#",
    "token",
    "KL (nats)",
    "change of log p (nats)",
    "log p, original",
    "rank, original",
    "rank, quantized",
    "first, original",
    "first, quantized",
)

Json = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """What is scored by whom. `answers`: the original's and the side's answer to the last question, to find their fork; None where one is missing.

    `note` is what was changed about a typed text, `missing` why there is no fork.
    """

    original: Participant
    side: Participant
    device: str
    subject: Json
    answers: tuple[Json, Json] | None = None
    note: str = ""
    missing: str = ""

    @property
    def key(self) -> tuple[Participant, Participant, str]:
        """Which process does it."""
        return self.original, self.side, self.device


def task_of(store: RunStore, choices: Choices, named: Sequence[str], side: Any, source: Any, own: Any, turns: Sequence[Turn]) -> Task:
    """Check what is asked for. named: the pickers' values; side: the index of the quantized one. Raises SalqError in one sentence."""
    if not isinstance(side, int) or not 0 <= side < len(named) or source not in SOURCES:
        raise ConfigError(f"Side {side!r} with text {source!r} is not offered; choose one of the sides and texts of the page.")
    value, letter = named[side], "ABC"[side]
    if value == NOBODY:
        raise ConfigError(f"Side {letter} is empty; choose who answers there, or score another side.")
    if value == ORIGINAL:
        raise ConfigError(f"Side {letter} is the original itself; choose a quantized side to compare it with.")
    original, other = Participant.original(choices.model), participant_of(store, choices, value)
    if source == "own":
        if not printable(own if isinstance(own, str) else "").strip():
            raise TextError("There is no text to score; type one, or choose an answer.")
        cleaned = clean_prompt(own, OWN_CHARACTERS)
        note = cleaned.note.replace("The prompt", "The text").replace("sent", "scored")
        return Task(original, other, choices.device, {"text": cleaned.text}, note=note)
    own_answer, sides_answer = last_answer(turns, original), last_answer(turns, other)
    chosen = own_answer if source == "original" else sides_answer
    if chosen is None:
        whose = "the original" if source == "original" else f"side {letter}"
        raise TextError(f"There is no answer of {whose} yet; ask something with it among the sides, or score a text of your own.")
    if own_answer is None or sides_answer is None:
        return Task(original, other, choices.device, chosen, missing="The fork appears when both have answered the same question.")
    return Task(original, other, choices.device, chosen, (own_answer, sides_answer))


def last_answer(turns: Sequence[Turn], who: Participant) -> Json | None:
    """The last answer of a model with the conversation that it saw, as `scoring.text_of` takes it; None where it did not answer last."""
    if not turns or key_of(who) not in turns[-1]["who"]:
        return None
    turn, side = turns[-1], turns[-1]["who"].index(key_of(who))
    if not turn.get("ids") or not turn["ids"][side]:
        return None
    messages = conversation(turns[:-1], side, key_of(who), turn["prompt"], turn.get("system", ""))
    return {"messages": messages, "ids": turn["ids"][side], "max_new_tokens": turn.get("longest", 128)}


def score(pool: ScorePool, task: Task, stop: threading.Event) -> Iterator[Json]:
    """The events of scoring the task's text (see `score_serve`)."""
    yield from pool.ask(*task.key, {"op": "score", "subject": task.subject, "answers": task.answers}, stop)


def where(pool: ScorePool, task: Task, index: Any, stop: threading.Event) -> Iterator[Json]:
    """The events of putting blocks back for one token of the scored text. Raises ConfigError for what is no index."""
    if not isinstance(index, int) or index < 0:
        raise ConfigError("No token is chosen; click one in the text, or move to it with the arrow keys.")
    yield from pool.ask(*task.key, {"op": "where", "subject": task.subject, "index": index}, stop)


def rows(view: Json) -> list[list[Any]]:
    """The table of a scored text, by HEADER."""
    return [
        [
            number, f"“{one['text']}”" + (" ≠" if one["flipped"] else ""), round(one["kl"], 4), round(one["change"], 3),
            round(one["log_probability_original"], 3), one["rank_original"], one["rank"], _first(one["top_original"]), _first(one["top"]),
        ]
        for number, one in enumerate(view["tokens"], 1)
    ]  # fmt: skip


def conditions(view: Json, seconds: float | None) -> str:
    """What a scored text was measured with; seconds: how long it took, None where that is not of this machine."""
    context = f"after {view['context_tokens']:,} tokens of context" if view["context_tokens"] > 1 else "from its second token on"
    notes = "".join(f" {note}" for note in view["notes"])
    took = "" if seconds is None else f", scored in {seconds:.1f} s" if seconds >= 0.1 else ", scored before"  # noqa: PLR2004 - remembered texts
    return f"{view['count']:,} tokens {context}{took}. {view['original']}; quantized: {view['execution']}.{notes}"


def where_rows(breakdown: Json) -> list[list[Any]]:
    """What was put back, KL left in nats, and the share removed in percent."""
    blocks = [(f"block {index}", left, share) for index, (left, share) in enumerate(zip(breakdown["blocks"], breakdown["block_shares"], strict=True))]
    kinds = [(f"{name}, all blocks", left, breakdown["matrix_shares"][name]) for name, left in breakdown["matrices"].items()]
    return [[name, round(left, 4), round(100 * share, 1)] for name, left, share in [*blocks, *kinds]]


def where_figures(breakdown: Json) -> tuple[str, str]:
    """The bars of single blocks, and of kinds of matrix in all blocks."""
    blocks, kinds = breakdown["block_shares"], breakdown["matrix_shares"]
    drawn = (
        restored_shares([str(index) for index in range(len(blocks))], blocks, breakdown["blocks"], title="One block put back", axis="block"),
        restored_shares(
            [name.rsplit(".", 1)[-1] for name in kinds], list(kinds.values()), list(breakdown["matrices"].values()),
            title="One kind of matrix put back, in all blocks", axis="matrix",
        ),
    )  # fmt: skip
    return payload(drawn[0], "salq-where-blocks"), payload(drawn[1], "salq-where-kinds")


@dataclass(frozen=True)
class KeptTokens:
    """A scored text that the repository keeps (`benchmarks/make_tokens.py`), ready to be drawn; `command` gives the same numbers."""

    shown: Json
    """What the browser draws: tokens, index of the worst one, fork."""
    reading: str
    note: str
    rows: list[list[Any]]
    where_reading: str
    where_rows: list[list[Any]]
    figures: tuple[str, str]
    command: str


KEPT = (
    "A kept example of this repository: the original's answer to “{prompt}”, scored by the original and by {quantized}. "
    "Score a text to see your own models here."
)


def kept_tokens(model: str) -> KeptTokens | None:
    """The scored text kept for a catalogue model; None when there is none or it does not read."""
    try:
        found = read_json(kept_folder(model) / "tokens.json")
        view, broken = found["view"], found["breakdown"]
        return KeptTokens(
            shown=shown_of(view, found["fork"]),
            reading=str(view["reading"]),
            note=f"{KEPT.format(prompt=printable(str(found['prompt'])), quantized=found['quantized'])} {conditions(view, None)}",
            rows=rows(view),
            where_reading=where_words(broken),
            where_rows=where_rows(broken),
            figures=where_figures(broken),
            command=str(found["command"]),
        )
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
        return None


def shown_of(view: Json, fork: Json | None) -> Json:
    """What the browser draws of a scored text."""
    return {"tokens": view["tokens"], "worst": view["worst"], "fork": fork}


def where_words(breakdown: Json) -> str:
    """What putting blocks back has shown, with the token that it is about."""
    return f"Token {breakdown['index'] + 1}: {breakdown['reading']}"


def _first(candidates: Sequence[Json]) -> str:
    return f"“{candidates[0]['text']}” {100 * candidates[0]['probability']:.0f} %"
