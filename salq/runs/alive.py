"""Who works on a run right now. A lock held by the process itself tells it: the lock falls when the process ends, however it ends."""

import contextlib
import json
import os
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import filelock

from salq.core.errors import StoreError
from salq.core.files import as_resource_error, write_json

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = "alive.lock"
HOLDER = "holder.json"
Role = Literal["worker", "foreground"]
TAKE_SECONDS = 5.0
"""A reader's probe holds the lock for microseconds; a worker that finds it taken tries again for this long."""
KILL_SECONDS = 6.0
"""A worker that was told to end does so within `worker.STOP_SECONDS`; then it is killed."""


@dataclass(frozen=True)
class Holder:
    """The process that works on a run."""

    pid: int
    role: Role


class Alive:
    """Held by the one process that works on a run, for as long as it does."""

    def __init__(self, folder: Path, role: Role) -> None:
        """Take the lock. Raises StoreError when another process has it, ResourceError when the disk refuses."""
        self._lock = filelock.FileLock(folder / LOCK, thread_local=False)
        try:
            self._lock.acquire(timeout=TAKE_SECONDS, poll_interval=0.05)
        except filelock.Timeout as error:
            raise StoreError(f"Run {folder.name} is already being worked on by another process; follow it instead of starting it.") from error
        except OSError as error:
            raise as_resource_error(error, folder) from error
        try:
            write_json(folder / HOLDER, {"pid": os.getpid(), "role": role})
        except BaseException:
            self._lock.release()
            raise

    def release(self) -> None:
        """Give the lock back."""
        self._lock.release()


def is_alive(folder: Path) -> bool:
    """Whether a process works on the run. Readers do not disturb each other: they share the lock for an instant."""
    path = folder / LOCK
    if fcntl is None:
        return _is_locked(path)
    try:
        with path.open("rb") as file:
            fcntl.flock(file.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
    except FileNotFoundError:
        return False
    except OSError:
        return True


def holder(folder: Path) -> Holder | None:
    """Which process works on the run; None when nobody does or it cannot be told."""
    if not is_alive(folder):
        return None
    try:
        found = json.loads((folder / HOLDER).read_text())
        return Holder(int(found["pid"]), found["role"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def end(folder: Path, worker: Holder) -> None:
    """Tell a worker to end, and kill it when it is still at the run well after its own few seconds (stopped, or stuck beyond its own reach).

    A run loses nothing by it: finished blocks are whole files. Only for workers: a process of somebody's terminal or notebook is theirs to end.
    """
    os.kill(worker.pid, signal.SIGTERM)  # reaches it also where no event is near, such as a download

    def kill() -> None:
        time.sleep(KILL_SECONDS)
        if holder(folder) == worker:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGKILL)

    threading.Thread(target=kill, name="kill-worker", daemon=True).start()


def _is_locked(path: Path) -> bool:
    if not path.exists():
        return False
    lock = filelock.FileLock(path, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        return True
    lock.release()
    return False
