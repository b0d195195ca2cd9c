"""What Explore shows of one group of weights: its number line, the real weights around it, its matrix's histogram, without gradio."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from salq.core.errors import ConfigError, SalqError
from salq.figures import Ruler, number_lines, payload, weight_histogram, weight_tile
from salq.models.source import resolve
from salq.quant.group_grid import GroupGrid
from salq.quant.spec import QuantSpec, check_group_size
from salq.runs.kept import MatrixMaps, WeightGroup, kept_group, kept_maps
from salq.runs.reducer import open_block
from salq.runs.store import RunStore
from salq.ui.context import Choices
from salq.ui.explore_actions import POOLINGS, load_maps
from salq.ui.explore_charts import NO_CHART, Chart
from salq.ui.explore_subject import NOTHING, ROUNDING, run_of, spec_of_subject

if TYPE_CHECKING:
    from torch import Tensor

TILE_ROWS, TILE_GROUPS, TILE_INPUTS = 8, 1, 344
"""Rows above and below the group, groups to its left and right, and the most inputs that are drawn."""

MOST_ROWS = 10_000_000
MOST_DOTS = 512
"""A whole row as one group may have thousands of weights; so many are drawn and listed."""


@dataclass(frozen=True)
class GroupPicture:
    """One group as drawn. row, group: what was found, clipped to the matrix; rows, groups: how many there are, 0 when not known."""

    line: Chart = NO_CHART
    tile: str | None = None
    histogram: Chart = NO_CHART
    facts: list[tuple[str, str, str]] = field(default_factory=list)
    row: int = 0
    group: int = 0
    rows: int = 0
    groups: int = 0


@dataclass(frozen=True)
class _Place:
    """Where the group lies: block, matrix, row, number of the group, first input and inputs."""

    block: int
    matrix: str
    row: int
    group: int
    first: int
    size: int


def group_picture(store: RunStore, choices: Choices, selection: dict[str, Any], made_by: str = ROUNDING, minus: str = NOTHING) -> GroupPicture:
    """The selected group from a few rows of the model's file and of the calibrations' packed files; nothing else is read.

    Raises ConfigError for a matrix that does not exist, ShapeError for a misfit, ModelError when the model is gone.
    """
    import torch

    from salq.evaluation.group_view import min_max_grid
    from salq.models.llama import read_rows

    spec = spec_of_subject(store, choices.model, made_by, choices.spec)
    source, shape = resolve(choices.model), _shape(choices, selection)
    check_group_size(spec, {f"{selection['block']}.{selection['matrix']}": shape})
    place = _place(selection, spec, shape)
    top, left, right = max(place.row - TILE_ROWS, 0), *_columns(place, shape[1])
    rows = read_rows(source, place.block, place.matrix, top, place.row + TILE_ROWS + 1)
    weights = rows[place.row - top, place.first : place.first + place.size]
    maps = _maps(store, choices, place, made_by)
    if not bool(torch.isfinite(weights).all()):
        count = int((~torch.isfinite(weights)).sum())
        problem = (
            f"{count} of the {place.size} weights of this group are NaN or infinite, so it has no grid; the model file is damaged. Choose another."
        )
        return _placed(GroupPicture(Chart(problem=problem), _tile(rows[:, left:right].numpy(), None, top, left, place)), place, shape)
    grids, problems = [min_max_grid(weights, spec)], []
    for subject in dict.fromkeys((made_by, minus)):
        try:
            grids += _learned(store, choices, subject, place, weights, spec)
        except SalqError as error:
            problems.append(str(error))
    quantized = _quantized(store, choices, made_by, place, rows, top, spec)
    line = _line(weights.tolist(), grids, place, spec, " ".join(problems))
    tile = _tile(rows[:, left:right].numpy(), None if quantized is None else quantized[:, left:right].numpy(), top, left, place)
    return _placed(GroupPicture(line, tile, _histogram(maps, grids, place), _facts(weights.tolist(), grids, place)), place, shape)


def kept_group_picture(choices: Choices, selection: dict[str, Any]) -> GroupPicture:
    """The view of the first paint: the group that the repository keeps, when it is the selected one; else empty."""
    kept = kept_group(choices.model)
    if kept is None or str(choices.bits) not in kept.grids or (kept.block, kept.matrix) != (selection["block"], selection["matrix"]):
        return GroupPicture()
    size, maps = len(kept.weights), kept_maps(choices.model)
    place = _Place(kept.block, kept.matrix, kept.row, kept.start // size, kept.start, size)
    if (place.row, place.group) != (selection.get("row", 0), selection.get("group", 0)) or choices.group_size != size or choices.symmetric:
        return GroupPicture()
    grids = [_kept_grid(kept, choices.bits), *_kept_learned(kept, choices.spec.tag)]
    line = _line(kept.weights, grids, place, choices.spec, "")
    shape = (0, 0) if maps is None else maps.shape
    picture = GroupPicture(line, _kept_tile(kept, place), _histogram(maps, grids, place), _facts(kept.weights, grids, place))
    return _placed(picture, place, shape)


def _kept_grid(kept: WeightGroup, bits: int) -> GroupGrid:
    levels, grid = kept.levels(bits), kept.grids[str(bits)]
    codes = [min(range(len(levels)), key=lambda code: abs(levels[code] - weight)) for weight in kept.weights]
    low, high = min(kept.weights), max(kept.weights)
    return GroupGrid(
        "min/max", levels, codes, [levels[code] for code in codes], [0.0] * len(codes), grid["scale"], int(grid["zero_point"]),
        levels[0] / low if low < 0 else None, levels[-1] / high if high > 0 else None,
    )  # fmt: skip


def _kept_learned(kept: WeightGroup, tag: str) -> list[GroupGrid]:
    return [GroupGrid(**{**grid, "name": f"learned by {name}"}) for name, grid in kept.learned.items() if name.endswith(tag)]


def _kept_tile(kept: WeightGroup, place: _Place) -> str | None:
    if not kept.tile:
        return None
    values = np.asarray(kept.tile["weights"], dtype=np.float32)
    return _tile(values, None, int(kept.tile["row"]), int(kept.tile["column"]), place)


def group_of(row: Any, group: Any) -> dict[str, int] | None:
    """{"row", "group"} as a link or the browser gives them, where both may be anything; None for what is no place of any matrix."""
    try:
        found = int(row), int(group)
    except (TypeError, ValueError, OverflowError):
        return None
    return {"row": found[0], "group": found[1]} if min(found) >= 0 and max(found) < MOST_ROWS else None


def _shape(choices: Choices, selection: dict[str, Any]) -> tuple[int, int]:
    from salq.models.folder import read_folder_config
    from salq.models.shapes import linear_shapes

    shapes = linear_shapes(read_folder_config(resolve(choices.model).folder))
    name = f"{selection['block']}.{selection['matrix']}"
    if name not in shapes:
        raise ConfigError(f"{choices.short_model} has no matrix {name}; choose a block and a matrix in the pickers.")
    return shapes[name]


def _place(selection: dict[str, Any], spec: QuantSpec, shape: tuple[int, int]) -> _Place:
    size = spec.group_size or shape[1]
    row = min(max(int(selection.get("row", 0)), 0), shape[0] - 1)
    group = min(max(int(selection.get("group", 0)), 0), shape[1] // size - 1)
    return _Place(selection["block"], selection["matrix"], row, group, group * size, size)


def _columns(place: _Place, inputs: int) -> tuple[int, int]:
    """First and last input of the tile: whole groups around the selected one, or a part of a row that is one group."""
    wide = place.size if place.size * (2 * TILE_GROUPS + 1) <= TILE_INPUTS else 0
    left = max(place.first - wide, 0)
    return left, min(max(place.first + min(place.size, TILE_INPUTS) + wide, 0), inputs)


def _maps(store: RunStore, choices: Choices, place: _Place, made_by: str) -> MatrixMaps | None:
    """For the histogram, which the maps of the matrix bring along, however they are pooled."""
    for how in POOLINGS:
        try:
            return load_maps(store, choices, place.block, place.matrix, how, made_by)[0]
        except SalqError:
            continue
    return None


def _learned(store: RunStore, choices: Choices, subject: str, place: _Place, weights: "Tensor", spec: QuantSpec) -> list[GroupGrid]:
    """The grid that a calibration of this machine chose for the group. Raises ConfigError when its groups are others, StoreError: block gone."""
    from salq.evaluation.group_view import grid_of

    info = run_of(store, choices.model, subject)
    if info is None:
        return []
    row = open_block(store, info.id, place.block).row(place.matrix, place.row)
    if row.spec.group_size != spec.group_size:
        raise ConfigError(f"{info.title} has groups of {row.spec.group_size or 'a whole row'}, so its grid of this group cannot be drawn here.")
    return [grid_of(weights, row, place.group, f"learned by {info.title}")]


def _quantized(store: RunStore, choices: Choices, made_by: str, place: _Place, rows: "Tensor", top: int, spec: QuantSpec) -> "Tensor | None":
    """The same rows as the model applies them; None when a row cannot be had."""
    import torch

    from salq.quant.frozen import rtn

    info = run_of(store, choices.model, made_by)
    try:
        if info is None:
            return rtn(rows, spec).effective_weight()
        packed = open_block(store, info.id, place.block)
        return torch.cat([packed.row(place.matrix, index).effective_weight() for index in range(top, top + len(rows))])
    except SalqError:
        return None


def _tile(rows: np.ndarray, quantized: np.ndarray | None, top: int, left: int, place: _Place) -> str:
    size = place.size if place.size < TILE_INPUTS else -(-rows.shape[1] // 6)
    shown = min(place.size, left + rows.shape[1] - place.first)
    figure = weight_tile(rows, quantized, top, left, (place.row, place.first, shown), size)
    return payload(figure, f"salq-block{place.block}-{place.matrix}-row{place.row}-group{place.group}-weights")


def _line(weights: Sequence[float], grids: Sequence[GroupGrid], place: _Place, spec: QuantSpec, problem: str) -> Chart:
    shown = slice(0, MOST_DOTS)
    rulers = [Ruler(grid.name, grid.levels, grid.codes[shown], grid.values[shown], _ruler_details(grid)) for grid in grids]
    figure = number_lines(list(weights[shown]), rulers, place.first)
    name = f"salq-block{place.block}-{place.matrix}-row{place.row}-group{place.group}-{spec.tag}"
    header = ["input", "weight", *(f"{what}, {grid.name}" for grid in grids for what in ("code", "becomes"))]
    table = [
        [place.first + i, f"{weight:.5g}", *(cell for grid in grids for cell in (grid.codes[i], f"{grid.values[i]:.5g}"))]
        for i, weight in enumerate(weights[shown])
    ]
    cut = f" Only the first {MOST_DOTS} of its {len(weights)} weights are drawn." if len(weights) > MOST_DOTS else ""
    return Chart(payload(figure, name), _line_reading(weights, grids) + cut, problem, header, table)


def _ruler_details(grid: GroupGrid) -> tuple[str, str]:
    """Beside the grid's name: its levels and the adapter; below it: how far it reaches."""
    clip = " and ".join(f"{keeps:.0%} of the {side} end" for keeps, side in ((grid.keeps_low, "low"), (grid.keeps_high, "high")) if keeps is not None)
    adapter = f", adapter of rank {grid.rank}" if grid.rank else ""
    return f"{len(grid.levels)} levels{adapter}", f"reaching {clip}" if clip else ""


def _mean_move(weights: Sequence[float], values: Sequence[float]) -> float:
    return sum(abs(one - other) for one, other in zip(weights, values, strict=True)) / len(weights)


def _line_reading(weights: Sequence[float], grids: Sequence[GroupGrid]) -> str:
    base = grids[0]
    plain = _mean_move(weights, base.values)
    told = (
        f"{len(weights)} weights share {len(base.levels)} levels from {base.low:.3g} to {base.high:.3g}; rounding moves one by {plain:.2g} on average"
    )
    if len(grids) == 1:
        return f"{told}."
    grid = grids[1]
    move = _mean_move(weights, grid.values)
    adapter = ", adapter included" if grid.rank else ""
    clips = [f"{1 - keeps:.0%} of the {side} end" for keeps, side in ((grid.keeps_low, "low"), (grid.keeps_high, "high")) if keeps and keeps < 0.98]  # noqa: PLR2004
    clip = f"cut off {' and '.join(clips)}" if clips else "kept the whole range"
    why = " It was learned for the outputs, so single weights may move further." if move > plain else ""
    return f"{told}. The grid {grid.name} {clip} and moves a weight by {move:.2g} on average{adapter}.{why}"


def _facts(weights: Sequence[float], grids: Sequence[GroupGrid], place: _Place) -> list[tuple[str, str, str]]:
    last = place.first + place.size - 1
    found = [
        ("Group", f"row {place.row}, group {place.group}", f"inputs {place.first} to {last} of block {place.block}, {place.matrix}"),
        ("Weights", f"{min(weights):.3g} to {max(weights):.3g}", "smallest and largest"),
    ]
    for grid in grids:
        scale = f"step {grid.scale:.3g}" if grid.scale is not None else "two scales"
        zero = f"zero point {grid.zero_point}" if grid.zero_point is not None else "no zero point"
        found.append((grid.name[:1].upper() + grid.name[1:], scale, zero))
    return found


def _histogram(maps: MatrixMaps | None, grids: Sequence[GroupGrid], place: _Place) -> Chart:
    """All weights of the matrix, with the levels of the group's grid: the learned one when there is one."""
    if maps is None or maps.histogram is None:
        return Chart(problem="The histogram of this matrix is not kept; it appears once the model is on this machine.")
    grid = grids[1] if len(grids) > 1 else grids[0]
    edges, counts = [float(one) for one in maps.histogram["edges"]], [int(one) for one in maps.histogram["counts"]]
    centers = [(one + other) / 2 for one, other in itertools.pairwise(edges)]
    total = sum(counts) or 1
    beyond = sum(count for center, count in zip(centers, counts, strict=True) if not grid.low <= center <= grid.high) / total
    middle = sum(count for center, count in zip(centers, counts, strict=True) if abs(center) <= max(map(abs, edges)) / 4) / total
    maker = "min/max of this group" if grid is grids[0] else grid.name
    figure = weight_histogram(edges, counts, grid.levels, (grid.low, grid.high), maker)
    reading = (
        f"{middle:.1%} of the {total:,} weights lie in the middle quarter of the matrix's range: one grid for all would spend most levels on a few "
        f"large weights. The grid of this group, {maker}, is narrower: {beyond:.1%} of the matrix lies beyond it, and belongs to other groups."
    )
    rows = [[f"{one:.5g}", f"{other:.5g}", count] for one, other, count in zip(edges[:-1], edges[1:], counts, strict=True)]
    return Chart(payload(figure, f"salq-block{place.block}-{place.matrix}-histogram"), reading, "", ["from", "to", "weights"], rows)


def _placed(picture: GroupPicture, place: _Place, shape: tuple[int, int]) -> GroupPicture:
    return replace(picture, row=place.row, group=place.group, rows=shape[0], groups=shape[1] // place.size)
