"""At most a few models in memory: the processes that chats use, the least recently used idle one closed first."""

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from salq.chat.participants import Participant
from salq.chat.process import ChatProcess, stopped
from salq.chat.sampling import Sampling

Json = dict[str, Any]
Key = tuple[Any, ...]
"""What a process is made from, hashable."""

WAIT_SECONDS = 0.25


class ChatPool:
    """Shared by all visitors of a page. Two visitors who talk to the same participant share its process, one after the other."""

    BUSY = "{limit} other models are answering, and no more fit at a time."

    def __init__(self, limit: int = 3) -> None:
        """At most `limit` processes."""
        self.limit = limit
        self._processes: dict[Key, ChatProcess] = {}  # in order of use, the latest last
        self._users: dict[Key, int] = {}
        self._changed = threading.Condition()

    def stream(
        self, participant: Participant, device: str, messages: Sequence[Json], sampling: Sampling, stop: threading.Event, sides: int = 1
    ) -> Iterator[Json]:
        """The events of one answer (see `ChatProcess.stream`); waits, and says so, while every process is busy with others."""
        yield from self._through((participant, device), stop, lambda process: process.stream(messages, sampling, stop, sides))

    def _through(self, key: Key, stop: threading.Event, talk: Callable[[Any], Iterator[Json]]) -> Iterator[Json]:
        """What `talk` hears from the process of `key`, once there is room for it."""
        told = False
        while (process := self._take(key)) is None:
            if stop.is_set():
                yield stopped()
                return
            if not told:
                told = True
                yield {"event": "waiting", "text": f"Waiting: {self.BUSY.format(limit=self.limit)}"}
            self._wait()
        try:
            yield from talk(process)
        finally:
            self._give_back(key)

    def processes(self) -> list[ChatProcess]:
        """The processes of now, the latest used last."""
        with self._changed:
            return list(self._processes.values())

    def close(self) -> None:
        """End all processes."""
        with self._changed:
            closing, self._processes = list(self._processes.values()), {}
        for process in closing:
            process.close()

    def _make(self, key: Key) -> ChatProcess:
        """A process for `key`, not started yet."""
        return ChatProcess(*key)

    def _take(self, key: Key) -> ChatProcess | None:
        idle = None
        with self._changed:
            if key not in self._processes:
                if len(self._processes) >= self.limit:
                    idle = next((other for other in self._processes if not self._users.get(other)), None)
                    if idle is None:
                        return None
                closing = self._processes.pop(idle) if idle else None
                self._processes[key] = self._make(key)
            else:
                closing = None
                self._processes[key] = self._processes.pop(key)
            self._users[key] = self._users.get(key, 0) + 1
            process = self._processes[key]
        if closing is not None:
            closing.close()
        return process

    def _give_back(self, key: Key) -> None:
        with self._changed:
            self._users[key] -= 1
            if not self._users[key]:
                del self._users[key]
            self._changed.notify_all()

    def _wait(self) -> None:
        with self._changed:
            self._changed.wait(WAIT_SECONDS)
