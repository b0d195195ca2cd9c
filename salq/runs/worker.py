"""A run in a process of its own: it survives the page and the terminal that started it.

`start(store, run_id)` spawns `python -m salq.runs.worker ROOT RUN_ID`. The process has its own session, prints to the run's
worker.log, takes SIGTERM as cancel, gives way to the page (a lower priority), and is small until its turn comes.
"""

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import FrameType

from salq.core import events as ev
from salq.core import settings
from salq.core.errors import SalqError, StoreError
from salq.core.redact import redacted
from salq.runs.execute import execute
from salq.runs.repeat import is_whole
from salq.runs.store import RunStore

LOG = "worker.log"
NICENESS = 5
START_SECONDS = 60.0
STOP_SECONDS = 4.0
"""How long a worker that was told to stop may take to say goodbye, before it ends without."""
LOG_TAIL = 65_536
"""Bytes of a log's end that are read to show its last lines."""
_QUIET = (ev.StepDone, ev.PhaseStep)


def start(store: RunStore, run_id: str) -> bool:
    """Start or resume a run in a worker process and return when the worker has claimed it.

    False when there is nothing to start: it is being worked on, or is done and has lost nothing. Raises StoreError: the worker does not come up.
    """
    store.request(run_id)  # a damaged request is told here, not in a log
    if store.is_alive(run_id) or is_whole(store, run_id):
        return False
    store.clear_cancel(run_id)
    path = store.folder(run_id) / LOG
    with path.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "salq.runs.worker", str(store.root), run_id],
            cwd=settings.ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    threading.Thread(target=process.wait, daemon=True).start()  # reaps it, so that no zombie stays while the page lives
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and store.queue.ahead(run_id) is None:
        if process.poll() is not None:
            break
        time.sleep(0.02)
    if process.poll() not in {None, 0} and not store.get(run_id).progress.outcome:
        raise StoreError(f"The worker of run {run_id} did not start: {last_line(path) or 'it said nothing'}.")
    return True


def last_line(path: Path) -> str:
    """Last line of a log that says something, cut to a sentence's length."""
    return next(reversed(last_lines(path, 1)), "").strip()


def last_lines(path: Path, most: int = 20) -> list[str]:
    """The last lines of a log that say something, oldest first, each cut to a sentence's length and without secrets."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LOG_TAIL))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    return [redacted(line.rstrip())[:300] for line in text.splitlines() if line.strip()][-most:]


def main(arguments: list[str]) -> int:
    """Entry point of the worker process: ROOT RUN_ID. Exit code 0 also for a run that failed or was cancelled: the log of events says so."""
    root, run_id = arguments
    signal.signal(signal.SIGTERM, _stop_once)
    _end_in_any_case()
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO, stream=sys.stderr)
    logger = logging.getLogger("salq.worker")
    store = RunStore(Path(root))
    try:
        for event in execute(store, run_id, role="worker", waiting=lambda ahead: logger.info("waiting for %d run(s)", ahead)):
            if not isinstance(event, _QUIET):
                logger.info("%s", event)
    except SalqError as error:
        logger.error("%s", error)  # noqa: TRY400 - one sentence; the traceback would say nothing more
        return 2
    return 0


def _end_in_any_case() -> None:
    """After SIGTERM the process ends within a few seconds even when it is inside one long operation, which no handler of Python's interrupts.

    Its blocks are written under another name and renamed, so an end at any moment loses none; the wish to stop says that it was cancelled.
    """
    if not hasattr(signal, "set_wakeup_fd") or threading.current_thread() is not threading.main_thread():
        return
    told, tell = socket.socketpair()
    tell.setblocking(False)
    signal.set_wakeup_fd(tell.fileno(), warn_on_full_buffer=False)

    def watch() -> None:
        while (number := told.recv(1)) and number[0] != signal.SIGTERM:
            continue
        time.sleep(STOP_SECONDS)
        tell.close()
        os._exit(0)

    threading.Thread(target=watch, name="end-in-any-case", daemon=True).start()


def _stop_once(_signal: int, _frame: FrameType | None) -> None:
    """Cancel like Ctrl-C, and only once: the goodbye must not be interrupted."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
