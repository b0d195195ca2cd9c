"""`python -m salq.chat.serve`: one participant in its own process, JSON lines in on stdin, JSON lines out on stdout.

In:  {"op": "load", "participant", "device", "sides"} first, then any number of
     {"op": "generate", "id", "messages", "sampling", "sides"} and {"op": "stop", "id"}.
Out: {"event": "status" | "ready" | "start" | "token" | "done" | "error", ...}; those of a generation carry its id.

The process ends when stdin does (its parent is gone), after a loading error, and after `idle_seconds` without a request. What
is not a SalqError ends it with a traceback on stderr; the parent says so and the next message starts another one.
"""

import dataclasses
import json
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TextIO

import torch

from salq.chat.generate import stream
from salq.chat.loading import load_participant
from salq.chat.participants import Participant
from salq.chat.prompt import encode_prompt
from salq.chat.sampling import Sampling
from salq.core.device import process_memory_gb, thread_count
from salq.core.errors import ConfigError, SalqError
from salq.kernels.assemble import execution
from salq.kernels.engine import Decoder, decoder_for
from salq.models.llama import Llama

IDLE_SECONDS = 900.0
"""A model nobody talks to gives its memory back after this long."""

Json = dict[str, Any]


class Link:
    """The two pipes. A thread reads requests, so that a stop, or the parent's death, is seen in the middle of a token."""

    def __init__(self, incoming: TextIO, outgoing: TextIO) -> None:
        """Start reading."""
        self.requests: queue.Queue[Json] = queue.Queue()
        self._outgoing = outgoing
        self._stopped: set[str] = set()
        threading.Thread(target=self._read, args=(incoming,), daemon=True).start()

    def stopped(self, request_id: str) -> bool:
        """Whether somebody asked to stop this generation."""
        return request_id in self._stopped

    def send(self, event: str, **fields: Any) -> None:
        """Write one line. A parent that no longer reads ends the process."""
        try:
            self._outgoing.write(json.dumps({"event": event, **fields}, allow_nan=False) + "\n")
            self._outgoing.flush()
        except BrokenPipeError:
            os._exit(0)

    def _read(self, incoming: TextIO) -> None:
        for line in incoming:
            request = json.loads(line)
            if request["op"] == "stop":
                self._stopped.add(request["id"])
            else:
                self.requests.put(request)
        os._exit(0)  # stdin ended: the parent is gone, and the model may be in the middle of a long computation


Answer = Callable[[Json, Link], Iterator[Json]]


def main() -> None:
    """Load, then answer until the end."""
    work(_load)


def work(load: Callable[[Link], Answer]) -> None:
    """The life of a process: load what the first request names, then answer one request after the other."""
    # Libraries may print: the protocol keeps the real stdout, everything else goes to stderr. And stdin of its own: Python cannot end in order
    # while a thread waits in sys.stdin.
    incoming, outgoing = os.fdopen(os.dup(sys.stdin.fileno()), encoding="utf-8"), os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    link = Link(incoming, outgoing)
    try:
        respond = load(link)
    except SalqError as error:
        link.send("error", message=str(error))
        return
    while True:
        try:
            request = link.requests.get(timeout=IDLE_SECONDS)
        except queue.Empty:
            return
        for event in respond(request, link):
            link.send(**event)


def _load(link: Link) -> Answer:
    request = link.requests.get()
    started = time.perf_counter()
    participant = Participant.from_json(request["participant"])
    share_cores(int(request.get("sides", 1)))  # before executors make their threads
    link.send("status", text=f"Loading {participant.title}")
    llama = load_participant(participant, request.get("device", "auto"))
    decoder = decoder_for(llama)
    link.send(
        "ready",
        title=participant.title,
        is_chat=llama.is_chat,
        reference=llama.reference_label if participant.kind == "original" else "",
        device=str(llama.device),
        execution=execution(llama),
        dtype=str(llama.dtype).removeprefix("torch."),
        seconds=time.perf_counter() - started,
        memory_gb=memory_gb(llama),
    )
    return partial(answer, llama, decoder)


def answer(llama: Llama, decoder: Decoder, request: Json, link: Link) -> Iterator[Json]:
    """The events of one generation; a SalqError becomes its last event."""
    about = {"id": str(request.get("id", ""))}
    try:
        sampling = Sampling(**request["sampling"])
        share_cores(int(request.get("sides", 1)))
        prompt = encode_prompt(llama, request["messages"], sampling.max_new_tokens)
        yield {"event": "start", "style": prompt.style, "prompt_tokens": len(prompt.ids), "notes": list(prompt.notes), **about}
        pace, ids = Pace(), list[int]()
        for token in stream(llama, prompt, sampling, lambda: link.stopped(about["id"]), decoder):
            pace.add(token.token_id is not None and token.end == "", token.seconds)
            ids += [] if token.token_id is None else [token.token_id]
            news = {"text": token.text, **dataclasses.asdict(pace.report()), **about}
            if token.end:
                yield {"event": "done", "end": token.end, "ids": ids, "memory_gb": memory_gb(llama), **news}
            else:
                yield {"event": "token", **news}
    except SalqError as error:
        yield {"event": "error", "message": str(error), **about}
    except (KeyError, TypeError) as error:
        yield {"event": "error", "message": str(ConfigError(f"The request is not one that this process knows: {error!r}.")), **about}


@dataclasses.dataclass(frozen=True)
class Speed:
    """How fast an answer came: the time to the first token in seconds, and tokens per second after it (None before two)."""

    count: int
    seconds: float
    first_token_seconds: float | None
    tokens_per_second: float | None


class Pace:
    """Counts tokens and the time between them."""

    def __init__(self) -> None:
        """Nothing generated yet."""
        self._count, self._first, self._last, self._now = 0, 0.0, 0.0, 0.0

    def add(self, is_token: bool, seconds: float) -> None:
        """One item of the stream at `seconds` after the prompt was given."""
        self._now = seconds
        if is_token:
            self._count += 1
            self._first = seconds if self._count == 1 else self._first
            self._last = seconds

    def report(self) -> Speed:
        """The speed so far."""
        span = self._last - self._first
        rate = (self._count - 1) / span if self._count > 1 and span > 0 else None
        return Speed(self._count, self._now, self._first if self._count else None, rate)


def memory_gb(llama: Llama) -> float:
    """What this participant really holds: the process's proportional memory, or the GPU's allocation where the model is there."""
    if llama.device.type == "cuda":
        return torch.cuda.memory_allocated(llama.device) / 1e9
    return process_memory_gb()


def share_cores(sides: int) -> None:
    """Sides that answer at the same time share the cores; more threads than cores would slow both."""
    torch.set_num_threads(max(1, thread_count() // max(1, sides)))


if __name__ == "__main__":
    main()
