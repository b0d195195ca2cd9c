"""What the Runs tab does, without gradio: the table, the points of the trade-off chart, sweeps."""

from collections import Counter
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
    shown, others = comparable([*_own_results(runs, model), *_kept_results(model)])
    points = [point for result in shown if (point := _point(result, quality)) is not None]
    original = _original(shown) if quality == "perplexity" else None
    figure = trade_off(points, quality, original=original)
    return RunsView(
        figure=payload(figure, f"salq-trade-off-{quality}"),
        reading=f"{_reading(points, quality, original)} {_measured_on(shown, others)}".strip() if points else "",
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


def picked(store: RunStore, run: Any) -> Picked | None:
    """What is said of the chosen run; None when none is, or it is gone."""
    try:
        info = store.get(run) if isinstance(run, str) and run else None
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


@dataclass(frozen=True)
class Result:
    """The metrics of one calibration, where they come from for people, and its run on this machine ("" for one of the repository)."""

    metrics: dict[str, Any]
    hover: str
    run: str = ""

    @property
    def conditions(self) -> tuple[Any, ...]:
        """Numbers are comparable when they were measured on the same windows of the same text."""
        return tuple(self.metrics.get(name) for name in ("text", "windows", "window"))


def comparable(results: Sequence[Result]) -> tuple[list[Result], int]:
    """Those that were measured on the text that most of them were measured on (of two such, the first one's), and how many are left out."""
    if not results:
        return [], 0
    counted = Counter(one.conditions for one in results)
    chosen = counted.most_common(1)[0][0]  # equal counts keep the order in which they were met
    shown = [one for one in results if one.conditions == chosen]
    return shown, len(results) - len(shown)


def _measured_on(shown: Sequence[Result], others: int) -> str:
    text, windows, window = shown[0].conditions
    told = f"Measured on {text}: {windows} windows of {window} tokens." if text else ""
    if not others:
        return told
    left = "1 run that was measured otherwise is" if others == 1 else f"{others} runs that were measured otherwise are"
    return f"{told} {left} in the table only.".strip()


def _own_results(runs: Sequence[RunInfo], model: str) -> list[Result]:
    """Finished calibrations of this machine, newest first."""
    return [
        Result(info.metrics, f"{info.title}, {_when(info)}", info.id)
        for info in runs
        if isinstance(info.request, CalibrateRequest) and info.request.model == model and info.status == "done" and _is_whole(info.metrics)
    ]


def _kept_results(model: str) -> list[Result]:
    try:
        return [Result(run.metrics, "kept in the repository") for run in kept_runs(model)]
    except SalqError:
        return []


def _point(result: Result, quality: str) -> TradePoint | None:
    metrics = result.metrics
    value, size = metrics.get(quality), metrics.get("model_size_mb")
    if not isinstance(value, int | float) or not isinstance(size, int | float) or not value > 0:
        return None
    spread = metrics.get(f"{quality}_se")
    error = ERRORS * spread if isinstance(spread, int | float) else None
    return TradePoint(
        str(metrics.get("tag", "")), str(metrics.get("recipe", "")), float(size), float(value), f"{result.hover}<br>{_cost(metrics)}",
        not result.run, result.run, error,
    )  # fmt: skip


def _cost(metrics: dict[str, Any]) -> str:
    """What the run took."""
    memory = metrics.get("peak_memory_gb")
    parts = [f"calibrated in {duration(metrics['seconds'])}" if isinstance(metrics.get("seconds"), int | float) else "calibration time unknown"]
    return ", ".join([*parts, *([f"{memory:.2f} GB at most"] if isinstance(memory, int | float) else [])])


def _is_whole(metrics: dict[str, Any]) -> bool:
    """A run of the first blocks only has most of the model at full precision: no point of this chart."""
    return metrics.get("n_blocks") == metrics.get("of_blocks")


def _original(shown: Sequence[Result]) -> float | None:
    """Perplexity of the original on the same windows."""
    found = (one.metrics.get("perplexity_original") for one in shown)
    return next((value for value in found if isinstance(value, int | float)), None)


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
