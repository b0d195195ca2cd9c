"""A block that applies what was stored, in plain float32 linears: what the next block, or the next linear, is calibrated on."""

import copy

from torch import nn

from salq.calibration.store import Block
from salq.kernels.executors import Reference
from salq.quant.frozen import FrozenLinear


def dequantized_block(block: nn.Module, frozen: Block) -> nn.Module:
    """A copy of `block` that applies what was stored, in float32; norms and biases are shared, and so is every linear not in `frozen`."""
    memo = {id(parameter): parameter for parameter in block.parameters()}
    result = copy.deepcopy(block, memo)
    for name, linear in frozen.items():
        original = block.get_submodule(name)
        assert isinstance(original, nn.Linear)
        result.set_submodule(name, _module(original, linear.to(original.weight.device)))
    return result


def _module(original: nn.Linear, frozen: FrozenLinear) -> nn.Module:
    """A plain linear with the effective weight; where tokens share none, the reference executor."""
    if not frozen.has_weight:
        return Reference().build([frozen], [original.bias])
    plain = nn.Linear(original.in_features, original.out_features, bias=False, device="meta")
    plain.weight = nn.Parameter(frozen.effective_weight(), requires_grad=False)
    plain.bias = original.bias
    return plain
