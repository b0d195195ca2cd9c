"""What the first block receives in a real forward pass, running one block on it, and how far its output is from another one.

The forward pass is stopped by a pre-hook and a private exception, and every keyword that the model passes on is kept (rotary
position embeddings, masks, whatever a later transformers adds), so that blocks can be run one by one exactly as the model runs them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from salq.models.llama import Llama

TINY = 1e-12
"""Guards a division by the length of an all-zero hidden state; far below any real one."""


@dataclass(frozen=True)
class BlockInputs:
    """Inputs of block 0. `hidden[N, T, H]`: embeddings, in the model's dtype and on its device.

    `kwargs`: the keywords that every block receives; tensors have batch size 1 and broadcast over any batch of the same length T.
    """

    hidden: Tensor
    kwargs: dict[str, Any]


class _FirstBlockReached(Exception):  # noqa: N818 - a signal, not an error
    """Ends the forward pass once the inputs are known."""


def capture_block_inputs(model: Llama, tokens: Tensor, batch_size: int = 4) -> BlockInputs:
    """Hidden states and keywords with which the model calls its first block for `tokens[N, T]` (int64, no padding)."""
    caught: list[Tensor] = []
    kwargs: dict[str, Any] = {}

    def catch(_: nn.Module, args: tuple[Tensor, ...], keywords: dict[str, Any]) -> None:
        keywords = dict(keywords)
        caught.append(args[0] if args else keywords.pop("hidden_states"))
        kwargs.update(keywords)
        raise _FirstBlockReached

    handle = model.blocks[0].register_forward_pre_hook(catch, with_kwargs=True)
    try:
        for batch in tokens.split(batch_size):
            _forward_until_caught(model, batch)
    finally:
        handle.remove()
    rows = caught[-1].shape[0]
    return BlockInputs(torch.cat(caught), {name: _first_row(value, rows) for name, value in kwargs.items()})


def run_block(block: nn.Module, hidden: Tensor, kwargs: Mapping[str, object]) -> Tensor:
    """Output `[B, T, H]` of one block for `hidden[B, T, H]`, with the keywords of `capture_block_inputs`; gradients flow if enabled."""
    return block(hidden, **kwargs)


def relative_error(changed: Float[Tensor, "samples seq hidden"], original: Float[Tensor, "samples seq hidden"]) -> float:
    """Mean over tokens of |h_hat - h| / |h|, summed in float64; inf or NaN when a hidden state is not finite.

    A mean of ratios, not a ratio of norms: a few tokens of LLaMAs have hidden states a thousand times longer, and none may decide it alone.
    """
    error = torch.linalg.vector_norm(changed - original, dim=-1).double()
    return float((error / torch.linalg.vector_norm(original, dim=-1).double().clamp(min=TINY)).mean())


@torch.no_grad()
def _forward_until_caught(model: Llama, batch: Tensor) -> None:
    try:
        model.model.model(input_ids=batch.to(model.device), use_cache=False)
    except _FirstBlockReached:
        return
    raise AssertionError("the model ran without calling its first block")


def _first_row(value: Any, rows: int) -> Any:
    """`value` for batch size 1. Without padding all rows of a tensor are equal, so the first stands for all."""
    if isinstance(value, Tensor):
        return value[:1] if value.dim() > 1 and value.shape[0] == rows else value
    if isinstance(value, tuple | list):
        return type(value)(_first_row(item, rows) for item in value)
    return value
