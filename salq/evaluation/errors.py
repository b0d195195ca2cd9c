"""Quantization error of every matrix: how far the weight moves, and how far its output moves on real inputs.

For the block x matrix grids of Explore, `python -m salq errors` and runs: several grids, and matrices that calibration has finished, in
one pass over the text. The inputs are those of the full-precision model, so each cell shows one matrix's own error.
"""

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from salq.core.device import out_of_memory_as_error
from salq.core.errors import ShapeError
from salq.core.events import Event, MetricReported, PhaseDone, PhaseStarted, PhaseStep
from salq.models.capture import BlockInputs, capture_block_inputs, run_block
from salq.models.llama import LINEARS, SHARED_INPUTS, Llama
from salq.models.shapes import linear_shapes
from salq.quant.frozen import FrozenLinear, rtn
from salq.quant.spec import QuantSpec, check_group_size
from salq.saliency.maps import SaliencyMap

Cells = list[list[float | None]]
"""[n_blocks][7], columns in the order of LINEARS; None where there is no such matrix or no finite value."""


@dataclass(frozen=True)
class ErrorGrid:
    """Relative errors of all matrices under one grid, fractions (0.1 is 10 %).

    weight_error: |W - W_hat| / |W|. output_error: |(W - W_hat) X| / |W X| over all tokens, None as a whole without text. Frobenius norms;
    W_hat includes the adapter. made_by: "rtn", or "calibrated" for matrices that were handed in finished.
    weighted_error: 1/2 sum F (w - w_hat)^2 over the matrix, nats per sample, F the saliency; None as a whole without saliency.
    n_nonfinite[block][i]: NaN and infinite entries among the matrix's weights and inputs; such a matrix has no error.
    """

    spec: QuantSpec
    made_by: Literal["rtn", "calibrated"]
    weight_error: Cells = field(default_factory=list)
    output_error: Cells | None = None
    weighted_error: Cells | None = None
    n_nonfinite: list[list[int]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """JSON values, with the names of the columns and the grid's tag."""
        return {
            "tag": self.spec.tag,
            "spec": self.spec.model_dump(),
            "made_by": self.made_by,
            "linears": list(LINEARS),
            "weight_error": self.weight_error,
            "output_error": self.output_error,
            "weighted_error": self.weighted_error,
            "n_nonfinite": self.n_nonfinite,
        }


class Moment(NamedTuple):
    """What the error of a linear needs to know about its inputs: sum of x x^T over tokens in float32, and how many entries are not finite."""

    total: Float[Tensor, "in in"]
    n_nonfinite: int


Quantizer = Callable[[int, str, Tensor], FrozenLinear | None]
"""(block, module_name, weight) -> the quantized matrix, or None when there is none."""


def quantization_errors(
    model: Llama,
    tokens: Int[Tensor, "samples seq"] | None,
    specs: Sequence[QuantSpec],
    frozen: Mapping[int, Mapping[str, FrozenLinear]] | None = None,
    batch_size: int = 4,
    saliency: SaliencyMap | None = None,
) -> Generator[Event, None, list[ErrorGrid]]:
    """The phase "errors": one PhaseStep per block, then MetricReported("errors", [ErrorGrid.to_json(), ...]); returns the grids.

    One ErrorGrid per spec (rounding to nearest), then one for `frozen` ({block: {module_name: matrix}}, blocks may be missing).
    tokens None: weight errors only, nothing is run. saliency: adds the saliency-weighted errors.
    Inputs are reduced to X X^T as soon as a linear has them, by
    |D X|^2 = trace(D X X^T D^T); so every further spec costs a product of matrices, not a pass over the tokens.
    Memory: hidden states of all samples, and X X^T of one block in float32. Raises ShapeError for a group size that does not divide a matrix.
    """
    _check_group_sizes(model, specs)
    started = time.monotonic()
    quantizers = [_rounding(spec) for spec in specs]
    grids = [_empty(spec, "rtn", tokens, saliency) for spec in specs]
    if frozen:
        quantizers.append(_finished(frozen))
        grids.append(_empty(_spec_of(frozen), "calibrated", tokens, saliency))
    yield PhaseStarted("errors", of=model.n_blocks, unit="blocks")
    inputs = None if tokens is None else capture_block_inputs(model, tokens, batch_size)
    for block in range(model.n_blocks):
        moments = {} if inputs is None else advance_with_moments(model, block, inputs, batch_size)
        fisher = {} if saliency is None else saliency.block(block)
        for grid, quantizer in zip(grids, quantizers, strict=True):
            _add_block(grid, quantizer, model, block, moments, fisher)
        yield PhaseStep("errors", block + 1)
    yield MetricReported("errors", [grid.to_json() for grid in grids])
    yield PhaseDone("errors", time.monotonic() - started)
    return grids


@torch.no_grad()
def advance_with_moments(model: Llama, block: int, inputs: BlockInputs, batch_size: int) -> dict[str, Moment]:
    """Run one block over all samples, overwriting inputs.hidden with its outputs; second moments of the inputs of each linear."""
    totals: dict[str, Tensor] = {}
    nonfinite = dict.fromkeys(SHARED_INPUTS, 0)

    def observe(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            x = args[0].flatten(0, -2).float()
            moment = x.T @ x
            totals[name] = totals[name].add_(moment) if name in totals else moment
            nonfinite[name] += int((~torch.isfinite(x)).sum())

        return hook

    linears = model.linears(block)
    handles = [linears[name].register_forward_pre_hook(observe(name)) for name in SHARED_INPUTS]
    try:
        with out_of_memory_as_error("Measuring the output error"):
            for hidden in inputs.hidden.split(batch_size):
                hidden.copy_(run_block(model.blocks[block], hidden, inputs.kwargs))
    finally:
        for handle in handles:
            handle.remove()
    return {name: Moment(totals[observed], nonfinite[observed]) for observed, names in SHARED_INPUTS.items() for name in names}


def weight_error(weight: Float[Tensor, "out in"], quantized: Float[Tensor, "out in"]) -> float | None:
    """|W - W_hat| / |W| in Frobenius norms; summed in float64. None when it is not finite."""
    return _ratio(_norm(weight - quantized), _norm(weight))


def output_error(weight: Float[Tensor, "out in"], quantized: Float[Tensor, "out in"], moment: Float[Tensor, "in in"]) -> float | None:
    """|(W - W_hat) X| / |W X| from moment = X X^T: sqrt(trace(D M D^T) / trace(W M W^T)). None when it is not finite."""
    return _ratio(_output_norm(weight - quantized, moment), _output_norm(weight, moment))


def weighted_error(weight: Float[Tensor, "out in"], quantized: Float[Tensor, "out in"], fisher: Float[Tensor, "out in"]) -> float | None:
    """1/2 sum F (w - w_hat)^2, nats per sample; summed in float64. None when it is not finite."""
    value = float((fisher.to(weight.device) * (weight - quantized).square()).sum(dtype=torch.float64)) / 2
    return value if value < float("inf") else None


@torch.no_grad()
def _add_block(grid: ErrorGrid, quantizer: Quantizer, model: Llama, block: int, moments: Mapping[str, Moment], fisher: Mapping[str, Tensor]) -> None:
    """Append one row to every part of the grid."""
    weight_row: list[float | None] = []
    output_row: list[float | None] = []
    weighted_row: list[float | None] = []
    counts: list[int] = []
    for name, linear in model.linears(block).items():
        weight, moment = cast(Tensor, linear.weight).float(), moments.get(name)
        bad_weights = int((~torch.isfinite(weight)).sum())
        quantized = None if bad_weights else _effective(quantizer(block, name, weight), weight, f"block {block}, {name}")
        weight_row.append(None if quantized is None else weight_error(weight, quantized))
        output_row.append(None if quantized is None or moment is None else output_error(weight, quantized, moment.total))
        weighted_row.append(None if quantized is None or name not in fisher else weighted_error(weight, quantized, fisher[name]))
        counts.append(bad_weights + (moment.n_nonfinite if moment else 0))
    grid.weight_error.append(weight_row)
    grid.n_nonfinite.append(counts)
    if grid.output_error is not None:
        grid.output_error.append(output_row)
    if grid.weighted_error is not None:
        grid.weighted_error.append(weighted_row)


def _empty(spec: QuantSpec, made_by: Literal["rtn", "calibrated"], tokens: Tensor | None, saliency: SaliencyMap | None) -> ErrorGrid:
    return ErrorGrid(spec, made_by, output_error=None if tokens is None else [], weighted_error=None if saliency is None else [])


def _effective(quantized: FrozenLinear | None, weight: Tensor, where: str) -> Tensor | None:
    if quantized is None:
        return None
    if quantized.codes.shape != weight.shape:
        got, wanted = " x ".join(map(str, quantized.codes.shape)), " x ".join(map(str, weight.shape))
        raise ShapeError(f"The quantized matrix of {where} is {got} and the model's is {wanted}; it belongs to another model.")
    return quantized.to(weight.device).effective_weight()


def _rounding(spec: QuantSpec) -> Quantizer:
    return lambda _block, _name, weight: rtn(weight, spec)


def _finished(frozen: Mapping[int, Mapping[str, FrozenLinear]]) -> Quantizer:
    return lambda block, name, _weight: frozen[block].get(name) if block in frozen else None


def _spec_of(frozen: Mapping[int, Mapping[str, FrozenLinear]]) -> QuantSpec:
    return next(iter(frozen[next(iter(frozen))].values())).spec


def _check_group_sizes(model: Llama, specs: Sequence[QuantSpec]) -> None:
    shapes = linear_shapes(model.config.to_dict(), n_blocks=1)
    for spec in specs:
        check_group_size(spec, shapes)


def _norm(matrix: Tensor) -> float:
    return float(torch.linalg.vector_norm(matrix, dtype=torch.float64))


def _output_norm(matrix: Float[Tensor, "out in"], moment: Float[Tensor, "in in"]) -> float:
    # The trace of a positive semidefinite form; rounding may leave a zero slightly negative.
    return float(((matrix @ moment) * matrix).sum(dtype=torch.float64).clamp(min=0).sqrt())


def _ratio(error: float, norm: float) -> float | None:
    """error / norm; 0 for a zero matrix reproduced exactly, None when there is no finite ratio."""
    if error == 0.0 and norm == 0.0:
        return 0.0
    ratio = error / norm if norm else float("inf")
    return ratio if ratio < float("inf") else None
