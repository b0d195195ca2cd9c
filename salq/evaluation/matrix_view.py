"""One matrix from above: its saliency, what rounding does to each weight, and where the two meet, as pooled maps on the same bins.

For Explore. Works on two tensors that were read from disk one matrix at a time; no model is loaded.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from salq.quant.frozen import rtn
from salq.quant.spec import QuantSpec, check_group_size
from salq.saliency.pooling import PooledMap, Reduction, pool

TOP_SHARE = 0.01
"""The share of weights whose part of a map's total is reported."""


@dataclass(frozen=True)
class MapFacts:
    """Numbers about the whole matrix behind a map, before pooling. `top_share` is the part of the total that the top 1 % of weights hold."""

    mean: float
    maximum: float
    total: float
    top_share: float
    n_nonfinite: int


@dataclass(frozen=True)
class MatrixView:
    """Maps by name, in drawing order: saliency (nats^2 per weight^2), error (|w - w_hat|), product (1/2 F (w - w_hat)^2, nats per sample).

    Only "error" is there when no saliency was given. relative_error is |W - W_hat| / |W| in Frobenius norms.
    """

    shape: tuple[int, int]
    spec: QuantSpec
    maps: Mapping[str, PooledMap]
    facts: Mapping[str, MapFacts]
    relative_error: float


def matrix_view(
    name: str,
    weight: Float[Tensor, "out in"],
    spec: QuantSpec,
    saliency: Float[Tensor, "out in"] | None = None,
    quantized: Float[Tensor, "out in"] | None = None,
    how: Reduction = "max",
) -> MatrixView:
    """The view of one matrix; `quantized` is the effective weight of a finished calibration, rounding to nearest when it is None.

    The product is the rough rise of a sample's loss that moving this weight alone predicts: 1/2 F dw^2, with the empirical Fisher in
    place of the Hessian. Raises ShapeError, naming the matrix, when the group size does not divide its inputs.
    """
    rows, columns = weight.shape
    check_group_size(spec, {name: (rows, columns)})
    moved = (weight - (rtn(weight, spec).effective_weight() if quantized is None else quantized)).abs_()
    pictures = {"error": moved} if saliency is None else {"saliency": saliency, "error": moved, "product": saliency * moved.square() / 2}
    return MatrixView(
        shape=(rows, columns),
        spec=spec,
        maps={key: pool(picture, how=how, group_size=spec.group_size) for key, picture in pictures.items()},
        facts={key: facts(picture) for key, picture in pictures.items()},
        relative_error=float(torch.linalg.vector_norm(moved) / torch.linalg.vector_norm(weight)),
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
