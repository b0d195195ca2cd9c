"""What one linear of a block receives: the block is run as far as that linear, and no further."""

from collections.abc import Iterator, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from salq.calibration.places import Samples, StreamMemory, batches
from salq.core.errors import ModelError
from salq.models.capture import run_block


class _Reached(Exception):  # noqa: N818 - a signal, not an error
    """Ends a block's forward pass once the linear's input is known."""


def received(
    block: nn.Module, module_name: str, hidden: Samples, kwargs: Mapping[str, object]
) -> Iterator[tuple[slice, Float[Tensor, "batch seq in"]]]:
    """(samples, what the linear receives for them) when `block` receives `hidden` [n, seq, hidden], a few samples at a time."""
    caught: list[Tensor] = []

    def catch(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        caught.append(args[0])
        raise _Reached

    handle = block.get_submodule(module_name).register_forward_pre_hook(catch)
    try:
        for rows in batches(hidden.shape):
            _run_until_reached(block, hidden[rows], kwargs)
            yield rows, caught.pop()
    finally:
        handle.remove()


def inputs_of(block: nn.Module, module_name: str, hidden: Samples, kwargs: Mapping[str, object], memory: StreamMemory) -> Samples:
    """All of it: float32 [n, seq, in], in `memory`."""
    found: Samples | None = None
    for rows, x in received(block, module_name, hidden, kwargs):
        if found is None:
            found = memory.empty(*hidden.shape[:2], x.shape[-1])
        found[rows] = x
    assert found is not None  # there are samples
    return found


def input_moment(block: nn.Module, module_name: str, hidden: Samples, kwargs: Mapping[str, object]) -> Float[Tensor, "in in"]:
    """M = E[x x^T] over all tokens, float32: what a change D of the linear's weight costs at its output is E ||D x||^2 = trace(D M D^T).

    Raises ModelError when it is not finite.
    """
    total: Tensor | None = None
    for _, x in received(block, module_name, hidden, kwargs):
        x = x.flatten(0, -2).float()
        total = x.T @ x if total is None else total.addmm_(x.T, x)
    assert total is not None
    if not bool(torch.isfinite(total).all()):
        raise ModelError(
            f"What {module_name} receives is not finite: weights of the model are broken, or quantization broke the blocks before; "
            "check the model, or use more bits."
        )
    return total.div_(hidden.shape[0] * hidden.shape[1])


@torch.no_grad()
def _run_until_reached(block: nn.Module, hidden: Tensor, kwargs: Mapping[str, object]) -> None:
    try:
        run_block(block, hidden, kwargs)
    except _Reached:
        return
    raise AssertionError("the block ran without calling this linear")
