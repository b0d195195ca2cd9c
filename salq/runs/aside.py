"""A small process beside the page that computes what the page may not: one JSON request per line in, one JSON answer per line out.

`Aside` is the page's side, `serve` the process's. It is started when it is first needed, has the page's priority, because somebody
waits for it, and ends with its input or when idle.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from salq.core import settings
from salq.core.errors import ResourceError, SalqError

THREADS = 1
"""Matrices are small and cores may be busy: threads that wait for each other are slower than one."""
IDLE_SECONDS = 300.0
"""After so long without a request the process ends; the next request starts another one."""
STARTS = 2
"""How often one request may start a process: an idle one may end at the very moment that it is asked."""

Json = dict[str, Any]


class Aside:
    """`python -m MODULE` for everybody who looks at the page: one request at a time."""

    def __init__(self, module: str) -> None:
        """Nothing is started yet. module: one whose main calls `serve`."""
        self._module = module
        self._lock = threading.Lock()
        self._child: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int | None:
        """Process id while it is alive."""
        return self._child.pid if self._child is not None and self._child.poll() is None else None

    def ask(self, request: str) -> Json:
        """The answer to a request (JSON on one line). Raises SalqError with the process's own sentence, ResourceError when it dies over it."""
        with self._lock:
            answer = self._exchange(request)
        if "error" in answer:
            raise SalqError(answer["error"])
        return answer

    def close(self) -> None:
        """End the process, when there is one."""
        child, self._child = self._child, None
        if child is None:
            return
        for pipe in (child.stdin, child.stdout):
            try:
                pipe.close()  # type: ignore[union-attr]  # both are pipes
            except OSError:
                pass  # it died before it had read everything
        try:
            child.wait(1.0)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

    def _exchange(self, request: str) -> Json:
        for _ in range(STARTS):
            child = self._child or self._start()
            assert child.stdin is not None
            assert child.stdout is not None
            try:
                child.stdin.write(f"{request}\n")
                child.stdin.flush()
                said = child.stdout.readline()
            except OSError:
                said = ""
            if said.endswith("\n"):  # else it died, maybe in the middle of its answer
                answer: Json = json.loads(said)
                return answer
            self.close()
        raise ResourceError(
            "The process that looks at matrices ended twice over this one, most likely because memory ran out (the page's log says more); "
            "close other programs, or choose a smaller model."
        )

    def _start(self) -> "subprocess.Popen[str]":
        # Run in the folder that holds salq, so that -m finds it however this process found it.
        self._child = subprocess.Popen(
            [sys.executable, "-m", self._module], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=settings.ROOT, encoding="utf-8",
            start_new_session=True,  # Ctrl+C in a terminal is for the page; this one ends with its input
        )  # fmt: skip
        return self._child


def serve(answer: Callable[[str], Json]) -> int:
    """The life of the process: `answer` each line of the input; a SalqError becomes {"error": sentence}."""
    import torch

    # Libraries may print: the protocol keeps the real stdout, everything else goes to stderr.
    outgoing = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    torch.set_num_threads(THREADS)
    idle = _IdleExit()
    for line in sys.stdin:
        idle.busy()
        outgoing.write(json.dumps(_said(answer, line)) + "\n")
        outgoing.flush()
        idle.begin()
    return 0


def _said(answer: Callable[[str], Json], line: str) -> Json:
    try:
        return answer(line)
    except SalqError as error:
        return {"error": str(error)}
    except MemoryError:
        return {"error": "This matrix does not fit into the memory that is free; close other programs, or choose a smaller model."}


class _IdleExit:
    """Ends the process once it has been idle for IDLE_SECONDS."""

    def __init__(self) -> None:
        self._since: float | None = time.monotonic()
        threading.Thread(target=self._watch, daemon=True).start()

    def busy(self) -> None:
        self._since = None

    def begin(self) -> None:
        self._since = time.monotonic()

    def _watch(self) -> None:
        while (since := self._since) is None or time.monotonic() - since < IDLE_SECONDS:
            time.sleep(1.0)
        os._exit(0)
