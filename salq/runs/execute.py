"""The life of a run in one process: claim it, wait for its turn, work, record every event, end it properly whatever happens.

Command line and worker iterate the same generator; the last event is always a terminal one. Light until the run's turn comes:
torch is imported with `work`, after the wait.
"""

import errno
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

from salq.core import events as ev
from salq.core.errors import SalqError
from salq.core.files import FULL, as_resource_error
from salq.core.redact import redacted
from salq.runs.alive import Role
from salq.runs.quota import make_room, tidy
from salq.runs.requests import CalibrateRequest, ExploreRequest
from salq.runs.store import RunStore

Steps = Generator[ev.Event, None, None]
POLL_SECONDS = 0.3
_DISK_ERRORS = {*FULL, errno.EROFS, errno.EACCES}
_FULL_WORDS = ("No space left on device", "File too large", "Disk quota exceeded")
"""How safetensors, which has errors of its own, reports a disk that refuses."""


def execute(store: RunStore, run_id: str, *, role: Role = "foreground", waiting: Callable[[int], None] | None = None) -> Steps:
    """Work on a run until it ends; yields each event after it is on disk. Finished blocks of an earlier start are loaded.

    waiting: called with the number of runs ahead whenever it changes, before this one's turn.
    A SalqError ends the stream with RunFailed and Ctrl-C (KeyboardInterrupt) with RunCancelled; closing the generator cancels too.
    Raises StoreError when another process has the run, and re-raises what is a bug after recording it.
    """
    request = store.request(run_id)
    alive = store.take(run_id, role)
    try:
        tidy(store, run_id)
        yield from _live(store, run_id, request, waiting or _ignore)
    finally:
        store.queue.leave(run_id)
        alive.release()


class _Recorder:
    """Writes the run's events, keeping to their grammar: one RunStarted first, one terminal event last."""

    def __init__(self, store: RunStore, run_id: str) -> None:
        self._store, self._run_id = store, run_id
        self._resumed = bool(store.events(run_id))
        self.is_started = self.is_ended = False

    def start(self) -> ev.Event:
        self.is_started, self._since = True, time.monotonic()
        return self._store.append(self._run_id, ev.RunStarted(self._run_id, resumed=self._resumed))

    def add(self, event: ev.Event) -> ev.Event:
        return self._store.append(self._run_id, event)

    def end(self, event: ev.Event) -> Iterator[ev.Event]:
        if not self.is_started:
            yield self.start()
        self.is_ended = True
        yield self.add(event)

    def done(self) -> Iterator[ev.Event]:
        return self.end(ev.RunDone(time.monotonic() - self._since))

    def cancelled(self) -> Iterator[ev.Event]:
        return self.end(ev.RunCancelled(self._store.finished_blocks(self._run_id)))


def _live(store: RunStore, run_id: str, request: CalibrateRequest | ExploreRequest, waiting: Callable[[int], None]) -> Steps:
    recorder = _Recorder(store, run_id)
    try:
        if not _wait_for_turn(store, run_id, request.device, waiting):
            yield from recorder.cancelled()
            return
        yield recorder.start()
        make_room(store, keep=run_id)
        from salq.runs.work import perform  # torch comes with it, only now that it is this run's turn

        work = perform(store, run_id, request)
        for event in work:
            yield recorder.add(event)
            if store.is_cancel_requested(run_id):
                work.close()
                yield from recorder.cancelled()
                return
        yield from recorder.done()
    except KeyboardInterrupt:
        if not recorder.is_ended:
            yield from recorder.cancelled()
    except GeneratorExit:
        if not recorder.is_ended:
            list(recorder.cancelled())  # recorded; nobody is left to yield to
        raise
    except Exception as error:
        if store.is_cancel_requested(run_id) or _was_interrupted(error):
            yield from recorder.cancelled()
            return
        told = explain(error, store.root)
        if told is not None:
            yield from recorder.end(ev.RunFailed(str(told), type(told).__name__))
            return
        list(recorder.end(ev.RunFailed(redacted(f"A bug in salq stopped the run: {type(error).__name__}: {error}"), type(error).__name__, bug=True)))
        raise


def explain(error: BaseException, where: Path) -> SalqError | None:
    """The problem behind an error as something to tell a person; None when it is a bug."""
    if isinstance(error, SalqError):
        return error
    if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
        return as_resource_error(error, Path(error.filename or where))
    if any(words in str(error) for words in _FULL_WORDS):
        return as_resource_error(OSError(errno.ENOSPC, ""), where)
    return None


def _was_interrupted(error: BaseException) -> bool:
    """Whether a library turned a KeyboardInterrupt into an error of its own, as lazy imports do."""
    chain: BaseException | None = error
    while chain is not None:
        if isinstance(chain, KeyboardInterrupt):
            return True
        chain = chain.__cause__ or chain.__context__
    return False


def _wait_for_turn(store: RunStore, run_id: str, device: str, waiting: Callable[[int], None]) -> bool:
    """Block until no run is ahead on the same device; False when the run was cancelled meanwhile."""
    store.queue.enter(run_id, device)
    told = 0
    while ahead := store.queue.ahead(run_id):
        if len(ahead) != told:
            told = len(ahead)
            waiting(told)
        if store.is_cancel_requested(run_id):
            return False
        time.sleep(POLL_SECONDS)
    return not store.is_cancel_requested(run_id)


def _ignore(_ahead: int) -> None:
    """Nobody wants to know about the queue."""
