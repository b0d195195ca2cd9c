"""The status chip: what the visitor's current run is doing, folded from its events by the run store."""

import time
from html import escape

from salq.core.errors import SalqError
from salq.runs.store import RunInfo, RunStore
from salq.ui.html import duration, number

LIVELY_SECONDS, STEADY_SECONDS = 2.0, 5.0
"""Between two looks at a run: at first, and once it has taken a while. Drawing costs a calibration on the same two cores an eighth of its speed
every 2 s, because both of its threads wait for the one that the browser displaced."""
YOUNG_SECONDS = 40.0


def chip(store: RunStore, *run_ids: str) -> str:
    """The chip of the first active of these runs, else of the newest; a quiet one when none of them exists any more."""
    chosen = _chosen(store, run_ids)
    if chosen is None:
        return _html("idle", "No run yet")
    return _html(chosen.status, _words(chosen), chosen.progress.last_at if chosen.is_active else None)


def seconds_to_next_look(store: RunStore, *run_ids: str) -> float:
    """When the chip of these runs is worth asking for again."""
    chosen = _chosen(store, run_ids)
    is_young = chosen is None or not chosen.is_active or time.time() - (chosen.progress.started_at or time.time()) < YOUNG_SECONDS
    return LIVELY_SECONDS if is_young else STEADY_SECONDS


def _chosen(store: RunStore, run_ids: tuple[str, ...]) -> RunInfo | None:
    found = [info for info in (_get(store, run_id) for run_id in run_ids) if info is not None]
    return next((info for info in found if info.is_active), max(found, key=lambda info: info.created, default=None))


def _get(store: RunStore, run_id: str) -> RunInfo | None:
    try:
        return store.get(run_id) if isinstance(run_id, str) and run_id else None
    except SalqError:
        return None


def _words(info: RunInfo) -> str:
    progress = info.progress
    if info.status == "running":
        left = f", {duration(progress.eta)} left" if progress.eta is not None else ""
        left = f", {info.silence_words}" if info.silence is not None else left
        return f"{info.title}: {progress.phase or 'starting'} {progress.fraction:.0%}{left}"
    if info.status == "queued":
        return f"{info.title}: {waiting(info)}"
    if info.status == "done" and (value := info.metrics.get("perplexity")) is not None:
        return f"{info.title}: done, perplexity {number(value)}"
    return f"{info.title}: {info.status}"


def waiting(info: RunInfo) -> str:
    """How many runs are before a queued one, and when its turn comes, as far as that is known."""
    if not info.position:
        return "waiting for its turn"
    runs = "1 other run" if info.position == 1 else f"{info.position} other runs"
    return f"waiting for {runs}" + ("" if info.wait is None else f", starts in about {duration(info.wait)}")


def state(info: RunInfo) -> str:
    """How a run stands: its place in the queue, or how far it is."""
    if info.status == "queued":
        return waiting(info)
    if info.status == "running":
        left = info.silence_words if info.silence is not None else "" if info.progress.eta is None else f"{duration(info.progress.eta)} left"
        return f"running, {info.progress.fraction:.0%}" + (f", {left}" if left else "")
    return info.status


def _html(state: str, text: str, last_at: float | None = None) -> str:
    """`last_at` is not shown: it makes the chip another one with every event of a run, so that what listens to its change hears of each."""
    attributes = f'data-state="{escape(state)}" data-last-at="{last_at or ""}" role="status"'
    return f'<div class="salq-chip" {attributes}><span class="dot"></span><span>{escape(text)}</span></div>'
