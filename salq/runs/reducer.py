"""Reduces one matrix after the other in a process of its own, for a page that never computes: it asks, waits, and reads the file.

`Reducer` is the page's side. `python -m salq.runs.reducer` is the process: one JSON request per line in, one JSON answer per line out
({"done": true} or {"error": sentence}); it fetches a model that is not here yet, gives way to the page, and ends with its input or when idle.
"""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from salq.core import settings
from salq.core.errors import FormatError, ResourceError, SalqError, StoreError
from salq.quant.spec import QuantSpec
from salq.runs.reduced import View, find_view, reduce_matrix

NICENESS = 5
"""As a worker's: the page and what is drawn on it go first."""
IDLE_SECONDS = 300.0
"""After so long without a request the process ends; the next request starts another one."""
STARTS = 2
"""How often one request may start a process: an idle one may end at the very moment that it is asked."""


class Wanted(BaseModel):
    """One picture of one matrix that was not reduced before."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    root: str = Field(description="Folder of the run store.")
    model: str = Field(description="Catalogue name, hub id or local folder.")
    spec: QuantSpec = Field(description="The grid of rounding to nearest; a run brings its own.")
    how: str = Field(description="Pooling: max, mean or p99.")
    block: int = Field(ge=0, description="Block of the matrix, from 0.")
    matrix: str = Field(description="Path of the matrix inside its block.")
    key: str = Field(default="", description="Key of the saliency map on this machine; empty without one.")
    run: str | None = Field(default=None, description="The finished calibration whose codes are looked at; None for rounding to nearest.")

    def view(self, fingerprint: str) -> View:
        """Its file, for the model with that fingerprint."""
        return View(fingerprint, self.run or self.spec.tag, self.key, self.how, self.block, self.matrix)


class Reducer:
    """The page's side of the process: shared by all visitors, one request at a time, started when it is first needed."""

    def __init__(self) -> None:
        """Nothing is started yet."""
        self._lock = threading.Lock()
        self._child: subprocess.Popen[str] | None = None

    def reduce(self, wanted: Wanted) -> None:
        """Return once the view is on disk. Raises SalqError with the process's own sentence, ResourceError when it dies over it."""
        with self._lock:
            answer = self._exchange(wanted.model_dump_json())
        if "error" in answer:
            raise SalqError(answer["error"])

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

    def _exchange(self, request: str) -> dict[str, Any]:
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
            if said:
                answer: dict[str, Any] = json.loads(said)
                return answer
            self.close()
        raise ResourceError(
            "The process that reduces matrices ended twice over this one, most likely because memory ran out (the page's log says more); "
            "close other programs, or choose a smaller model."
        )

    def _start(self) -> "subprocess.Popen[str]":
        # Run in the folder that holds salq, so that -m finds it however this process found it.
        self._child = subprocess.Popen(
            [sys.executable, "-m", "salq.runs.reducer"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=settings.ROOT, encoding="utf-8",
            start_new_session=True,  # Ctrl+C in a terminal is for the page; this one ends with its input
        )  # fmt: skip
        return self._child


def carry_out(wanted: Wanted) -> None:
    """Reduce the matrix and keep the view, unless it is there by now.

    Raises StoreError for a calibration whose block is missing, the errors of `resolve`, and ShapeError for a group size that does not fit.
    """
    from salq.models.llama import read_weight
    from salq.models.source import resolve
    from salq.runs.store import RunStore
    from salq.saliency.maps import find

    source = resolve(wanted.model)
    view = wanted.view(source.fingerprint)
    if find_view(view) is not None:
        return
    frozen = None if wanted.run is None else open_block(RunStore(Path(wanted.root)), wanted.run, wanted.block).matrix(wanted.matrix)
    saliency = find(wanted.key) if wanted.key else None
    spec = wanted.spec if frozen is None else frozen.spec
    reduce_matrix(view, read_weight(source, wanted.block, wanted.matrix), spec, saliency, quantized=frozen)
    if find_view(view) is None:
        raise StoreError(f"The maps of this matrix could not be written under {settings.home()}; free some space there.")


def open_block(store: Any, run_id: str, block: int) -> Any:
    """The packed file (`packing.files.PackedFile`) of a calibration's block. Raises StoreError when it is not there or does not read."""
    try:
        return store.result(run_id).open(block)
    except FormatError as error:
        raise StoreError(f"Block {block} of this run is not on this machine ({error}); run the calibration again, or choose another one.") from error


def answer_to(line: str) -> dict[str, Any]:
    """What the process says to one line of its input."""
    try:
        carry_out(Wanted.model_validate_json(line))
        return {"done": True}
    except SalqError as error:
        return {"error": str(error)}
    except MemoryError:
        return {"error": "This matrix does not fit into the memory that is free; close other programs, or choose a smaller model."}


def main() -> int:
    """The life of the process."""
    from salq.core.device import thread_count

    # Libraries may print: the protocol keeps the real stdout, everything else goes to stderr.
    outgoing = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    import torch

    torch.set_num_threads(thread_count())
    idle = _IdleExit()
    for line in sys.stdin:
        idle.busy()
        outgoing.write(json.dumps(answer_to(line)) + "\n")
        outgoing.flush()
        idle.begin()
    return 0


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


if __name__ == "__main__":
    sys.exit(main())
