"""Reduce a matrix to a picture: at most 128 x 344 bins whose columns never straddle a quantization group.

For the maps of Explore (saliency, error and their product): matrices of one shape get the same bins, so the pictures line up. The usual
344 columns give the widest LLaMA 2 matrix (11008 inputs) exactly two bins per group of 64.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Reduction = Literal["max", "mean", "p99"]
MAX_ROWS = 128
MAX_COLS = 344


@dataclass(frozen=True)
class PooledMap:
    """`values[r, c]` summarises matrix[row_edges[r]:row_edges[r + 1], col_edges[c]:col_edges[c + 1]].

    A bin without a finite entry is NaN; `n_nonfinite` counts the NaN and infinite entries of the whole matrix, which are left out.
    """

    values: Float[Tensor, "rows cols"]
    row_edges: tuple[int, ...]
    col_edges: tuple[int, ...]
    how: Reduction
    n_nonfinite: int


def pool(
    matrix: Float[Tensor, "out in"],
    rows: int = MAX_ROWS,
    cols: int = MAX_COLS,
    how: Reduction = "max",
    group_size: int | None = None,
) -> PooledMap:
    """The maximum, mean or 99th percentile of each bin, in float32, in at most `rows` x `cols` bins of equal size (the last may be smaller).

    Bins are a whole number of groups wide, or an equal part of one group (group_size None: a whole row is one group, any width does).
    Computed one strip of rows at a time: temporaries are the size of a strip, not of the matrix.
    """
    out_features, in_features = matrix.shape
    height = -(-out_features // rows)
    width = bin_width(in_features, cols, group_size)
    values = torch.stack([_reduce(bins, how) for bins in _strips(matrix, height, width)])
    return PooledMap(
        values=values.cpu(),
        row_edges=_edges(out_features, height),
        col_edges=_edges(in_features, width),
        how=how,
        n_nonfinite=int((~torch.isfinite(matrix)).sum()),
    )


def bin_width(size: int, limit: int, group_size: int | None) -> int:
    """The smallest width that covers `size` in at most `limit` bins and is a divisor or a multiple of the group."""
    smallest = -(-size // limit)
    if group_size is None:
        return smallest
    if smallest >= group_size:
        return -(-smallest // group_size) * group_size
    return next(width for width in range(smallest, group_size + 1) if group_size % width == 0)


def _strips(matrix: Float[Tensor, "out in"], height: int, width: int) -> Iterator[Float[Tensor, "cols entries"]]:
    """For each row of bins, the entries of every bin; NaN stands for what is not finite and for what the ragged last bin lacks."""
    n_cols = -(-matrix.shape[1] // width)
    for start in range(0, matrix.shape[0], height):
        strip = matrix[start : start + height].float()
        strip = torch.where(torch.isfinite(strip), strip, torch.nan)
        strip = torch.nn.functional.pad(strip, (0, n_cols * width - strip.shape[1]), value=torch.nan)
        yield strip.reshape(-1, n_cols, width).transpose(0, 1).reshape(n_cols, -1)


def _reduce(bins: Float[Tensor, "cols entries"], how: Reduction) -> Float[Tensor, " cols"]:
    """One number per bin, over its entries that are not NaN."""
    if how == "mean":
        return bins.nanmean(dim=-1)
    if how == "p99":
        return bins.nanquantile(0.99, dim=-1)
    highest = torch.where(bins.isnan(), -torch.inf, bins).amax(dim=-1)
    return torch.where(highest == -torch.inf, torch.nan, highest)


def _edges(size: int, step: int) -> tuple[int, ...]:
    return (*range(0, size, step), size)
