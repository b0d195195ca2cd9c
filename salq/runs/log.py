"""The append-only event log of a run: one JSON object per line, readable whatever happened to its end.

A reader never needs the writer to have finished: a line that does not parse (torn by a crash, a full disk or a cut) is skipped,
and a last line without a newline counts only when it is a whole event. A writer that finds a torn end starts on a new line.
"""

import json
import math
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from salq.core import events as ev
from salq.core.files import as_resource_error
from salq.core.progress import Progress

_STEP_LINE = b'{"kind": "StepDone"'
_FREQUENT = (ev.StepDone, ev.PhaseStep)


def finite(value: Any) -> Any:
    """`value` with NaN and infinity replaced by None, at any depth: JSON has no word for them."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def append(path: Path, event: ev.Event) -> ev.Event:
    """Write `event` with the wall clock in `at`, and return it so. Everything but steps is forced to the disk.

    Raises ResourceError when the disk is full or not writable.
    """
    stamped = event if event.at is not None else replace(event, at=time.time())
    line = json.dumps(finite(stamped.to_json()), allow_nan=False).encode() + b"\n"
    try:
        with path.open("a+b") as file:
            if not _ends_with_newline(file.fileno()):
                line = b"\n" + line
            file.write(line)
            file.flush()
            if not isinstance(stamped, _FREQUENT):
                os.fsync(file.fileno())
    except OSError as error:
        raise as_resource_error(error, path) from error
    return stamped


def read(path: Path, offset: int = 0, *, steps: bool = True) -> tuple[list[ev.Event], int]:
    """Events from byte `offset` on, and the offset to go on from. A missing file has no events.

    `steps=False` leaves out all StepDone but the last: enough for status, progress and results, and much faster on long logs.
    """
    try:
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read()
    except OSError:
        return [], offset
    lines = data.split(b"\n")
    tail = lines.pop()
    found = [event for line in (lines if steps else _without_steps(lines)) if (event := _parse(line)) is not None]
    end = offset + len(data) - len(tail)
    if tail and (event := _parse(tail)) is not None:  # only the newline is missing
        found.append(event)
        end += len(tail)
    return found, end


class Follower:
    """Reads a log while it grows; `progress` is the fold of everything read so far."""

    def __init__(self, path: Path) -> None:
        """Start at the beginning; nothing is read yet."""
        self._path = path
        self._restart()

    def _restart(self) -> None:
        self._offset = 0
        self.progress = Progress()

    def update(self) -> list[ev.Event]:
        """The events since the last call, folded into `progress`."""
        if self._path.exists() and self._path.stat().st_size < self._offset:  # the file was cut: what was read may be gone
            self._restart()
        found, self._offset = read(self._path, self._offset)
        fold_into(self.progress, found)
        return found


def fold_into(progress: Progress, events: list[ev.Event]) -> Progress:
    """Add events to `progress`; one whose values have the wrong type (a damaged or foreign line) is passed over."""
    for event in events:
        try:
            progress.add(event)
        except (TypeError, ValueError, AttributeError, KeyError, OverflowError):
            continue
    return progress


def _without_steps(lines: list[bytes]) -> list[bytes]:
    is_step = [line.startswith(_STEP_LINE) for line in lines]
    last = max((index for index, step in enumerate(is_step) if step), default=-1)
    return [line for index, (line, step) in enumerate(zip(lines, is_step, strict=True)) if not step or index == last]


def _parse(line: bytes) -> ev.Event | None:
    try:
        return ev.from_json(json.loads(line))
    except (ValueError, KeyError, TypeError, RecursionError):  # empty, torn, or not an event
        return None


def _ends_with_newline(descriptor: int) -> bool:
    size = os.fstat(descriptor).st_size
    if size == 0:
        return True
    os.lseek(descriptor, size - 1, os.SEEK_SET)
    return os.read(descriptor, 1) == b"\n"
