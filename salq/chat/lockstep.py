"""Two or three participants answer the same prompt at the same time; whoever has news, everybody's state is yielded."""

import queue
import threading
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from salq.chat.participants import Participant
from salq.chat.pool import ChatPool
from salq.chat.sampling import Sampling
from salq.chat.text import printable

Json = dict[str, Any]
State = Literal["waiting", "loading", "writing", "done", "stopped", "failed"]

NEWS_SECONDS = 0.2
"""Tokens that come within this time are shown together. A page that is sent more than a slow browser can draw falls behind by minutes."""

ENDED = ("done", "stopped", "failed")

END_SENTENCES = {
    "length": "Cut at the chosen length.",
    "context": "Cut because the model's context is full.",
    "stopped": "Stopped.",
    "end": "",
}


@dataclass(frozen=True)
class Side:
    """What is known of one side's answer. `message` is one sentence about its state, `notes` are about the prompt,
    `execution` says what runs the matrices and why, `ids` are the answer's tokens once it has ended (with the one that ended it).
    """

    participant: Participant
    state: State = "loading"
    text: str = ""
    message: str = ""
    notes: tuple[str, ...] = ()
    count: int = 0
    first_token_seconds: float | None = None
    tokens_per_second: float | None = None
    memory_gb: float | None = None
    seconds: float | None = None
    end: str = ""
    style: str = ""
    reference: str = ""
    device: str = ""
    execution: str = ""
    ids: tuple[int, ...] = ()

    @property
    def has_ended(self) -> bool:
        """Nothing more will come."""
        return self.state in ENDED

    def to_json(self) -> Json:
        """What the command line prints."""
        names = ("state", "text", "message", "count", "first_token_seconds", "tokens_per_second", "memory_gb", "seconds", "end", "style")
        who = {"title": self.participant.title, "kind": self.participant.kind, "run": self.participant.run_id}
        where = {"device": self.device, "execution": self.execution}
        return {**who, **where, **{name: getattr(self, name) for name in names}, "notes": list(self.notes), "reference": self.reference}


def fold(side: Side, event: Json) -> Side:
    """The side after one event of its process (see `serve` and `ChatProcess.stream`)."""
    kind = event["event"]
    if kind in {"waiting", "status"}:
        return replace(side, state="waiting" if kind == "waiting" else "loading", message=event["text"])
    if kind == "ready":
        known = {name: event[name] for name in ("reference", "device", "execution", "memory_gb")}
        return replace(side, state="writing", message="Reading the prompt", **known)
    if kind == "start":
        return replace(side, state="writing", style=event["style"], notes=tuple(event["notes"]))
    if kind == "error":
        return replace(side, state="failed", message=event["message"])
    names = ("count", "seconds", "first_token_seconds", "tokens_per_second", "memory_gb")
    side = replace(side, text=side.text + printable(event["text"]), message="", **{name: event[name] for name in names if name in event})
    if kind == "done":
        end = event["end"]
        state: State = "stopped" if end == "stopped" else "done"
        side = replace(side, state=state, end=end, message=END_SENTENCES.get(end, ""), ids=tuple(event.get("ids", ())))
    return side


def lockstep(
    pool: ChatPool,
    participants: Sequence[Participant],
    conversations: Sequence[Sequence[Json]],
    sampling: Sampling,
    stop: threading.Event,
    device: str = "auto",
) -> Generator[tuple[Side, ...], None, None]:
    """All sides after every piece of news, until all have ended. `conversations[i]` are the messages of side i.

    The sides share the seed and the cores. Closing the iterator stops every side.
    """
    news: queue.Queue[tuple[int, Json | None]] = queue.Queue()

    def follow(index: int) -> None:
        try:
            for event in pool.stream(participants[index], device, conversations[index], sampling, stop, len(participants)):
                news.put((index, event))
        finally:
            news.put((index, None))

    sides = [Side(participant) for participant in participants]
    for index in range(len(sides)):
        threading.Thread(target=follow, args=(index,), daemon=True).start()
    running = len(sides)
    try:
        while running:
            for index, event in _batch(news):
                if event is not None:
                    sides[index] = fold(sides[index], event)
                    continue
                running -= 1
                if not sides[index].has_ended:
                    sides[index] = replace(sides[index], state="failed", message="This side ended without an answer; send the message again.")
            yield tuple(sides)
    finally:
        stop.set()


def _batch(news: "queue.Queue[tuple[int, Json | None]]") -> list[tuple[int, Json | None]]:
    """The next news and what comes within NEWS_SECONDS of it."""
    batch = [news.get()]
    until = time.monotonic() + NEWS_SECONDS
    while (left := until - time.monotonic()) > 0:
        try:
            batch.append(news.get(timeout=left))
        except queue.Empty:
            break
    return batch
