"""One participant in its own process, seen from the page: requests in, a stream of events out, and its true memory.

One conversation at a time: a second visitor waits in line and is told so. A process that dies takes nothing with it; the next
request starts another one. Light: no torch in the page's own process.
"""

import itertools
import json
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import psutil

from salq.chat.participants import Participant
from salq.chat.sampling import Sampling
from salq.core import settings

POLL_SECONDS = 0.1
"""How long a stop request may go unseen."""

CLOSE_SECONDS = 3.0

Json = dict[str, Any]


class ChatProcess:
    """`python -m salq.chat.serve` for one participant. Started by the first request, and again after it died."""

    MODULE = "salq.chat.serve"
    WORK = ("writing", "answer")
    """What it does with what, for those who wait."""

    def __init__(self, participant: Participant, device: str = "auto") -> None:
        """Nothing is started yet."""
        self.participant, self.device = participant, device
        self.last_used = time.monotonic()
        self._child: subprocess.Popen[str] | None = None
        self._inbox: queue.Queue[Json] = queue.Queue()
        self._ready: Json | None = None
        self._line: deque[str] = deque()
        self._moved = threading.Condition()
        self._numbers = itertools.count()

    @property
    def memory_gb(self) -> float | None:
        """Proportional set size of the process in GB (resident size where the system has no such number); None when it is not alive."""
        if self._child is None or self._child.poll() is not None:
            return None
        try:
            memory = psutil.Process(self._child.pid).memory_full_info()
        except psutil.Error:
            return None
        return float(getattr(memory, "pss", memory.rss)) / 1e9

    @property
    def pid(self) -> int | None:
        """Process id while it is alive."""
        return self._child.pid if self._child is not None and self._child.poll() is None else None

    def stream(self, messages: Sequence[Json], sampling: Sampling, stop: threading.Event, sides: int = 1) -> Iterator[Json]:
        """The events of one answer (see `serve`), after 'waiting' and 'status' events of this side; ends with 'done' or 'error'.

        `sides` answers share the cores. Setting `stop`, or closing the iterator, stops the model within a token.
        """
        request = {"op": "generate", "messages": list(messages), "sampling": asdict(sampling), "sides": sides}
        yield from self.exchange(request, stop)

    def exchange(self, request: Json, stop: threading.Event) -> Iterator[Json]:
        """The events of one request, when its turn has come; ends with 'done' or 'error'."""
        request_id = f"{id(self):x}-{next(self._numbers)}"
        self._join(request_id)
        try:
            yield from self._wait(request_id, stop)
            if stop.is_set():
                yield stopped()
                return
            yield from self._talk({"id": request_id, **request}, stop)
        finally:
            self._leave(request_id)

    def close(self) -> None:
        """End the process; a request in progress ends with an error."""
        child, self._child, self._ready = self._child, None, None
        if child is None:
            return
        _close_quietly(child.stdin)
        try:
            child.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

    def _join(self, request_id: str) -> None:
        with self._moved:
            self._line.append(request_id)

    def _leave(self, request_id: str) -> None:
        with self._moved:
            self._line.remove(request_id)
            self.last_used = time.monotonic()
            self._moved.notify_all()

    def _ahead(self, request_id: str, timeout: float) -> int:
        """How many requests are before this one, after waiting for a change when there are any."""
        with self._moved:
            if self._line[0] != request_id:
                self._moved.wait(timeout)
            return self._line.index(request_id)

    def _wait(self, request_id: str, stop: threading.Event) -> Iterator[Json]:
        told = 0
        while (ahead := self._ahead(request_id, 2 * POLL_SECONDS)) and not stop.is_set():
            if ahead != told:
                told = ahead
                doing, what = self.WORK
                who = f"another visitor's {what}" if ahead == 1 else f"{ahead} other {what}s"
                yield {"event": "waiting", "text": f"Waiting: {self.participant.title} is {doing} {who} first."}

    def _talk(self, request: Json, stop: threading.Event) -> Iterator[Json]:
        sent = finished = False
        if self.pid is None:
            self._start(int(request.get("sides", 1)))
            yield {"event": "status", "text": f"Starting a process for {self.participant.title}"}
        try:
            while not finished:
                if self._ready is not None and not sent:
                    yield self._ready
                    sent = self._send(request)
                if stop.is_set():
                    if not sent:  # still loading: it goes on loading for the next message
                        yield stopped()
                        return
                    self._send({"op": "stop", "id": request["id"]})
                event = self._next()
                if event is not None and event.get("id") in {None, request["id"]}:
                    finished = event["event"] in {"done", "error"}
                    yield event
        finally:
            if sent and not finished:
                self._send({"op": "stop", "id": request["id"]})

    def _next(self) -> Json | None:
        """The next event of the process within POLL_SECONDS; its end becomes an 'error' event."""
        try:
            event = self._inbox.get(timeout=POLL_SECONDS)
        except queue.Empty:
            return None
        if event["event"] == "ready":
            self._ready = event
            return None
        if event["event"] == "exit":
            message = self._how_it_ended()
            self.close()
            return {"event": "error", "message": message}
        if event["event"] == "error" and "id" not in event:  # it could not load, and ends by itself
            self.close()
        return event

    def _start(self, sides: int) -> None:
        self._ready = None
        self._inbox = queue.Queue()
        # Run in the folder that holds salq, so that -m finds it however this process found it.
        self._child = subprocess.Popen(
            [sys.executable, "-m", self.MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=settings.ROOT,
            encoding="utf-8",
            start_new_session=True,  # Ctrl+C in a terminal is for the parent; this one ends with its stdin
        )
        threading.Thread(target=_read, args=(self._child, self._inbox), daemon=True).start()
        self._send({"op": "load", **self._load_request(), "sides": sides})

    def _load_request(self) -> Json:
        """What the process is to load."""
        return {"participant": self.participant.to_json(), "device": self.device}

    def _send(self, request: Json) -> bool:
        child = self._child
        if child is None or child.stdin is None:
            return False
        try:
            child.stdin.write(json.dumps(request) + "\n")
            child.stdin.flush()
        except (BrokenPipeError, ValueError):  # died or closed: the reader reports its end
            return False
        return True

    def _how_it_ended(self) -> str:
        code = self._child.wait(CLOSE_SECONDS) if self._child is not None else 0
        if code == -signal.SIGKILL:
            how = "was killed, most likely because memory ran out; choose a smaller model, or send the message again to start a new one"
        else:
            how = f"ended unexpectedly (exit code {code}); send the message again to start a new one"
        return f"The process of {self.participant.title} {how}."


def stopped() -> Json:
    """The last event of an answer that was stopped before its first token."""
    return {"event": "done", "end": "stopped", "text": "", "count": 0}


def _read(child: "subprocess.Popen[str]", inbox: "queue.Queue[Json]") -> None:
    assert child.stdout is not None
    with child.stdout:
        for line in child.stdout:
            inbox.put(json.loads(line))
    inbox.put({"event": "exit"})


def _close_quietly(pipe: Any) -> None:
    try:
        pipe.close()
    except OSError:
        pass  # the other end died before the last line was written
