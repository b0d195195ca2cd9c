"""Explore's overview, without gradio: one number per matrix of the model, of one quantization or as the difference of two."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from salq.core.errors import ConfigError
from salq.figures import METRICS, grid_difference, grid_heatmap, payload
from salq.runs.exploration import Cells, Exploration, Metric, tags
from salq.runs.store import RunStore
from salq.ui.context import Choices
from salq.ui.explore_subject import KEPT, NOTHING, ROUNDING, Measured, measured, name_of, run_of


@dataclass(frozen=True)
class GridView:
    """The overview as drawn. `figure` is None when nothing is known; `problem` says what is missing for the choices at hand."""

    figure: str | None
    reading: str
    source: str
    problem: str
    table: list[list[Any]]
    header: list[str]


def grid_view(store: RunStore, choices: Choices, metric_key: str, made_by: str = ROUNDING, minus: str = NOTHING) -> GridView:
    """The block x matrix grid of a metric for the chosen model and spec, or the nearest thing that is known. Raises ConfigError.

    made_by, minus: values of the pickers (`explore_subject`); with something to subtract, the grid is A minus B.
    """
    if metric_key not in METRICS:
        raise ConfigError(f"Metric {metric_key!r} is not known; use one of {', '.join(METRICS)}.")
    metric: Metric = metric_key  # type: ignore[assignment]
    tag = choices.spec.tag
    one = measured(store, choices.model, made_by, metric, tag)
    if one is None and made_by != ROUNDING:
        return GridView(None, "", "", _not_measured(store, choices, made_by, metric), [], [])
    if one is None:
        return GridView(None, "", "", _nothing_yet(metric, choices), [], [])
    if minus != NOTHING and metric != "saliency":
        other = measured(store, choices.model, minus, metric, tag)
        if other is None:
            return GridView(None, "", "", _not_measured(store, choices, minus, metric), [], [])
        return _difference_view(metric, one, other, choices)
    problem = "" if one.shown == tag or made_by != ROUNDING else _other_width(metric, tag, one.shown)
    if minus != NOTHING:
        problem = "Saliency belongs to the original model, so it is the same for A and B; shown is the saliency itself."
    figure = grid_heatmap(_numbers(one.cells), one.linears, METRICS[metric])
    return GridView(
        figure=payload(figure, f"salq-{metric}-{one.shown}"),
        reading=_grid_reading(metric, one.name, one.cells, one.linears),
        source=_source(one, metric),
        problem=problem,
        table=_cells_table(one.cells),
        header=["block", *one.linears],
    )


def _difference_view(metric: Metric, one: Measured, other: Measured, choices: Choices) -> GridView:
    """A minus B over the blocks that both have."""
    if list(one.linears) != list(other.linears):
        return GridView(None, "", "", "A and B hold other matrices, so they cannot be subtracted; choose two runs of the same model.", [], [])
    count = min(len(one.cells), len(other.cells))
    cells = [[_minus(a, b) for a, b in zip(*rows, strict=True)] for rows in zip(one.cells[:count], other.cells[:count], strict=True)]
    figure = grid_difference(_numbers(one.cells[:count]), _numbers(other.cells[:count]), one.linears, METRICS[metric])
    flat = [value for row in cells for value in row if value is not None]
    smaller = sum(value < 0 for value in flat)
    sums = [sum(value for row in part.cells[:count] for value in row if value is not None) for part in (one, other)]
    change = f"; the sum over all matrices changes from {sums[1]:.3g} (B) to {sums[0]:.3g} (A)" if flat else ""
    reading = (
        f"A ({one.name}) has the smaller {METRICS[metric].title.lower()} in {smaller} of {len(flat)} matrices and B ({other.name}) "
        f"in {sum(value > 0 for value in flat)}{change}. Blue: A is smaller; red: B is smaller."
    )
    return GridView(
        payload(figure, f"salq-{metric}-difference"), reading, f"A: {_source(one, metric)} B: {_source(other, metric)}",
        "" if choices.spec.tag in {one.shown, other.shown} else f"A has the grid {one.shown}, B {other.shown}.", _cells_table(cells),
        ["block", *one.linears],
    )  # fmt: skip


def _minus(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other


def _cells_table(cells: Cells) -> list[list[Any]]:
    return [[block, *(None if value is None else float(f"{value:.4g}") for value in row)] for block, row in enumerate(cells)]


def _other_width(metric: Metric, tag: str, shown: str) -> str:
    return f"{METRICS[metric].title} at {tag} is not computed yet; shown is {shown}. Compute adds {tag}."


def _not_measured(store: RunStore, choices: Choices, subject: str, metric: Metric) -> str:
    """Why a calibration has no such grid, and what to do."""
    title = METRICS[metric].title
    if subject == ROUNDING or subject.startswith(KEPT) or run_of(store, choices.model, subject) is not None:
        return f"{title} of {name_of(store, choices.model, subject, choices.spec.tag)} is not measured yet; press Compute."
    return "This run is not here any more, is not finished, or belongs to another model; choose another one in the pickers above the grid."


def grid_sentence(found: Exploration) -> str:
    """The most telling sentence of an exploration: saliency when it is there, else an error at the smallest width."""
    if found.saliency is not None:
        return _grid_reading("saliency", "", found.saliency.cells, found.linears)
    tag = next(iter(tags([found])), "")
    return _grid_reading("weight_error", f"rounding to nearest at {tag}", found.errors[tag].weight_error, found.linears) if tag else ""


def _numbers(cells: Cells) -> list[list[float]]:
    return [[float("nan") if value is None else value for value in row] for row in cells]


def _nothing_yet(metric: Metric, choices: Choices) -> str:
    what = f"{METRICS[metric].title} of {choices.short_model}"
    return f"{what} is not computed yet; press Compute. The maps of a single matrix below can be looked at before that."


def _grid_reading(metric: Metric, maker: str, cells: Cells, linears: Sequence[str]) -> str:
    flat = [
        (value, f"block {block} {name}") for block, row in enumerate(cells) for value, name in zip(row, linears, strict=True) if value is not None
    ]
    if not flat:
        return "No matrix of this model has a finite value."
    low, high, middle = min(flat), max(flat), statistics.median(value for value, _ in flat)
    if metric == "saliency":
        times = f"{high[0] / low[0]:,.0f} times" if low[0] > 0 else "far"
        return f"A weight of {high[1]} matters {times} more on average than one of {low[1]}; the median matrix is at {middle:.2g} nats² per weight²."
    if metric == "weighted_error":
        total = sum(value for value, _ in flat)
        top = sum(value for value, _ in sorted(flat, reverse=True)[: max(len(flat) // 10, 1)])
        share = f"; the worst tenth of the matrices makes {top / total:.0%} of it" if total else ""
        return f"{_capital(maker)} should raise the loss by {total:.3g} nats per sample in all, most through {high[1]} ({high[0]:.2g}){share}."
    what = "the weights of a matrix" if metric == "weight_error" else "what a matrix computes"
    return f"{_capital(maker)} moves {what} by {middle:.0%} (median): most in {high[1]} ({high[0]:.0%}), least in {low[1]} ({low[0]:.0%})."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _source(one: Measured, metric: Metric) -> str:
    """Where the numbers come from."""
    if one.origin is not None:
        return _grid_source(one.origin, metric, one.name)
    where = "" if one.info is None else f" {one.info.id} on this machine"
    return f"{one.name}, {one.shown}; weight errors as calibration measured them, run{where}."


def _grid_source(found: Exploration, metric: Metric, maker: str) -> str:
    where = "kept in the repository" if found.origin == "kept" else f"run {found.origin} on this machine"
    reference = f" The original is a {found.reference}." if found.reference else ""
    if metric == "saliency" and found.saliency is not None:
        used = found.saliency
        return f"{found.model}; {used.n_samples} samples of {used.seq_len} tokens of the text {used.text}; {where}.{reference}"
    text = "" if metric == "weight_error" else f" {found.n_samples} samples of {found.seq_len} tokens of the text {found.text};"
    return f"{found.model}, {maker};{text} {where}.{reference}"
