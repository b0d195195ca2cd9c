"""One matrix from above: its saliency, what quantization does to each weight, and where the two meet, as pooled maps on the same bins.

For Explore. Works on tensors that were read from disk one matrix at a time; no model is loaded.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from salq.quant.frozen import FrozenLinear, rtn
from salq.quant.spec import QuantSpec, check_group_size
from salq.saliency.pooling import PooledMap, Reduction, pool

TOP_SHARE = 0.01
"""The share of weights whose part of a map's total is reported."""

HISTOGRAM_BINS = 96
WHOLE, PART = 2048, 1024
"""Singular values are those of the whole matrix when it has at most WHOLE rows and inputs, else of its first PART rows and inputs: of a whole
matrix of a 7B model they would take minutes."""


@dataclass(frozen=True)
class MapFacts:
    """Numbers about the whole matrix behind a map, before pooling. `top_share` is the part of the total that the top 1 % of weights hold."""

    mean: float
    maximum: float
    total: float
    top_share: float
    n_nonfinite: int


@dataclass(frozen=True)
class WeightHistogram:
    """counts[i] weights lie between edges[i] and edges[i + 1], weight units; the last bin includes its upper edge. Finite weights only."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Residual:
    """What the codes take away from a matrix, R = W - Q(W) without the adapter, for the question what a low rank can give back.

    shape: the part that was looked at, (out, in). singular_values: of R, descending, weight units.
    error and repaired: Frobenius norms of R and of R less the adapter, over the same part; rank: of the adapter, 0 without one.
    """

    shape: tuple[int, int]
    singular_values: tuple[float, ...]
    error: float
    repaired: float
    rank: int


@dataclass(frozen=True)
class MatrixView:
    """Maps by name, in drawing order: saliency (nats^2 per weight^2), error (|w - w_hat|), product (1/2 F (w - w_hat)^2, nats per sample).

    Only "error" is there when no saliency was given. relative_error is |W - W_hat| / |W| in Frobenius norms, over the finite weights.
    residual is None when a weight of the matrix is not finite.
    """

    shape: tuple[int, int]
    spec: QuantSpec
    maps: Mapping[str, PooledMap]
    facts: Mapping[str, MapFacts]
    relative_error: float
    histogram: WeightHistogram
    residual: Residual | None


def matrix_view(
    name: str,
    weight: Float[Tensor, "out in"],
    spec: QuantSpec,
    saliency: Float[Tensor, "out in"] | None = None,
    quantized: FrozenLinear | None = None,
    how: Reduction = "max",
) -> MatrixView:
    """The view of one matrix; `quantized` is the matrix of a finished calibration, rounding to nearest when it is None.

    The product is the rough rise of a sample's loss that moving this weight alone predicts: 1/2 F dw^2, with the empirical Fisher in
    place of the Hessian. Weights that are not finite have no code: they are counted, and their group is quantized as if they were 0.
    Raises ShapeError, naming the matrix, when the group size does not divide its inputs.
    """
    rows, columns = weight.shape
    check_group_size(spec, {name: (rows, columns)})
    finite = torch.isfinite(weight)
    is_whole = bool(finite.all())
    known = weight if is_whole else torch.where(finite, weight, 0.0)
    made = rtn(known, spec) if quantized is None else quantized
    moved = (known - made.effective_weight()).abs_()
    relative = float(torch.linalg.vector_norm(moved) / torch.linalg.vector_norm(known).clamp(min=1e-30))
    residual = residual_of(known, made) if is_whole else None
    if not is_whole:
        moved = torch.where(finite, moved, torch.nan)
    pictures = {"error": moved} if saliency is None else {"saliency": saliency, "error": moved, "product": saliency * moved.square() / 2}
    return MatrixView(
        shape=(rows, columns),
        spec=spec,
        maps={key: pool(picture, how=how, group_size=spec.group_size) for key, picture in pictures.items()},
        facts={key: facts(picture) for key, picture in pictures.items()},
        relative_error=relative,
        histogram=histogram(weight),
        residual=residual,
    )


def facts(values: Float[Tensor, "out in"]) -> MapFacts:
    """Mean, maximum, total and concentration of the finite entries (all non-negative); sums in float64."""
    finite = values[torch.isfinite(values)]
    if finite.numel() == 0:
        return MapFacts(0.0, 0.0, 0.0, 0.0, values.numel())
    total = float(finite.sum(dtype=torch.float64))
    top = finite.topk(max(int(finite.numel() * TOP_SHARE), 1), sorted=False).values
    share = float(top.sum(dtype=torch.float64)) / total if total > 0 else 0.0
    return MapFacts(total / finite.numel(), float(finite.max()), total, share, values.numel() - finite.numel())


def histogram(weight: Float[Tensor, "out in"], bins: int = HISTOGRAM_BINS) -> WeightHistogram:
    """How many weights lie where, in `bins` bins of equal width from the smallest to the largest finite weight."""
    finite = weight[torch.isfinite(weight)]
    if finite.numel() == 0:
        return WeightHistogram((0.0, 1.0), (0,))
    low, high = float(finite.min()), float(finite.max())
    if high <= low:
        low, high = low - 0.5, high + 0.5
    counts = torch.histc(finite, bins, low, high)
    return WeightHistogram(tuple(torch.linspace(low, high, bins + 1, dtype=torch.float64).tolist()), tuple(int(count) for count in counts.tolist()))


def residual_of(weight: Float[Tensor, "out in"], made: FrozenLinear) -> Residual:
    """Singular values of R = W - Q(W) or of its first rows and inputs (PART), from the eigenvalues of the smaller of R R^T and R^T R, in float64."""
    rows, columns = weight.shape
    if max(weight.shape) > WHOLE:
        rows, columns = min(rows, PART), min(columns, PART)
    residual = (weight - made.dequantize())[:rows, :columns].double()
    left = (weight - made.effective_weight())[:rows, :columns]
    gram = residual @ residual.T if rows <= columns else residual.T @ residual
    values = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt().flip(0)
    return Residual(
        shape=(rows, columns),
        singular_values=tuple(values.tolist()),
        error=float(torch.linalg.vector_norm(residual)),
        repaired=float(torch.linalg.vector_norm(left, dtype=torch.float64)),
        rank=made.rank,
    )
