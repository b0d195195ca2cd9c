"""A frozen matrix that learns again: scales and adapter, and the weight if wanted, as parameters of a whole model."""

import copy
import dataclasses
import math
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from salq.calibration.store import Block
from salq.models.llama import Llama
from salq.quant.frozen import FrozenLinear, freeze
from salq.quant.grid import MIN_SCALE, QParams, fake_quantize, grouped

WITHIN = 0.499
"""Of a step on either side of a level: still rounded to it."""


class LearnableLinear(nn.Module):
    """A frozen matrix whose scales and adapter (and weight, if wanted) are learned again; `freeze` gives it back as codes.

    Parameters: log_gain [out, groups], the u above, 0 at the start; lora_A [rank, in] and lora_B [out, rank] when there is an adapter;
    weight [out, in] when it is learned. All float32.
    """

    start: Tensor
    zero_point: Tensor
    levels: Tensor | None

    def __init__(self, frozen: FrozenLinear, original: nn.Linear, *, learn_weight: bool) -> None:
        """`original` gives the bias, and the weight that learning starts from."""
        super().__init__()
        self.frozen, self.bias = frozen, None if original.bias is None else original.bias.detach().float()
        self.register_buffer("start", frozen.scale.float())
        self.register_buffer("zero_point", frozen.zero_point.float())
        levels = None if learn_weight else grouped(frozen.codes.float(), frozen.spec) - self.zero_point.unsqueeze(-1)
        self.register_buffer("levels", levels)
        self.log_gain = nn.Parameter(torch.zeros_like(self.start))
        self.weight = nn.Parameter(self._nearest(original.weight.detach().float())) if learn_weight else None
        self.lora_A = None if frozen.lora_A is None else nn.Parameter(frozen.lora_A.float())
        self.lora_B = None if frozen.lora_B is None else nn.Parameter(frozen.lora_B.float())

    def _nearest(self, weight: Float[Tensor, "out in"]) -> Float[Tensor, "out in"]:
        """The matrix nearest to `weight` that has the frozen codes: `weight` itself wherever rounding it gives them."""
        level = grouped(self.frozen.codes.float(), self.frozen.spec) - self.zero_point.unsqueeze(-1)
        lowest, highest = -self.zero_point.unsqueeze(-1), self.frozen.spec.max_code - self.zero_point.unsqueeze(-1)
        infinite = torch.tensor(math.inf)
        low = torch.where(level > lowest, level - WITHIN, -infinite) * self.start.unsqueeze(-1)
        high = torch.where(level < highest, level + WITHIN, infinite) * self.start.unsqueeze(-1)
        return grouped(weight, self.frozen.spec).clamp(low, high).flatten(1)

    def scale(self) -> Float[Tensor, "out groups"]:
        """s = s_0 * exp(u), never below the smallest scale that can be stored."""
        return (self.start * self.log_gain.exp()).clamp(min=MIN_SCALE)

    def quantized_weight(self) -> Float[Tensor, "out in"]:
        """The weight that the codes stand for, without the adapter; differentiable in what is learned."""
        if self.weight is not None:
            return fake_quantize(self.weight, QParams(self.scale(), self.zero_point), self.frozen.spec)
        assert self.levels is not None
        return (self.levels * self.scale().unsqueeze(-1)).flatten(1)

    def forward(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        """The quantized linear on `x`. The adapter is added to the weight, whose gradient is needed anyway (see `StudentLinear`)."""
        weight = self.quantized_weight()
        if self.lora_A is not None and self.lora_B is not None:
            weight = torch.addmm(weight, self.lora_B, self.lora_A, alpha=self.frozen.scaling)
        return nn.functional.linear(x, weight, self.bias)

    @torch.no_grad()
    def freeze(self) -> FrozenLinear:
        """What was learned, as it is stored, on the CPU: codes are taken with the rounded scale, and only where the weight was learned."""
        if self.weight is None:
            codes, scale = self.frozen.codes, self.scale().to(torch.float16)
        else:
            decided = freeze(self.weight, QParams(self.scale(), self.zero_point), self.frozen.spec)
            codes, scale = decided.codes, decided.scale
        half = torch.float16
        return FrozenLinear(
            self.frozen.spec, codes, scale, self.frozen.zero_point,
            None if self.lora_A is None else self.lora_A.detach().to(half),
            None if self.lora_B is None else self.lora_B.detach().to(half),
            self.frozen.scaling,
        ).to(torch.device("cpu"))  # fmt: skip


def student_of(model: Llama, blocks: Mapping[int, Block], *, learn_weight: bool = False) -> Llama:
    """`model` in float32, with the matrices of `blocks` as LearnableLinear.

    Everything else takes no gradient, and is shared with the original where that is in float32 (on a GPU it is in bfloat16).
    """
    replaced = {id(linear.weight) for index in blocks for name, linear in model.linears(index).items() if name in blocks[index]}
    tensors = [*model.model.parameters(), *model.model.buffers()]
    shared = [tensor for tensor in tensors if id(tensor) in replaced or tensor.dtype in {torch.float32, torch.int64}]
    network = copy.deepcopy(model.model, {id(tensor): tensor for tensor in shared})
    for index, block in blocks.items():
        for name, frozen in block.items():
            original = model.blocks[index].get_submodule(name)
            assert isinstance(original, nn.Linear)
            network.model.layers[index].set_submodule(name, LearnableLinear(frozen.to(model.device), original, learn_weight=learn_weight))
    return dataclasses.replace(model, model=network.float())
