"""What Explore shows of a whole model beside the grid, and of one matrix beside its maps: a chart, its sentence and its table, without gradio."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from salq.core.errors import ConfigError, SalqError
from salq.figures import budget_curve, depth_lines, noise_values, payload, share_left, singular_values, size_bars, width_grid
from salq.lessons.allocation import WIDTHS, allocate_within, greedy_path, total_cost
from salq.models.catalogue import parameters_of
from salq.models.shapes import linear_shapes
from salq.quant.size import matrix_bits, size_report
from salq.quant.spec import QuantSpec, check_group_size
from salq.runs.exploration import DEPTH_SAMPLES, DepthCells, Exploration, explorations
from salq.runs.kept import MatrixMaps, kept_runs
from salq.runs.store import RunStore
from salq.ui.context import Choices
from salq.ui.explore_subject import KEPT, ROUNDING, kept_names, name_of, run_of

MB = 1e6
USUAL_RANK = 64
"""Rank of the adapters that the recipes learn unless told otherwise; marked where nothing was calibrated."""

CURVE_POINTS = 160
SLACK = 0.06
"""MB: the slider rounds its ends to a decimal."""


@dataclass(frozen=True)
class Chart:
    """One chart as drawn; `figure` is None when nothing is known, and `problem` says what is missing and what to do."""

    figure: str | None = None
    reading: str = ""
    problem: str = ""
    header: list[str] = field(default_factory=list)
    table: list[list[Any]] = field(default_factory=list)


NO_CHART = Chart()


def spectrum_picture(maps: MatrixMaps, maker: str) -> Chart:
    """Singular values of W - Q(W) of one matrix, the rank of the adapter (or the usual one) marked, noise of the same size to compare."""
    residual = maps.residual
    if residual is None:
        return Chart(problem="The singular values of this matrix's error are not known: a weight is not finite, or they were not kept.")
    values, shape = [float(value) for value in residual["singular_values"]], (int(residual["shape"][0]), int(residual["shape"][1]))
    own = int(residual["rank"])
    rank = min(own or USUAL_RANK, len(values) - 1)
    noise = noise_values(shape, float(residual["error"]))
    best, random = share_left(values, rank), share_left(noise, rank)
    part = "" if shape == tuple(maps.shape) else f" Seen here: the first {shape[0]:,} × {shape[1]:,} weights."
    said = f"A correction of rank {rank} could at best leave {best:.0%} of the weight error of {maker}, of pure noise {random:.0%}"
    if own:
        reached = float(residual["repaired"]) / float(residual["error"]) if residual["error"] else 0.0
        said += f"; this run's adapter leaves {reached:.0%} of it, because it was learned to repair outputs, not weights"
    rows = [[one, f"{share_left(values, one):.1%}", f"{share_left(noise, one):.1%}"] for one in (4, 8, 16, 32, 64, 128, 256) if one < len(values)]
    figure = singular_values(values, rank, noise)
    return Chart(payload(figure, f"salq-block{maps.block}-{maps.matrix}-{maps.tag}-spectrum"), f"{said}.{part}", "", SPECTRUM_HEADER, rows)


SPECTRUM_HEADER = ["rank", "error left at best", "of noise of the same size"]


def depth_chart(store: RunStore, choices: Choices, made_by: str, minus: str, block: int | None) -> Chart:
    """How the error of the hidden state grows over the blocks: the chosen rounding, and the calibrations that were measured."""
    tag, known = choices.spec.tag, explorations(store, choices.model)
    wanted = dict.fromkeys(
        [tag, *(one.removeprefix(KEPT) for one in (made_by, minus)), *(one for one in kept_names(choices.model) if one.endswith(tag))]
    )
    found = {name: one for name in wanted if name and (one := _depth_of(known, name)) is not None}
    if not found:
        return Chart(problem=f"The way of the error through the blocks of {choices.short_model} at {tag} is not measured yet; press Compute.")
    series = {_series_name(store, choices, name): (one.alone, one.together) for name, one in list(found.items())[:4]}
    rows = [[index, *(_percent(value) for pair in series.values() for value in _at(pair, index))] for index in range(_length(series))]
    header = ["block", *(f"{name}, {what} input" for name in series for what in ("full-precision", "quantized"))]
    missing = "" if tag in found else f"{tag} is not measured yet; press Compute."
    return Chart(payload(depth_lines(series, block), f"salq-depth-{tag}"), _depth_reading(series), missing, header, rows)


def _series_name(store: RunStore, choices: Choices, name: str) -> str:
    info = run_of(store, choices.model, name)
    return info.title if info is not None else name if name in kept_names(choices.model) else f"rounding, {name}"


def _depth_of(known: list[Exploration], name: str) -> DepthCells | None:
    return next((one.depth[name] for one in known if name in one.depth), None)


def _depth_reading(series: dict[str, tuple[list[float | None], list[float | None]]]) -> str:
    name, (alone, together) = next(iter(series.items()))
    own = [value for value in alone if value is not None]
    if not own or together[-1] is None:
        return "The hidden state of this model is not finite."
    middle = sorted(own)[len(own) // 2]
    told = (
        f"With {name}, one block alone moves the hidden state by {middle:.1%} (median); because every block also works on its predecessors' "
        f"errors, {together[-1]:.0%} has piled up after the last one"
    )
    others = [f"{other}: {pair[1][-1]:.0%}" for other, pair in list(series.items())[1:] if pair[1] and pair[1][-1] is not None]
    return f"{told}{' (' + ', '.join(others) + ')' if others else ''}. Measured on {DEPTH_SAMPLES} samples of the exploration's text."


def _length(series: dict[str, tuple[list[float | None], list[float | None]]]) -> int:
    return max(len(pair[1]) for pair in series.values())


def _at(pair: tuple[list[float | None], list[float | None]], index: int) -> list[float | None]:
    return [values[index] if index < len(values) else None for values in pair]


def _percent(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.2%}"


SIZE_HEADER = ["quantized by", "codes, MB", "scales, MB", "zero points, MB", "adapters, MB", "sum, MB", "bits per weight"]


def size_chart(store: RunStore, choices: Choices, config: dict[str, Any] | None, made_by: str, minus: str) -> Chart:
    """Bits per weight of the chosen grid at every width, and of calibrations with their adapters, part by part. Raises ShapeError for a misfit."""
    if config is None:
        return Chart(problem=f"{choices.short_model} is not on this machine yet, so its sizes are not known; open a matrix to fetch it.")
    shapes = linear_shapes(config)
    check_group_size(choices.spec, shapes)
    weights = sum(rows * columns for rows, columns in shapes.values())
    rows: list[tuple[str, list[float]]] = []
    for bits in (8, 4, 3, 2):
        spec = QuantSpec(bits=bits, group_size=choices.group_size, symmetric=choices.symmetric)  # type: ignore[arg-type]  # widths of QuantSpec
        size = size_report(spec, shapes, parameters_of(config))
        rows.append((f"rounding, {spec.tag}", [size.codes_mb, size.scales_mb, size.zero_points_mb, size.adapters_mb]))
    rows += _measured_sizes(store, choices, made_by, minus)
    bits_of = {part: [mb[index] * 8 * MB / weights for _, mb in rows] for index, part in enumerate(("codes", "scales", "zero points", "adapters"))}
    totals = [sum(mb) for _, mb in rows]
    figure = size_bars([name for name, _ in rows], bits_of, totals)
    table = [[name, *(f"{value:,.2f}" for value in mb), f"{sum(mb):,.2f}", f"{sum(mb) * 8 * MB / weights:.3f}"] for name, mb in rows]
    own = next(mb for name, mb in rows if name.endswith(choices.spec.tag))
    extra = (sum(own) - own[0]) * 8 * MB / weights
    reading = (
        f"{choices.spec.tag} stores {choices.bits} bits of code and {extra:.2f} bits of scales and zero points for each of "
        f"{weights / MB:,.1f} million weights: {sum(own):,.1f} MB instead of {2 * weights / MB:,.0f} MB in 16 bits."
    )
    return Chart(payload(figure, f"salq-size-{choices.spec.tag}"), reading, "", SIZE_HEADER, table)


def _measured_sizes(store: RunStore, choices: Choices, made_by: str, minus: str) -> list[tuple[str, list[float]]]:
    """Calibrations: those that were picked, else the kept ones at this grid."""
    picked = [info for info in (run_of(store, choices.model, one) for one in (made_by, minus)) if info is not None]
    told = [(info.title, info.metrics) for info in picked]
    try:
        kept = [(f"{run.metrics['recipe']}, {run.metrics['tag']}", run.metrics) for run in kept_runs(choices.model) if run.metrics.get("rank")]
    except (SalqError, KeyError):
        kept = []
    told += [one for one in kept if one[0].endswith(choices.spec.tag)]
    parts = ("codes_mb", "scales_mb", "zero_points_mb", "adapters_mb")
    return [(name, [float(metrics[part]) for part in parts]) for name, metrics in told if all(part in metrics for part in parts)]


@dataclass(frozen=True)
class BudgetView:
    """What a budget buys. `low`, `high`, `mb`: megabytes that the slider offers and that were asked for, of the quantized matrices."""

    curve: Chart
    grid: str | None
    low: float
    high: float
    mb: float


BUDGET_HEADER = [
    "rank",
    "block",
    "matrix",
    "saliency, nats² per weight²",
    "predicted rise at 3 bits, nats",
    "share of all",
    "size at 3 bits, MB",
    "bits bought",
]


def budget_chart(store: RunStore, choices: Choices, config: dict[str, Any] | None, megabytes: float | None) -> BudgetView:
    """Widths for all matrices within a budget, most predicted loss per byte first, beside uniform widths; and all matrices by saliency."""
    known = explorations(store, choices.model)
    group, symmetric = choices.group_size, choices.symmetric
    specs = {bits: QuantSpec(bits=bits, group_size=group, symmetric=symmetric) for bits in WIDTHS}  # type: ignore[arg-type]  # widths of QuantSpec
    found = next((one for one in known if all(one.cells("weighted_error", spec.tag) for spec in specs.values())), None)
    if found is None or config is None:
        grid = specs[3].tag.removeprefix("w3")
        text = f"What bits would buy needs the saliency-weighted error of {choices.short_model} at 2, 3, 4 and 8 bits ({grid}); press Compute."
        return BudgetView(Chart(problem=text), None, 0.0, 1.0, 0.0)
    shapes = linear_shapes(config, n_blocks=1)
    of_block = [shapes[f"0.{name}"] for name in found.linears]
    sizes = {bits: [sum(matrix_bits(spec, *shape).values()) // 8 for shape in of_block] * found.n_blocks for bits, spec in specs.items()}
    cost = {bits: [value or 0.0 for row in found.cells("weighted_error", spec.tag) or [] for value in row] for bits, spec in specs.items()}
    low, high = sum(sizes[2]) / MB, sum(sizes[8]) / MB
    is_asked = megabytes is not None and low - SLACK <= megabytes <= high + SLACK  # the slider may still hold another model's budget
    wanted = min(max(megabytes if megabytes is not None and is_asked else sum(sizes[3]) / MB, low), high)
    try:
        widths = allocate_within(sizes, cost, wanted * MB + 1)
    except ConfigError:
        widths = [WIDTHS[0]] * len(sizes[2])
    return _bought(found, choices, sizes, cost, widths, (low, high, wanted))


def _bought(
    found: Exploration, choices: Choices, sizes: dict[int, list[int]], cost: dict[int, list[float]], widths: list[int],
    span: tuple[float, float, float],
) -> BudgetView:  # fmt: skip
    used = sum(sizes[bits][index] for index, bits in enumerate(widths)) / MB
    predicted = total_cost(cost, widths)
    path = greedy_path(sizes, cost)
    curve = [(size / MB, value) for size, value in path[:: max(len(path) // CURVE_POINTS, 1)]]
    uniform = [(bits, sum(sizes[bits]) / MB, sum(cost[bits])) for bits in WIDTHS]
    figure = budget_curve(curve, uniform, (used, predicted))
    count = len(found.linears)
    rows = [widths[start : start + count] for start in range(0, len(widths), count)]
    fitting = [one for one in uniform if one[1] <= span[2] + 1e-6]
    against = max(fitting, key=lambda one: one[0]) if fitting else uniform[0]
    buys = ", ".join(f"{widths.count(bits)} of {len(widths)} matrices at {bits} bits" for bits in WIDTHS if bits in widths)
    change = 1 - predicted / against[2] if against[2] else 0.0
    reading = (
        f"{span[2]:,.1f} MB buys {buys}; the predicted rise of the loss is {predicted:.3g} nats per sample, {abs(change):.0%} "
        f"{'below' if change >= 0 else 'above'} the {against[2]:.3g} of {against[0]} bits everywhere ({against[1]:,.1f} MB). "
        "This is a prediction: each matrix's own saliency-weighted error, added up as if errors did not meet; only a run measures a perplexity."
    )
    table = _ranked(found, sizes, cost, widths)
    chart = Chart(payload(figure, "salq-budget"), reading, "", BUDGET_HEADER, table)
    return BudgetView(chart, payload(width_grid(rows, found.linears), "salq-budget-widths"), *span)


def _ranked(found: Exploration, sizes: dict[int, list[int]], cost: dict[int, list[float]], widths: list[int]) -> list[list[Any]]:
    """All matrices, the highest mean saliency first."""
    count = len(found.linears)
    saliency = [0.0] * len(widths) if found.saliency is None else [value or 0.0 for row in found.saliency.cells for value in row]
    total = sum(cost[3]) or 1.0
    order = sorted(range(len(widths)), key=lambda index: -saliency[index])
    return [
        [
            place, index // count, found.linears[index % count], f"{saliency[index]:.3g}", f"{cost[3][index]:.3g}", f"{cost[3][index] / total:.2%}",
            f"{sizes[3][index] / MB:.2f}", widths[index],
        ]
        for place, index in enumerate(order, 1)
    ]  # fmt: skip


NO_BUDGET = BudgetView(NO_CHART, None, 0.0, 1.0, 0.0)


def money_charts(
    store: RunStore, choices: Choices, config: dict[str, Any] | None, made_by: str, minus: str, megabytes: float | None
) -> tuple[Chart, BudgetView]:
    """Size and budget of the whole model; what cannot be drawn says why, and the other one is there all the same."""
    size = chart_or_problem(lambda: size_chart(store, choices, config, made_by, minus))
    try:
        return size, budget_chart(store, choices, config, megabytes)
    except SalqError as error:
        return size, replace(NO_BUDGET, curve=Chart(problem=str(error)))


def chart_or_problem(draw: Callable[[], Chart]) -> Chart:
    """The chart, or why there is none in its place."""
    try:
        return draw()
    except SalqError as error:
        return Chart(problem=str(error))


def made_by_note(store: RunStore, choices: Choices, made_by: str) -> str:
    """Why the maps show rounding although a calibration was picked; "" when they show what was picked."""
    if made_by.startswith(KEPT):
        return f"The codes of {name_of(store, choices.model, made_by, '')} are not in the repository, so maps and groups show rounding to nearest."
    if made_by != ROUNDING and run_of(store, choices.model, made_by) is None:
        return "The picked run is not here any more or is not finished, so maps and groups show rounding to nearest."
    return ""
