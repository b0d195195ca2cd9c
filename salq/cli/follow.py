"""Running a run in this terminal, and what is said at its end."""

from collections.abc import Mapping
from typing import Any

from salq.cli.display import Display
from salq.cli.report import emit, note, result_facts, say, with_stable_keys
from salq.core import settings
from salq.core.progress import kept_words
from salq.runs.execute import execute
from salq.runs.store import RunInfo, RunStore
from salq.runs.worker import start

FAILED = 2
STOPPED = 130


def open_store() -> RunStore:
    """The run store of this user, the same that the page shows."""
    return RunStore(settings.runs_dir())


def carry_out(store: RunStore, run_id: str) -> RunInfo:
    """Work on a run here, with its progress shown, until it ends; Ctrl-C cancels it and keeps finished blocks."""
    display = Display()
    events = execute(store, run_id, waiting=lambda ahead: display.waiting(ahead, store.get(run_id).wait))
    try:
        display.show(events)
    except KeyboardInterrupt:  # between two events; within one, the run itself notices
        events.close()
    finally:
        display.close()
    return store.get(run_id)


def carry_out_and_report(store: RunStore, run_id: str, *, as_json: bool, background: bool = False) -> int:
    """Work on a run here, or hand it to a worker, then print its results; returns the exit code."""
    if background:
        start(store, run_id)
        if as_json:
            emit(run_json(store.get(run_id)))
        else:
            say(f"Run {run_id} goes on in the background; `python -m salq runs show {run_id}` shows its progress.")
        return 0
    store.clear_cancel(run_id)
    return report(carry_out(store, run_id), as_json=as_json)


def report(info: RunInfo, *, as_json: bool, beside: Mapping[str, Any] | None = None) -> int:
    """Print how a run ended; returns the exit code. `beside`: what the JSON report also holds."""
    if info.status == "failed":
        note(f"salq: {info.progress.message}")
    elif info.status != "done":
        note(f"salq: stopped; {kept_words(info.progress.blocks_done)}, `python -m salq runs resume {info.id}` goes on from there.")
    if as_json:
        emit(run_json(info) | dict(beside or {}))
    elif info.status == "done" and info.kind == "calibrate":
        say(f"{info.title}   (run {info.id})")
        say(result_facts(info.metrics, info.progress.phase_seconds))
    return {"done": 0, "failed": FAILED}.get(info.status, STOPPED)


def run_json(info: RunInfo) -> dict[str, Any]:
    """A run and its results under stable keys."""
    progress = info.progress
    about = {
        "run": info.id, "title": info.title, "kind": info.kind, "status": info.status, "created": info.created, "position": info.position,
        "wait_seconds": info.wait, "silent_seconds": info.silence, "pinned": info.pinned,
        "fraction": progress.fraction, "eta_seconds": progress.eta, "blocks_done": progress.blocks_done, "phase_seconds": progress.phase_seconds,
        "error": info.problem if info.status in {"failed", "unreadable"} else None,
    }  # fmt: skip
    return with_stable_keys({**about, **_without(info.metrics, "errors")})


def _without(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key != name}
