"""How a quantization error travels: the error of the hidden state after every block, with full-precision and with quantized inputs.

For Explore. One stream of hidden states stays full-precision; every grid has a second one that only ever saw quantized blocks.
"""

import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, cast

import torch
from jaxtyping import Int
from torch import Tensor, nn

from salq.core.events import Event, MetricReported, PhaseDone, PhaseStarted, PhaseStep
from salq.models.capture import BlockInputs, capture_block_inputs, relative_error, run_block
from salq.models.llama import Llama
from salq.quant.frozen import FrozenLinear, rtn
from salq.quant.spec import QuantSpec

PHASE = "depth"


@dataclass(frozen=True)
class Depth:
    """Relative error of the hidden state after each block, fractions: mean over tokens of |h_hat - h| / |h|; None where it is not finite.

    name: a grid's tag, or the name of a finished calibration. alone: only this block quantized, its input full-precision.
    together: every block so far quantized, so its input carries the errors of all earlier ones.
    """

    name: str
    alone: list[float | None] = field(default_factory=list)
    together: list[float | None] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def depth_errors(
    model: Llama,
    tokens: Int[Tensor, "samples seq"],
    specs: Sequence[QuantSpec],
    frozen: Mapping[str, Mapping[int, Mapping[str, FrozenLinear]]] | None = None,
) -> Generator[Event, None, list[Depth]]:
    """The phase "depth": one PhaseStep per block, then MetricReported("depth", [Depth.to_json(), ...]); returns the same.

    One Depth per spec (rounding to nearest), then one per entry of `frozen` ({name: {block: {module_name: matrix}}}); a matrix that is
    missing there, or that holds NaN or infinite weights, stays as it is. Costs 1 + 2 passes per entry over `tokens`. Memory: one hidden state
    of all tokens per entry and three more, and one quantized block in float32.
    """
    started = time.monotonic()
    finished = frozen or {}
    found = [Depth(spec.tag) for spec in specs] + [Depth(name) for name in finished]
    makers = [partial(_rounded, model, spec) for spec in specs] + [partial(_effective, blocks) for blocks in finished.values()]
    yield PhaseStarted(PHASE, of=model.n_blocks, unit="blocks")
    inputs = capture_block_inputs(model, tokens)
    streams = [inputs.hidden.clone() for _ in found]
    for block in range(model.n_blocks):
        before = inputs.hidden.clone()
        _advance(model, block, inputs.hidden, inputs)
        for depth, stream, make in zip(found, streams, makers, strict=True):
            _step(model, block, make(block), (before, stream), inputs, depth)
        yield PhaseStep(PHASE, block + 1)
    yield MetricReported(PHASE, [one.to_json() for one in found])
    yield PhaseDone(PHASE, time.monotonic() - started)
    return found


@torch.no_grad()
def _step(model: Llama, block: int, weights: Mapping[str, Tensor], states: tuple[Tensor, Tensor], inputs: BlockInputs, depth: Depth) -> None:
    """Run the block with `weights` in place of its own on the full-precision input and on its own stream, which is overwritten."""
    before, stream = states
    linears = model.linears(block)
    kept = {name: linears[name].weight for name in weights}
    try:
        for name, weight in weights.items():
            linears[name].weight = nn.Parameter(weight.to(kept[name]), requires_grad=False)  # type: ignore[arg-type]
        alone = before.clone()
        _advance(model, block, alone, inputs)
        _advance(model, block, stream, inputs)
    finally:
        for name, own in kept.items():
            linears[name].weight = own
    depth.alone.append(_finite(relative_error(alone, inputs.hidden)))
    depth.together.append(_finite(relative_error(stream, inputs.hidden)))


@torch.no_grad()
def _advance(model: Llama, block: int, hidden: Tensor, inputs: BlockInputs) -> None:
    for part in hidden.split(4):
        part.copy_(run_block(model.blocks[block], part, inputs.kwargs))


@torch.no_grad()
def _rounded(model: Llama, spec: QuantSpec, block: int) -> dict[str, Tensor]:
    """The matrices of a block rounded to nearest, but for those that are not finite."""
    weights = {name: cast(Tensor, linear.weight).float() for name, linear in model.linears(block).items()}
    return {name: rtn(weight, spec).effective_weight() for name, weight in weights.items() if bool(torch.isfinite(weight).all())}


def _effective(blocks: Mapping[int, Mapping[str, FrozenLinear]], block: int) -> dict[str, Tensor]:
    return {name: linear.effective_weight() for name, linear in blocks.get(block, {}).items()}


def _finite(value: float) -> float | None:
    return value if value < float("inf") else None
