"""A runnable quantized model: the original with the linears of finished blocks replaced by executors, and what it runs on in words."""

import copy
import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from salq.core.device import release_memory
from salq.core.errors import ConfigError
from salq.kernels import onnx_block
from salq.kernels.engine import refusal as engine_refusal
from salq.kernels.executors import AUTO, Built, Executors, choose, first_line
from salq.kernels.groups import GROUPS, GroupedLinear, LinearGroup
from salq.models.llama import LINEARS, Llama, read_config, read_weight
from salq.models.shapes import linear_shapes
from salq.models.skeleton import linear_weights, load_skeleton
from salq.models.source import ModelSource, resolve
from salq.quant.frozen import FrozenLinear, rtn
from salq.quant.spec import QuantSpec, check_group_size

HEAD_GROUPS = (64, 32, 16)
"""Group sizes for the head: the first that divides its inputs."""

Source = Callable[[], Mapping[str, FrozenLinear]]
"""Yields the matrices of one block when it is called."""


def quantized_copy(model: Llama, frozen: Mapping[int, Mapping[str, FrozenLinear]], executor: str = "reference") -> Llama:
    """`model` with the blocks in `frozen` running from codes; embeddings, norms, head and all other blocks are shared with the original.

    The reference unless another executor (or `auto`) is named: figures of quality are taken with the specification.
    Raises UnknownNameError and ConfigError for an executor that does not exist or cannot run this model.
    """
    return fill(_sharing(model), _sources(frozen), executor)


def load_quantized(name: str, blocks: Mapping[int, Source], device: str = "auto", executor: str = AUTO, *, whole: bool = False) -> Llama:
    """The model `name` with `blocks` running from codes; weights that the codes replace are never read.

    blocks: what yields the matrices of a block, by index. One block at a time is in memory as codes, so the peak stays near the result.
    whole: for the decode engine alone, which is faster when a block is one graph; transformers' own forward pass then does not work.
    Raises what `load_model`, the sources and the executors raise.
    """
    model = fill(load_skeleton(name, linear_weights(blocks), device), blocks, executor, whole=whole)
    release_memory()
    return model


def decodable_copy(model: Llama, frozen: Mapping[int, Mapping[str, FrozenLinear]], executor: str = AUTO) -> Llama:
    """`quantized_copy` for the decode engine alone: a block is one graph where onnxruntime runs all of it, and its linears cannot be called."""
    return fill(_sharing(model), _sources(frozen), executor, whole=True)


def fill(model: Llama, blocks: Mapping[int, Source], executor: str = AUTO, *, whole: bool = False) -> Llama:
    """Put executors in the place of the linears of `blocks`, which may have no memory yet; `whole` as in `load_quantized`."""
    executors = Executors(executor)
    whole = whole and engine_refusal(model) is None
    for index, source in blocks.items():
        frozen = {name: linear.to(model.device) for name, linear in source().items()}
        why = _install_whole(model.blocks[index], frozen, executors, model.dtype) if whole else ""
        if why is not None:
            install(model.blocks[index], frozen, executors, model.dtype)
            _add_reason(model.blocks[index], frozen, why)
    return model


def _install_whole(block: nn.Module, frozen: Mapping[str, FrozenLinear], executors: Executors, dtype: torch.dtype) -> str | None:
    """Make the block one graph of onnxruntime. Where that fails nothing is changed and the reason is returned ('': another executor runs)."""
    first = next(iter(frozen.values()))
    executor, reason = next(executors.candidates(first, first.codes.device, dtype))
    if executor.name != "onnxruntime":
        return ""
    if (why := onnx_block.refusal(block, frozen, dtype)) is not None:
        return why
    try:
        graph = onnx_block.OnnxBlock(block, frozen)
        graph.trial()
    except Exception as error:  # noqa: BLE001 - an operator that this build of onnxruntime lacks; the matrices then run one by one
        return f"a graph of the block failed: {first_line(error)}"
    block.whole = graph  # type: ignore[assignment]
    for name, linear in frozen.items():
        placeholder = onnx_block.InBlock(linear)
        placeholder.executor_reason = f"{reason}, each block as one graph"  # type: ignore[assignment]
        block.set_submodule(name, placeholder)
    return None


def _add_reason(block: nn.Module, names: Iterable[str], why: str) -> None:
    """Say why matrices run one by one."""
    for name in names if why else ():
        linear = block.get_submodule(name)
        linear.executor_reason = f"{linear.executor_reason}, matrix by matrix ({why})"  # type: ignore[assignment]


def install(block: nn.Module, frozen: Mapping[str, FrozenLinear], executors: Executors, dtype: torch.dtype) -> None:
    """Put executors in the place of the linears of one block. Linears with the same grid and input run as one where the executor gains from it."""
    for group in GROUPS:
        names = [name for name in group if name in frozen]
        for spec in dict.fromkeys(frozen[name].spec for name in names):
            same = [name for name in names if frozen[name].spec == spec]
            biases = [cast(Tensor | None, block.get_submodule(name).bias) for name in same]
            _place(block, same, [frozen[name] for name in same], executors.build([frozen[name] for name in same], biases, dtype))


def round_head(model: Llama) -> Llama:
    """A copy of `model` whose head runs from 8-bit codes, rounded to nearest; the embeddings it may be tied to stay as they are.

    In float32 the head of a small model is most of what a token reads. On the default model an 8-bit head alone is 0.0017 nats/token from the
    original (same first choice for 96.6 % of tokens), so it is asked for, never the default. Raises ConfigError where only the reference runs it.
    """
    weight = cast(Tensor, model.model.lm_head.weight).detach()
    group = next((size for size in HEAD_GROUPS if weight.shape[1] % size == 0), None)
    frozen = rtn(weight, QuantSpec(bits=8, group_size=group))
    if choose(frozen, model.device, model.dtype)[0].name == "reference":
        raise ConfigError(f"No executor runs an 8-bit head on {model.device} here; keep the head as it is (--head float).")
    copied = _sharing(model)
    copied.model.lm_head = Executors().build([frozen], [None], model.dtype)[0].module
    return copied


def execution(model: Llama) -> str:
    """What runs the model's linears and why, for people: one sentence, and one more for every executor that runs fewer of them."""
    reasons = Counter(
        str(linear.executor_reason) if hasattr(linear, "executor_reason") else f"torch {str(model.dtype).removeprefix('torch.')}"
        for index in range(model.n_blocks)
        for linear in model.linears(index).values()
    )
    total = sum(reasons.values())
    (first, _), *others = reasons.most_common()
    head = [] if isinstance(model.model.lm_head, nn.Linear) else ["the head in 8 bits"]
    return "; ".join([first, *(f"{count} of {total} matrices: {reason}" for reason, count in others), *head])


def rtn_sources(model: str, spec: QuantSpec, n_blocks: int) -> dict[int, Source]:
    """What rounds each block of the model `model` to nearest, reading one block's weights at a time."""
    source = resolve(model)
    check_group_size(spec, linear_shapes(read_config(source).to_dict()))
    return {index: partial(_rounded, source, index, spec) for index in range(n_blocks)}


def _rounded(source: ModelSource, index: int, spec: QuantSpec) -> dict[str, FrozenLinear]:
    return {name: rtn(read_weight(source, index, name), spec) for name in LINEARS}


def rtn_blocks(model: Llama, spec: QuantSpec) -> dict[int, dict[str, FrozenLinear]]:
    """Every block rounded to nearest; a few seconds for the default model. Raises ShapeError when the group size does not fit."""
    weights = {
        index: {name: cast(Tensor, linear.weight).detach() for name, linear in model.linears(index).items()} for index in range(model.n_blocks)
    }
    check_group_size(
        spec, {f"{index}.{name}": (weight.shape[0], weight.shape[1]) for index, block in weights.items() for name, weight in block.items()}
    )
    return {index: {name: rtn(block[name], spec) for name in LINEARS} for index, block in weights.items()}


def _sharing(model: Llama) -> Llama:
    """A copy of `model` whose modules can be replaced; every tensor is the model's own."""
    memo: dict[int, object] = {id(tensor): tensor for tensor in [*model.model.parameters(), *model.model.buffers()]}
    return dataclasses.replace(model, model=copy.deepcopy(model.model, memo))


def _sources(frozen: Mapping[int, Mapping[str, FrozenLinear]]) -> dict[int, Source]:
    return {index: partial(dict, linears) for index, linears in frozen.items()}


def _place(block: nn.Module, names: Sequence[str], linears: Sequence[FrozenLinear], built: Sequence[Built]) -> None:
    modules: list[nn.Module] = [one.module for one in built]
    if len(built) == 1 and len(names) > 1:
        group = LinearGroup(built[0].module, tuple(len(linear.codes) for linear in linears))
        modules = [GroupedLinear(group, index, linear.codes.shape[1], linear.spec, linear.rank) for index, linear in enumerate(linears)]
    for at, (name, module) in enumerate(zip(names, modules, strict=True)):
        module.executor_reason = built[min(at, len(built) - 1)].reason  # type: ignore[assignment]
        block.set_submodule(name, module)
