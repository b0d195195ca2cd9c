"""A runnable quantized model: the original with the linears of finished blocks replaced by executors."""

import copy
import dataclasses
from collections.abc import Mapping
from typing import cast

from torch import Tensor, nn

from salq.kernels.dual import DualLinear
from salq.kernels.linear import QuantLinear
from salq.models.llama import LINEARS, Llama
from salq.quant.dual_binary import FrozenDual
from salq.quant.frozen import FrozenLinear, rtn
from salq.quant.spec import QuantSpec, check_group_size


def quantized_copy(model: Llama, frozen: Mapping[int, Mapping[str, FrozenLinear]]) -> Llama:
    """`model` with the blocks in `frozen` running from codes; embeddings, norms, head and all other blocks are shared with the original."""
    memo: dict[int, object] = {id(tensor): tensor for tensor in [*model.model.parameters(), *model.model.buffers()]}
    network = copy.deepcopy(model.model, memo)
    for index, linears in frozen.items():
        block = network.model.layers[index]
        for name, linear in linears.items():
            original = block.get_submodule(name)
            assert isinstance(original, nn.Linear)
            block.set_submodule(name, executor(linear.to(original.weight.device), original.bias))
    return dataclasses.replace(model, model=network)


def quantize_in_place(model: Llama, frozen: Mapping[int, Mapping[str, FrozenLinear]]) -> Llama:
    """Like `quantized_copy`, but the original weights are given up: for a process that runs the quantized model alone."""
    for index, linears in frozen.items():
        block = model.blocks[index]
        for name, linear in linears.items():
            original = block.get_submodule(name)
            assert isinstance(original, nn.Linear)
            block.set_submodule(name, executor(linear.to(original.weight.device), original.bias))
    return model


def executor(frozen: FrozenLinear, bias: Tensor | None) -> nn.Module:
    """The module that runs a finished matrix, by its grid."""
    return DualLinear(frozen, bias) if isinstance(frozen, FrozenDual) else QuantLinear(frozen, bias)


def rtn_blocks(model: Llama, spec: QuantSpec) -> dict[int, dict[str, FrozenLinear]]:
    """Every block rounded to nearest; a few seconds for the default model. Raises ShapeError when the group size does not fit."""
    weights = {
        index: {name: cast(Tensor, linear.weight).detach() for name, linear in model.linears(index).items()} for index in range(model.n_blocks)
    }
    check_group_size(
        spec, {f"{index}.{name}": (weight.shape[0], weight.shape[1]) for index, block in weights.items() for name, weight in block.items()}
    )
    return {index: {name: rtn(block[name], spec) for name in LINEARS} for index, block in weights.items()}
