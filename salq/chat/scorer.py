"""Scoring from the page's side: one process that holds an original and a quantized model, shared by all visitors, one request at a time."""

import threading
from collections.abc import Iterator
from typing import Any

from salq.chat.participants import Participant
from salq.chat.pool import ChatPool, Key
from salq.chat.process import ChatProcess

Json = dict[str, Any]


class ScoreProcess(ChatProcess):
    """`python -m salq.chat.score_serve` for one pair of participants."""

    MODULE = "salq.chat.score_serve"
    WORK = ("scoring", "text")

    def __init__(self, original: Participant, participant: Participant, device: str = "auto") -> None:
        """Nothing is started yet."""
        super().__init__(participant, device)
        self.original = original

    def _load_request(self) -> Json:
        return {**super()._load_request(), "original": self.original.to_json()}


class ScorePool(ChatPool):
    """At most `limit` pairs of models in memory; the least recently used idle pair gives way."""

    BUSY = "other models are scoring a text, and no more fit at a time."

    def __init__(self, limit: int = 1) -> None:
        """At most `limit` processes."""
        super().__init__(limit)

    def ask(self, original: Participant, participant: Participant, device: str, request: Json, stop: threading.Event) -> Iterator[Json]:
        """The events of one request (see `score_serve`), after 'waiting' and 'status' events; ends with 'done' or 'error'."""
        yield from self._through((original, participant, device), stop, lambda process: process.exchange(request, stop))

    def _make(self, key: Key) -> ScoreProcess:
        return ScoreProcess(*key)
