"""One real matrix for the lessons: a row, a patch with its saliency, and the singular values of what rounding takes away.

Works on tensors that were read from disk one matrix at a time; no model is loaded. Also what a click on "real weights" reads.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from salq.core.errors import ShapeError
from salq.evaluation.group_view import grid_of
from salq.lessons.material import Learned, Patch, Row, Spectrum, rounded
from salq.quant.frozen import FrozenLinear, freeze, rtn
from salq.quant.grid import group_range, qparams_from_range
from salq.quant.spec import QuantSpec

WIDTHS = (2, 3, 4)
GROUP = 64
ROW_WEIGHTS = 256
PATCH_ROWS = 16
DIGITS = 7
"""Significant digits of a kept weight: codes taken from it are those of the weight itself."""


def row_of(weight: Float[Tensor, "out in"], row: int, start: int, count: int = ROW_WEIGHTS) -> Row:
    """`count` consecutive weights, fewer in a narrow matrix. Raises ShapeError for a row without one group of GROUP finite weights."""
    last = (weight.shape[1] - start) // GROUP * GROUP
    values = weight[row, start : start + min(count, last)].double()
    if len(values) == 0 or not bool(torch.isfinite(values).all()):
        raise ShapeError(
            f"Row {row} from input {start} has no {GROUP} finite weights (the matrix is {weight.shape[0]} x {weight.shape[1]}); "
            "choose another matrix in Explore."
        )
    return Row(row=row, start=start, weights=tuple(rounded(value, DIGITS) for value in values.tolist()))


def patch_of(name: str, weight: Float[Tensor, "out in"], saliency: Float[Tensor, "out in"] | None, start: int = 0) -> Patch:
    """Of PATCH_ROWS rows, spread evenly over the matrix, the group at `start`, with the saliency of its weights."""
    rows = tuple(range(0, weight.shape[0], max(weight.shape[0] // PATCH_ROWS, 1)))[:PATCH_ROWS]

    def numbers(values: Tensor, digits: int) -> tuple[tuple[float, ...], ...]:
        return tuple(tuple(rounded(value, digits) for value in line) for line in values[list(rows), start : start + GROUP].double().tolist())

    fisher = None if saliency is None else numbers(saliency, 4)
    return Patch(matrix=name, rows=rows, start=start, weights=numbers(weight, DIGITS), saliency=fisher)


def spectrum_of(weight: Float[Tensor, "out in"], moment: Float[Tensor, "in in"] | None = None, widths: Sequence[int] = WIDTHS) -> Spectrum:
    """Singular values of the residual D = W - W_hat of rounding to nearest, by bits, in float64.

    moment = X X^T: then also those of D X, the square roots of the eigenvalues of D X X^T D^T.
    """
    exact = weight.double()
    by_weight, by_output = {}, {}
    for bits in widths:
        residual = exact - rtn(weight, QuantSpec(bits=bits, group_size=GROUP)).effective_weight().double()  # type: ignore[arg-type]  # WIDTHS
        by_weight[str(bits)] = _kept(torch.linalg.svdvals(residual))
        if moment is not None:
            seen = torch.linalg.eigvalsh(residual @ moment.double() @ residual.T).clamp(min=0).sqrt().flip(0)
            by_output[str(bits)] = _kept(seen)
    noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return Spectrum(
        shape=(weight.shape[0], weight.shape[1]), group_size=GROUP, weight=by_weight, output=by_output,
        random=_kept(torch.linalg.svdvals(noise)), weight_norm=float(torch.linalg.vector_norm(exact)),
        output_norm=None if moment is None else float(torch.einsum("oi,ij,oj->", exact, moment.double(), exact).sqrt()),
    )  # fmt: skip


def shares_of(row: Row, one: Row) -> dict[str, float]:
    """Fractions that the lessons tell about a row and about `one` group.

    best_share2, best_gain2 (and 3): the share of the group's range whose squared error is smallest at 2 (3) bits, and how much smaller it is.
    row_gain: squared error of the row at 3 bits in groups of GROUP, as a fraction of that with one grid.
    """
    group, line = torch.tensor([one.weights]), torch.tensor([row.weights])
    told: dict[str, float] = {}
    for bits in (2, 3):
        whole = QuantSpec(bits=bits, group_size=None)  # type: ignore[arg-type]  # both are widths of QuantSpec
        share, smallest = best_clip(group, whole)
        told |= {f"best_share{bits}": share, f"best_gain{bits}": 1 - smallest / squared_error(group, rtn(group, whole).effective_weight())}
    grids = (QuantSpec(bits=3, group_size=GROUP), QuantSpec(bits=3, group_size=None))
    fine, coarse = (squared_error(line, rtn(line, spec).effective_weight()) for spec in grids)
    return {name: rounded(value) for name, value in (told | {"row_gain": fine / coarse}).items()}


def learned_of(weights: Float[Tensor, " group"], row: FrozenLinear, group: int, name: str) -> Learned:
    """What a calibration chose for a group: the ends of its grid beside the group's own, and the squared error of its codes."""
    grid = grid_of(weights, row, group, name)
    plain = torch.tensor(grid.values) - torch.tensor(grid.adapter)
    ends = [1.0 if keeps is None else keeps for keeps in (grid.keeps_low, grid.keeps_high)]
    error = squared_error(weights.unsqueeze(0), plain.unsqueeze(0))
    return Learned(name=name, bits=row.spec.bits, lower=rounded(ends[0]), upper=rounded(ends[1]), total=rounded(error))


def best_clip(weight: Float[Tensor, "out in"], spec: QuantSpec) -> tuple[float, float]:
    """(share of the range, squared error) of the best of the shares 1, 0.99, ... 0.3 for both ends: grid search for the least squared error."""
    low, high = group_range(weight, spec)
    found = []
    for percent in range(100, 29, -1):
        qparams = qparams_from_range(low * (percent / 100), high * (percent / 100), spec)
        found.append((squared_error(weight, freeze(weight, qparams, spec).effective_weight()), percent / 100))
    error, share = min(found, key=lambda one: one[0])
    return share, error


def squared_error(weight: Float[Tensor, "out in"], quantized: Float[Tensor, "out in"]) -> float:
    """Sum of (w - w_hat)^2, in float64."""
    return float((weight.double() - quantized.double()).square().sum())


def _kept(values: Tensor) -> tuple[float, ...]:
    return tuple(rounded(value) for value in values.tolist())
