"""The progress of a run on stderr: one line that is redrawn on a terminal, plain lines anywhere else."""

import shutil
import sys
import time
from collections.abc import Generator, Iterable
from dataclasses import replace
from typing import TextIO, TypeVar

from salq.cli.report import duration, number, percent
from salq.core import events as ev
from salq.core.progress import Progress

Result = TypeVar("Result")
BAR = 24
REDRAW_SECONDS = 0.1
QUIET_PHASE = "results"
"""Writing the results takes no time worth a line."""
PLAIN_STEP = 0.1
"""Phases without blocks say something every tenth of the way where lines are not redrawn."""


class Display:
    """Folds events and shows where they have got to."""

    def __init__(self, stream: TextIO | None = None) -> None:
        """`stream` is stderr unless given."""
        self.progress = Progress()
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._drawn_at = 0.0
        self._told = 0.0
        self._loss: dict[str, float] = {}

    def show(self, events: Iterable[ev.Event]) -> Progress:
        """Follow a stream to its end."""
        for event in events:
            self.add(event)
        self.close()
        return self.progress

    def watch(self, events: Generator[ev.Event, None, Result]) -> Result:
        """Follow a generator of events to its end and return its result."""
        self.add(ev.RunStarted(""))
        try:
            while True:
                try:
                    self.add(next(events))
                except StopIteration as finished:
                    return finished.value
        finally:
            self.close()

    def add(self, event: ev.Event) -> None:
        """Take one event in."""
        self.progress.add(event if event.at is not None else replace(event, at=time.time()))
        if isinstance(event, ev.StepDone):
            self._loss = event.loss
        if self._live:
            self._redraw(force=not isinstance(event, ev.StepDone | ev.PhaseStep))
        else:
            self._say(event)

    def waiting(self, ahead: int, wait: float | None = None) -> None:
        """Say that `ahead` other runs go first. wait: seconds that they still take; None when that is not known."""
        runs = "1 run is" if ahead == 1 else f"{ahead} runs are"
        starts = "" if wait is None else f", starts in about {duration(wait)}"
        self._line(f"waiting: {runs} ahead on this device{starts}")

    def close(self) -> None:
        """Leave the line."""
        if self._live:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def _redraw(self, *, force: bool) -> None:
        now = time.monotonic()
        if not force and now - self._drawn_at < REDRAW_SECONDS:
            return
        self._drawn_at = now
        width = shutil.get_terminal_size().columns - 1
        self._stream.write(f"\r{self.line()[:width]}\x1b[K")
        self._stream.flush()

    def line(self) -> str:
        """The state in one line: phase, bar, where, loss, time left."""
        progress = self.progress
        filled = round(BAR * progress.fraction)
        parts = [f"{progress.phase:<11} [{'#' * filled}{'.' * (BAR - filled)}] {progress.fraction:4.0%}", self._where()]
        if progress.phase == "calibration" and self._loss:
            parts.append(" ".join(f"{name} {number(value, 3)}" for name, value in self._loss.items()))
        if progress.eta is not None:
            parts.append(f"about {duration(progress.eta)} left")
        return "  ".join(part for part in parts if part)

    def _where(self) -> str:
        progress = self.progress
        if progress.phase == "calibration" and progress.block is not None:
            return f"block {min(progress.block + 1, progress.n_blocks)}/{progress.n_blocks}"
        return f"{int(progress.phase_done)}/{progress.phase_of} {progress.unit}" if progress.phase_of > 1 else ""

    def _say(self, event: ev.Event) -> None:
        if getattr(event, "phase", None) == QUIET_PHASE:
            return
        left = "" if self.progress.eta is None else f", about {duration(self.progress.eta)} left"
        if isinstance(event, ev.PhaseStarted):
            self._told = 0.0
            self._line(f"{event.phase}: {event.amount}")
        elif isinstance(event, ev.BlockDone):
            error = "" if event.output_error is None else f", output error {percent(event.output_error)}"
            self._line(f"{self.progress.phase}: {self._where()} in {duration(event.seconds)}{error}{left}")
        elif isinstance(event, ev.PhaseStep) and self.progress.phase_of > 1:
            share = event.done / self.progress.phase_of
            if share >= self._told + PLAIN_STEP or share >= 1:
                self._told = share
                self._line(f"{event.phase}: {self._where()}{left}")
        elif isinstance(event, ev.PhaseDone):
            self._line(f"{event.phase}: done in {duration(event.seconds)}")

    def _line(self, text: str) -> None:
        self._stream.write(f"\r{text}\x1b[K\n" if self._live else f"{text}\n")
        self._stream.flush()
