"""What the Runs tab does, without gradio: the table, the points of the trade-off chart, sweeps."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import product
from typing import Any

from salq.core import settings
from salq.core.errors import ConfigError, SalqError
from salq.figures import TradePoint, frontier, payload, trade_off
from salq.runs.kept import kept_runs
from salq.runs.limits import Limits
from salq.runs.requests import CalibrateRequest
from salq.runs.store import RunInfo, RunStore
from salq.ui import words
from salq.ui.context import WHOLE_ROW, Choices
from salq.ui.html import duration, number
from salq.ui.status import state

HEADER = ["run", "status", "model", "perplexity", "KL, nats/token", "bits/weight", "model, MB", "time", "memory, GB", "started"]
QUALITY = {"perplexity": "Perplexity", "kl": "KL divergence"}
MAX_SWEEP = 24
ERRORS = 1.96
"""Standard errors on each side of a point: 95 % under a normal distribution over windows."""


@dataclass(frozen=True)
class RunsView:
    """The tab as drawn."""

    figure: str
    reading: str
    table: list[list[Any]]
    choices: list[tuple[str, str]]
    """(label, run id) of every run, newest first, in the order of the table's rows."""
    any_active: bool


def runs_view(store: RunStore, model: str, quality: str) -> RunsView:
    """All runs as a table, those of `model` as points. Raises ConfigError for a quality that is not measured."""
    if quality not in QUALITY:
        raise ConfigError(f"Quality {quality!r} is not measured; use one of {', '.join(QUALITY)}.")
    runs = store.list()
    points = [*_own_points(runs, model, quality), *_kept_points(model, quality)]
    original = _original(runs, model, quality)
    figure = trade_off(points, quality, original=original)
    return RunsView(
        figure=payload(figure, f"salq-trade-off-{quality}"),
        reading=_reading(points, quality, original),
        table=[_row(info) for info in runs],
        choices=[(f"{info.title} ({info.status}, {_when(info)})", info.id) for info in runs],
        any_active=any(info.is_active for info in runs),
    )


def sweep_requests(
    choices: Choices, recipes: Sequence[str], bits: Sequence[int], group_sizes: Sequence[int], preset: str, limits: Limits
) -> list[CalibrateRequest]:
    """One request per combination, all checked before any is stored. Raises ConfigError, UnknownNameError, ShapeError."""
    from salq.recipes import get
    from salq.runs.plan import plan

    combinations = list(product(bits, group_sizes, recipes))
    if not combinations:
        raise ConfigError("A sweep needs at least one recipe, one width and one group size; tick some.")
    if len(combinations) > MAX_SWEEP:
        raise ConfigError(f"This sweep has {len(combinations)} runs, more than {MAX_SWEEP}; untick some, or use `python -m salq sweep`.")
    requests = []
    for width, group, name in combinations:
        size = None if group == WHOLE_ROW else int(group)
        recipe = get(name, preset=preset, bits=int(width), group_size=size, symmetric=choices.symmetric)
        request = CalibrateRequest(model=choices.model, recipe=recipe, text=choices.text, device=choices.device)
        limits.check(request)
        plan(request)
        requests.append(request)
    return requests


def start_sweep(store: RunStore, requests: Iterable[CalibrateRequest]) -> list[str]:
    """Store and start every request that no run has answered or is answering; returns the ids of the new runs."""
    from salq.runs import worker
    from salq.runs.plan import plan

    answered = {info.request.key() for info in store.list() if info.request is not None and (info.is_active or info.status == "done")}
    started = []
    for request in requests:
        if request.key() not in answered:
            run_id = store.create(request)
            store.expect(run_id, plan(request).estimate.total_seconds)  # so that those behind it know how long they wait
            worker.start(store, run_id)
            started.append(run_id)
    return started


@dataclass(frozen=True)
class Picked:
    """The run that is chosen in the list: how it stands, and what its pin means, in words."""

    told: str
    pinned: bool


def picked(store: RunStore, run: str | None) -> Picked | None:
    """What is said of the chosen run; None when none is, or it is gone."""
    try:
        info = store.get(run) if run else None
    except SalqError:
        info = None
    if info is None:
        return None
    return Picked(f"{info.title}: {state(info)}. {pin_words(info.pinned)}", info.pinned)


def pin_words(pinned: bool) -> str:
    """What it means that a run is pinned, or is not, on this machine."""
    quota = settings.quota_gb()
    if quota is None:
        return words.PINNED_NO_QUOTA if pinned else words.NOT_PINNED_NO_QUOTA
    return (words.PINNED if pinned else words.NOT_PINNED).format(quota=f"{quota:g}")


def _own_points(runs: Sequence[RunInfo], model: str, quality: str) -> list[TradePoint]:
    found = []
    for info in runs:
        request = info.request
        if isinstance(request, CalibrateRequest) and request.model == model and info.status == "done" and _is_whole(info.metrics):
            point = _point(info.metrics, quality, label=info.metrics.get("tag", ""), run=info.id, hover=f"{info.title}, {_when(info)}")
            found += [point] if point else []
    return found


def _kept_points(model: str, quality: str) -> list[TradePoint]:
    try:
        runs = kept_runs(model)
    except SalqError:
        return []
    points = [_point(run.metrics, quality, label=run.metrics.get("tag", ""), hover="kept in the repository", kept=True) for run in runs]
    return [point for point in points if point]


def _point(metrics: dict[str, Any], quality: str, *, label: str, hover: str, run: str = "", kept: bool = False) -> TradePoint | None:
    value, size = metrics.get(quality), metrics.get("model_size_mb")
    if not isinstance(value, int | float) or not isinstance(size, int | float) or value <= 0:
        return None
    spread = metrics.get(f"{quality}_se")
    error = ERRORS * spread if isinstance(spread, int | float) else None
    return TradePoint(label, str(metrics.get("recipe", "")), float(size), float(value), f"{hover}<br>{_cost(metrics)}", kept, run, error)


def _cost(metrics: dict[str, Any]) -> str:
    """What the run took."""
    memory = metrics.get("peak_memory_gb")
    parts = [f"calibrated in {duration(metrics['seconds'])}" if isinstance(metrics.get("seconds"), int | float) else "calibration time unknown"]
    return ", ".join([*parts, *([f"{memory:.2f} GB at most"] if isinstance(memory, int | float) else [])])


def _is_whole(metrics: dict[str, Any]) -> bool:
    """A run of the first blocks only has most of the model at full precision: no point of this chart."""
    return metrics.get("n_blocks") == metrics.get("of_blocks")


def _original(runs: Sequence[RunInfo], model: str, quality: str) -> float | None:
    if quality != "perplexity":
        return None
    own = [info.metrics for info in runs if info.request is not None and info.request.model == model and info.status == "done"]
    try:
        own += [run.metrics for run in kept_runs(model)]
    except SalqError:
        pass
    return next((one["perplexity_original"] for one in own if isinstance(one.get("perplexity_original"), int | float)), None)


def _reading(points: Sequence[TradePoint], quality: str, original: float | None) -> str:
    if not points:
        return ""
    best = frontier(points)
    small, good = best[0], best[-1]
    unit = "perplexity" if quality == "perplexity" else "nats per token"
    against = f"; the original is at {number(original)}" if original is not None else ""
    if small is good:
        return f"{small.recipe} {small.label} beats every other run in both: {_mb(small)} at {number(small.value)} {unit}{against}."
    return (
        f"{len(best)} of {len(points)} runs are on the frontier: from {small.recipe} {small.label} ({_mb(small)}, {number(small.value)}) "
        f"to {good.recipe} {good.label} ({_mb(good)}, {number(good.value)} {unit}){against}."
    )


def _mb(point: TradePoint) -> str:
    return f"{point.size_mb:.0f} MB" if point.size_mb >= 10 else f"{point.size_mb:.2g} MB"  # noqa: PLR2004 - a tiny model is not 0 MB


def _row(info: RunInfo) -> list[Any]:
    metrics = info.metrics
    model = info.request.short_model if info.request is not None else ""
    numbers = [metrics.get(key) for key in ("perplexity", "kl", "bits_per_weight", "model_size_mb")]
    shown = [number(value) if isinstance(value, int | float) else "" for value in numbers]
    seconds, memory = metrics.get("seconds", info.progress.seconds), metrics.get("peak_memory_gb")
    cost = [duration(seconds) if seconds is not None else "", f"{memory:.2f}" if isinstance(memory, int | float) else ""]
    return [info.title, f"{state(info)}, pinned" if info.pinned else state(info), model, *shown, *cost, _when(info)]


def _when(info: RunInfo) -> str:
    return f"{datetime.fromtimestamp(info.created):%Y-%m-%d %H:%M}"
