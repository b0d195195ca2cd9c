"""Saliency of every weight: the diagonal of the empirical Fisher matrix.

For saliency-regularized calibration (SAPR, arXiv 2504.13932) and for the maps of Explore; the quantity is that of SqueezeLLM
(arXiv 2306.07629, section 4.1). One backward pass serves a whole batch: a hook on each linear has its input x_s and the gradient d_s of
its output, and the gradient of sample s alone is d_s^T x_s. Autograd never makes a weight gradient, so nothing is summed over samples
before it is squared.
"""

from collections.abc import Callable, Generator, Iterable
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from salq.core.device import HEAD_BYTES, available_memory_gb, out_of_memory_as_error
from salq.models.llama import Llama

Fisher = dict[int, dict[str, Float[Tensor, "out in"]]]
"""Saliency by block and module_name."""

ACCUMULATOR_GB = 4.0
"""Largest set of float32 accumulators held at once; a model with more than 1e9 quantizable weights is passed over several times."""
BATCH_SIZE = 4
"""Samples of one backward pass. More of them gain little speed, and all blocks' activations are held for each."""


def fisher_diagonal(
    model: Llama, tokens: Int[Tensor, "samples seq"], *, batch_size: int = BATCH_SIZE, blocks: range | None = None
) -> Generator[int, None, Fisher]:
    """Mean over samples of the squared gradient of the sample's summed next-token nll, in nats^2 per weight^2.

    F_ij = 1/N sum_s (d nll_s / d W_ij)^2,  nll_s = - sum_t log p(token_t+1 | token_1..t)      SqueezeLLM sec. 4.1

    Squared per sample and accumulated in float32: the result does not depend on batch_size, nor on how `blocks` are split over calls.
    Yields the number of samples done after every batch and returns {block: {module_name: F [out, in]}} on the model's device.
    Memory: 4 bytes per weight of `blocks`, plus the activations of one batch from the first of them on.
    """
    chosen = blocks if blocks is not None else range(model.n_blocks)
    totals: Fisher = {
        block: {name: torch.zeros(weight.shape, device=weight.device) for name, weight in weights_of(model, block).items()} for block in chosen
    }
    for start in range(0, len(tokens), batch_size):
        batch = tokens[start : start + batch_size].to(model.device)
        _add_batch(model, batch, totals)
        yield start + len(batch)
    for of_block in totals.values():
        for total in of_block.values():
            total.div_(len(tokens))
    return totals


def block_chunks(model: Llama, budget_gb: float | None = None, *, blocks: range | None = None) -> list[range]:
    """Consecutive blocks, of `blocks` or of all, whose accumulators fit the budget together, at least one block each.

    budget_gb None: ACCUMULATOR_GB, or half of the memory that is free on the model's device when that is less. Each chunk costs one
    pass over the samples; the passes do not change the result.
    """
    if budget_gb is None:
        budget_gb = min(ACCUMULATOR_GB, available_memory_gb(model.device) / 2)
    wanted = blocks if blocks is not None else range(model.n_blocks)
    chunks: list[range] = []
    start, held = wanted.start, 0.0
    for block in wanted:
        size = accumulator_gb(model, block)
        if held and held + size > budget_gb:
            chunks.append(range(start, block))
            start, held = block, 0.0
        held += size
    return [*chunks, range(start, wanted.stop)]


def accumulator_gb(model: Llama, block: int) -> float:
    """Size of one block's saliency in float32, in memory and on disk."""
    return 4e-9 * sum(weight.numel() for weight in weights_of(model, block).values())


def weights_of(model: Llama, block: int) -> dict[str, Float[Tensor, "out in"]]:
    """The weight of every linear of a block that is not quantized."""
    return {name: cast(Tensor, linear.weight) for name, linear in model.linears(block).items()}


def _add_batch(model: Llama, batch: Int[Tensor, "batch seq"], totals: Fisher) -> None:
    """One forward and one backward pass; adds every sample's squared gradients to `totals`."""
    handles = list(_install_hooks(model, totals))
    try:
        with torch.enable_grad(), out_of_memory_as_error("The saliency pass"):
            hidden = model.model.model(input_ids=batch, use_cache=False).last_hidden_state
            hidden.backward(_head_gradient(model, hidden.detach(), batch))
    finally:
        for handle in handles:
            handle.remove()


def _install_hooks(model: Llama, totals: Fisher) -> Iterable[RemovableHandle]:
    """The graph begins at the input of the first wanted block: the blocks before it cost a forward pass only."""
    yield model.blocks[min(totals)].register_forward_pre_hook(_begin_graph)
    for block, of_block in totals.items():
        for name, linear in model.linears(block).items():
            yield linear.register_forward_hook(_observer(of_block[name]))


def _begin_graph(_block: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (args[0].detach().requires_grad_(), *args[1:])


def _observer(total: Float[Tensor, "out in"]) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
    """A forward hook that waits for the gradient of the linear's output."""

    def hook(_linear: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        inputs = args[0].detach()
        output.register_hook(lambda gradient: add_squared_gradients(total, inputs, gradient))

    return hook


def add_squared_gradients(total: Float[Tensor, "out in"], inputs: Float[Tensor, "batch seq in"], gradient: Float[Tensor, "batch seq out"]) -> None:
    """Add sum_s (d_s^T x_s)^2 to `total` in place, in float32, one sample at a time so that one [out, in] temporary is enough."""
    for x, d in zip(inputs.float(), gradient.float(), strict=True):
        of_sample = d.T @ x
        total.addcmul_(of_sample, of_sample)


def _head_gradient(model: Llama, hidden: Float[Tensor, "batch seq hidden"], batch: Int[Tensor, "batch seq"]) -> Float[Tensor, "batch seq hidden"]:
    """Gradient of the samples' summed nll with respect to the final hidden states; cross entropy in float32.

    Logits and their gradient (three [tokens, vocab] arrays at once) exist for HEAD_BYTES worth of tokens at a time.
    """
    flat, targets = hidden[:, :-1].flatten(0, 1), batch[:, 1:].flatten()
    step = max(1, int(HEAD_BYTES // (3 * 4 * model.config.vocab_size)))
    parts = []
    for start in range(0, len(flat), step):
        part = flat[start : start + step].detach().requires_grad_()
        logits = model.model.lm_head(part).float()
        nll = nn.functional.cross_entropy(logits, targets[start : start + step], reduction="sum")
        parts.append(torch.autograd.grad(nll, part)[0])
    gradient = torch.zeros_like(hidden)  # the last token of a sample predicts nothing
    gradient[:, :-1] = torch.cat(parts).view_as(hidden[:, :-1])
    return gradient
