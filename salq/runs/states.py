"""How runs are now: status, progress, place in the queue and time until their turn, derived from their files and locks, never stored."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from salq.core.files import read_json
from salq.core.progress import Progress, cancelled_words
from salq.runs import log
from salq.runs.alive import is_alive
from salq.runs.info import AnyRequest, RunInfo, Status, silence_since
from salq.runs.queue import Queue

EVENTS, EXPECTED = "events.jsonl", "expected.json"
CANCEL, PINNED = "cancel", "pinned"
"""Files that say something by being there."""


class States:
    """The runs of one store, each read when it is asked about."""

    def __init__(self, root: Path, queue: Queue) -> None:
        """`root`: the store's folder; `queue`: its queue."""
        self._root, self._queue = root, queue
        self._folded: dict[str, tuple[tuple[int, int], Progress]] = {}

    def look(self, run_id: str, request: AnyRequest | None, problem: str = "") -> RunInfo:
        """The run as it is now, without its results. request: None when it cannot be read, and `problem` says why."""
        folder, progress = self._root / run_id, self.progress(run_id)
        alive = is_alive(folder)
        if not alive and progress.started_at is not None and not progress.outcome:
            progress = self.progress(run_id)  # it may have come to its end between the two looks, and is then not interrupted
        ahead = self._queue.ahead(run_id) if alive else None
        status: Status = "unreadable" if request is None else _status(folder, progress, ahead, alive=alive)
        return RunInfo(
            id=run_id,
            title=run_id if request is None else request.shown_title,
            kind="" if request is None else request.kind,
            status=status,
            created=_created(run_id),
            request=request,
            progress=progress,
            position=len(ahead) if status == "queued" and ahead is not None else None,
            wait=self._wait(ahead) if status == "queued" and ahead else None,
            news_at=_changed_at(folder / EVENTS),
            pinned=(folder / PINNED).exists(),
            problem=problem or progress.message or (cancelled_words(progress.blocks_done) if status == "cancelled" else ""),
        )

    def progress(self, run_id: str) -> Progress:
        """What happened so far, without steps; folded once and kept until the log changes."""
        path = self._root / run_id / EVENTS
        try:
            stat = path.stat()
        except OSError:
            return Progress()
        stamp = (stat.st_size, stat.st_mtime_ns)
        known = self._folded.get(run_id)
        if known is None or known[0] != stamp:
            known = (stamp, log.fold_into(Progress(), log.read(path, steps=False)[0]))
            self._folded[run_id] = known
        return known[1]

    def forget(self, run_id: str) -> None:
        """Keep nothing of a run that was deleted."""
        self._folded.pop(run_id, None)

    def _wait(self, ahead: Sequence[str]) -> float | None:
        """Seconds that the runs ahead still take, one after the other; None when one of them does not say."""
        left = [self._left(run_id) for run_id in ahead]
        return sum(seconds for seconds in left if seconds is not None) if None not in left else None

    def _left(self, run_id: str) -> float | None:
        if not self._queue.ahead(run_id) and silence_since(_changed_at(self._root / run_id / EVENTS)) is not None:
            return None  # it is its turn and nothing is heard of it: it may never end
        progress = self.progress(run_id)
        if progress.eta is not None:
            return max(0.0, progress.eta)
        try:
            expected = float(read_json(self._root / run_id / EXPECTED)["seconds"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return expected * (1 - progress.fraction) if 0 <= expected < float("inf") else None


def _status(folder: Path, progress: Progress, ahead: Sequence[str] | None, *, alive: bool) -> Status:
    if ahead is not None:
        return "queued" if ahead else "running"
    if progress.outcome:
        return progress.outcome  # type: ignore[return-value]
    if progress.started_at is None:
        return "queued" if alive else "created"
    if alive:
        return "running"
    return "cancelled" if (folder / CANCEL).exists() else "interrupted"


def _changed_at(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None


def _created(run_id: str) -> float:
    try:
        return datetime.strptime(run_id[:15], "%Y%m%d-%H%M%S").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return time.time()
