"""Peak memory of a run, from shapes: phase by phase what is held at once, and the largest of the phases."""

from dataclasses import dataclass
from typing import Protocol

from salq.calibration.places import Placement
from salq.calibration.recipe import Recipe
from salq.core.device import GB, HEAD_BYTES
from salq.saliency.fisher import ACCUMULATOR_GB, BATCH_SIZE

PROCESS_BYTES = 0.55e9
"""Interpreter, torch, transformers and the tokenizer, before a model is read."""
ALLOCATED = 1.3
"""Memory that a process really takes per byte of activations, because freed ones lie between those that are held; measured on the default model."""
CODES = 1.2
"""Bytes per weight of a block that runs from its codes: one each, with scales, zero points and adapters."""


class Widths(Protocol):
    """The part of a LLaMA configuration that memory depends on."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int


@dataclass(frozen=True)
class Sizes:
    """Numbers of weights: of one block's matrices, of the model, of the output head; blocks that are calibrated and blocks that there are.

    hidden: width of the hidden state. saved: `saved_numbers`.
    """

    of_block: int
    of_model: int
    of_head: int
    blocks: int
    of_blocks: int
    hidden: int
    saved: int

    @classmethod
    def of(cls, config: Widths, of_block: int, of_model: int, blocks: int) -> "Sizes":
        """From a configuration, and the weights that it stands for."""
        head = config.vocab_size * config.hidden_size
        return cls(of_block, of_model, head, blocks, config.num_hidden_layers, config.hidden_size, saved_numbers(config))


def saved_numbers(config: Widths) -> int:
    """Numbers per token that a backward pass through one block keeps from the forward pass.

    Both norms' inputs and outputs (the outputs are what q, k, v and gate, up read), queries, keys, values and attention's output, and of the
    MLP gate, its activation, up and the product that down reads.
    """
    return 4 * config.hidden_size + 2 * query_width(config) + 2 * key_width(config) + 4 * config.intermediate_size


def query_width(config: Widths) -> int:
    """Numbers of a token's queries: the hidden size, unless the config has heads of another width."""
    return config.num_attention_heads * (getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def key_width(config: Widths) -> int:
    """Numbers of a token's keys, or values."""
    return query_width(config) // config.num_attention_heads * config.num_key_value_heads


def peak_memory_gb(sizes: Sizes, recipe: Recipe, place: Placement, *, itemsize: int) -> float:
    """The model, the phase that holds most beside it, and what the process has before it begins: 10**9 bytes, on the device that works.

    place: where the streams' activations are. itemsize: bytes per number of the model, and of what a saliency pass through it keeps.
    """
    during = (GB * place.needed_gb if place.where == "device" else 0.0) + 4.0 * sizes.of_block * min(recipe.refresh or 0, sizes.blocks)
    phases = (
        _calibration(sizes, recipe) + during,
        _refresh(sizes, recipe, itemsize) + during,
        _saliency(sizes, recipe, itemsize),
        _distillation(sizes, recipe),
        CODES * sizes.blocks * sizes.of_block + _head(sizes),  # evaluation
    )
    return (itemsize * sizes.of_model + max(phases) + PROCESS_BYTES) / GB


def _calibration(sizes: Sizes, recipe: Recipe) -> float:
    """One block with its gradients and temporaries, and what a step keeps of a batch."""
    if recipe.data is None:
        return 2.0 * 4 * sizes.of_block
    tokens = recipe.data.seq_len * max((stage.batch_size for stage in recipe.active_stages), default=1)
    copies = 1.0 if recipe.rounding is not None else 0.0
    if recipe.trains_weights:
        copies = 4.0  # a copy, its gradient and two moments
    return (copies + 6.0) * 4 * sizes.of_block + ALLOCATED * 4 * tokens * sizes.saved


def _saliency(sizes: Sizes, recipe: Recipe, itemsize: int) -> float:
    """Accumulators in float32, what a pass over one batch keeps through all blocks, and the head at work."""
    if recipe.saliency is None or not recipe.needs_saliency:
        return 0.0
    accumulators = min(4.0 * sizes.of_block * sizes.of_blocks, max(ACCUMULATOR_GB * GB, 4.0 * sizes.of_block))
    return accumulators + _saliency_pass(sizes, recipe, sizes.of_blocks, itemsize)


def _refresh(sizes: Sizes, recipe: Recipe, itemsize: int) -> float:
    """The same from the first refreshed block on, with the blocks before it as codes; the most is held the first time."""
    if recipe.refresh is None or recipe.refresh >= sizes.blocks:
        return 0.0
    return CODES * sizes.blocks * sizes.of_block + _saliency_pass(sizes, recipe, sizes.of_blocks - recipe.refresh, itemsize)


def _saliency_pass(sizes: Sizes, recipe: Recipe, blocks: int, itemsize: int) -> float:
    assert recipe.saliency is not None  # asked only of recipes that sample saliency
    tokens = min(BATCH_SIZE, recipe.saliency.n_samples) * recipe.saliency.seq_len
    return ALLOCATED * itemsize * tokens * blocks * sizes.saved + _head(sizes)


def _distillation(sizes: Sizes, recipe: Recipe) -> float:
    """Codes and what is learned of them, the teacher's hidden states, and what a step keeps through all blocks and the head."""
    config = recipe.distillation
    if config is None:
        return 0.0
    copies = 12 if config.lr_weight > 0 else 8  # levels and weights of a step; trained weights: also gradient and moments
    kept = 4 * config.n_samples * config.seq_len * sizes.hidden
    step = ALLOCATED * 4 * config.batch_size * config.seq_len * sizes.blocks * sizes.saved
    return copies * 2 * sizes.blocks * sizes.of_block + kept + step + _head(sizes)


def _head(sizes: Sizes) -> float:
    """The logits that exist at once, and about a copy of the head while it is multiplied with (measured on a CPU)."""
    return HEAD_BYTES + 4 * sizes.of_head
