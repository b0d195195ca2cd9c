"""One group of weights on its grid: the levels, the clip, every weight's code and what it becomes. For Explore's number line."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from salq.quant.frozen import FrozenLinear, rtn
from salq.quant.group_grid import GroupGrid
from salq.quant.spec import QuantSpec


def min_max_grid(weights: Float[Tensor, " group"], spec: QuantSpec) -> GroupGrid:
    """Rounding to nearest over the full range of the group. Raises ShapeError for NaN or infinite weights."""
    line = weights.reshape(1, -1)
    return grid_of(weights, rtn(line, spec.model_copy(update={"group_size": None})), 0, "min/max")


def grid_of(weights: Float[Tensor, " group"], row: FrozenLinear, group: int, name: str) -> GroupGrid:
    """Group number `group` of a finished row `[1, in]` (`PackedFile.row`), and what it makes of `weights`, the group's own."""
    size = row.spec.group_size or row.codes.shape[1]
    at = slice(group * size, (group + 1) * size)
    whole, plain = row.effective_weight()[0, at], row.dequantize()[0, at]
    levels = sorted(set(_levels(row, group)))
    lowest, highest = float(weights.min()), float(weights.max())
    is_uniform = row.grid == "uniform"
    return GroupGrid(
        name=name,
        levels=levels,
        codes=row.codes[0, at].tolist(),
        values=whole.tolist(),
        adapter=(whole - plain).tolist() if row.rank else [0.0] * len(whole),
        scale=float(row.scale[0, group]) if is_uniform else None,
        zero_point=int(row.zero_point[0, group]) if is_uniform else None,
        keeps_low=levels[0] / lowest if lowest < 0 else None,
        keeps_high=levels[-1] / highest if highest > 0 else None,
        rank=row.rank,
    )


def _levels(row: FrozenLinear, group: int) -> list[float]:
    """What every code stands for in this group, whatever the grid is: the codes 0, 1, ... in place of the row's own."""
    size = row.spec.group_size or row.codes.shape[1]
    count = 2**row.spec.bits - row.spec.symmetric  # the highest code of a symmetric grid is never used
    found: list[float] = []
    for start in range(0, count, size):
        codes = row.codes.clone()
        here = torch.arange(start, min(start + size, count), dtype=torch.uint8)
        codes[0, group * size : group * size + len(here)] = here
        found += replace(row, codes=codes).dequantize()[0, group * size : group * size + len(here)].tolist()
    return found
