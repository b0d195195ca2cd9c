"""Peak memory of a run, from shapes: phase by phase what is held at once, and the largest of the phases."""

from dataclasses import dataclass
from typing import Protocol

from salq.calibration.places import GB, Placement
from salq.calibration.recipe import Recipe
from salq.saliency.fisher import ACCUMULATOR_GB, BATCH_SIZE

PROGRAM_GB = 0.5
"""Python, torch and everything small."""
CODES = 1.2
"""Bytes per weight of a block that runs from its codes: one each, with scales, zero points and adapters."""


class Widths(Protocol):
    """The part of a LLaMA configuration that memory depends on."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    vocab_size: int


@dataclass(frozen=True)
class Sizes:
    """Numbers of weights: of one block's matrices and of the model; the blocks that are calibrated; activations that a token leaves in a block."""

    of_block: int
    of_model: int
    blocks: int
    of_blocks: int
    hidden: int
    vocabulary: int
    per_token: int

    @classmethod
    def of(cls, config: Widths, of_block: int, of_model: int, blocks: int) -> "Sizes":
        """From a configuration, and the weights that it stands for."""
        kept = 12 * config.hidden_size + 8 * config.intermediate_size  # for the gradients of attention and MLP; measured on the default model
        return cls(of_block, of_model, blocks, config.num_hidden_layers, config.hidden_size, config.vocab_size, kept)


def peak_memory_gb(sizes: Sizes, recipe: Recipe, place: Placement, *, itemsize: int) -> float:
    """The largest phase in 10**9 bytes, on the device that works. `place`: where the streams' activations are.

    itemsize: bytes per number in the saliency passes, which compute in the model's own dtype; everything else is float32.
    """
    streams = GB * place.needed_gb if place.where == "device" else 0.0
    refreshed = 4.0 * sizes.of_block * min(recipe.refresh or 0, sizes.blocks)
    phases = (
        _calibration(sizes, recipe) + streams + refreshed,
        _refresh(sizes, recipe, itemsize) + streams + refreshed,
        _saliency(sizes, recipe, itemsize),
        _distillation(sizes, recipe),
        4 * sizes.of_model + CODES * sizes.blocks * sizes.of_block + 5 * 4 * 512 * sizes.vocabulary,  # evaluation: logits of a window
    )
    return max(phases) / GB + PROGRAM_GB


def _calibration(sizes: Sizes, recipe: Recipe) -> float:
    """The model, and one block with its gradients and temporaries on a batch."""
    tokens = 0 if recipe.data is None else recipe.data.seq_len * max((stage.batch_size for stage in recipe.active_stages), default=1)
    return 4 * sizes.of_model + 6 * 4 * sizes.of_block + 4 * tokens * sizes.per_token


def _saliency(sizes: Sizes, recipe: Recipe, itemsize: int) -> float:
    """The model, what a batch leaves in all blocks for the backward pass, and the accumulators."""
    if recipe.saliency is None or not recipe.needs_saliency:
        return 0.0
    kept = BATCH_SIZE * recipe.saliency.seq_len * sizes.of_blocks * sizes.per_token
    return itemsize * (sizes.of_model + kept) + min(4.0 * sizes.of_block * sizes.of_blocks, ACCUMULATOR_GB * GB)


def _refresh(sizes: Sizes, recipe: Recipe, itemsize: int) -> float:
    """The same from the first refreshed block on, with the blocks before it as codes; the most is held the first time."""
    if recipe.saliency is None or recipe.refresh is None or recipe.refresh >= sizes.blocks:
        return 0.0
    kept = BATCH_SIZE * recipe.saliency.seq_len * (sizes.of_blocks - recipe.refresh) * sizes.per_token
    return itemsize * (sizes.of_model + kept) + CODES * sizes.blocks * sizes.of_block


def _distillation(sizes: Sizes, recipe: Recipe) -> float:
    """Both models, the learner's copies, what a batch leaves in all blocks, and the teacher's hidden states."""
    config = recipe.distillation
    if config is None:
        return 0.0
    copies = 12 if config.lr_weight > 0 else 8  # levels and weights of a step; trained weights: also gradient and moments
    kept = config.batch_size * config.seq_len * sizes.blocks * sizes.per_token + config.n_samples * config.seq_len * sizes.hidden
    return 4 * sizes.of_model + copies * 2 * sizes.blocks * sizes.of_block + 4 * kept
