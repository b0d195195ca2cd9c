"""Where calibration has its saliency from: one map of the original, or the model's own as it is quantized, taken again every few blocks."""

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from salq.calibration.recipe import Recipe
from salq.calibration.store import BlockStore
from salq.core.errors import ConfigError
from salq.core.events import MetricReported
from salq.kernels.assemble import quantized_copy
from salq.models.llama import Llama
from salq.saliency.fisher import Fisher, block_chunks, fisher_diagonal

REFRESH = "saliency_refresh"
"""Name of the metric that tells how far a refresh is: {"block", "done", "of"}, samples of the pass."""


class SaliencySource(Protocol):
    """What calibration needs of a saliency map: F of one block in nats^2 / weight^2, and how it was sampled."""

    @property
    def n_samples(self) -> int:
        """Samples that the map is the mean over."""

    @property
    def seq_len(self) -> int:
        """Tokens per sample."""

    def block(self, index: int) -> Mapping[str, Float[Tensor, "out in"]]:
        """{module_name: F} of block `index`."""


@dataclass(frozen=True)
class SampledSaliency:
    """A map together with the windows that it was computed on: what saliency can be taken again with."""

    map: SaliencySource
    tokens: Int64[Tensor, "n seq"]

    @property
    def n_samples(self) -> int:
        """Samples that the map is the mean over."""
        return self.map.n_samples

    @property
    def seq_len(self) -> int:
        """Tokens per sample."""
        return self.map.seq_len

    def block(self, index: int) -> Mapping[str, Float[Tensor, "out in"]]:
        """{module_name: F} of block `index` of the original."""
        return self.map.block(index)


class RefreshedSaliency:
    """The saliency of blocks k .. k + every - 1 is that of the model whose blocks before k run from their codes, for k = 0, every, 2 every, ...

        F_ij = 1/N sum_s (d nll_s / d W_ij)^2 at (Q(W_0), ..., Q(W_k-1), W_k, ..., W_n)          the Fisher diagonal of `fisher_diagonal`

    SAPR (arXiv 2504.13932) takes F once, of the original; its blocks then weigh errors by the gradients of a model that no longer runs before
    them. The model of k = 0 is the original, whose map is taken as it is. Everything follows from the stored blocks, so a resumed run takes the
    same saliency again. Held on the CPU: 4 bytes per weight of `every` blocks; while it is computed also one byte per weight of the blocks before.
    """

    def __init__(self, original: SampledSaliency, model: Llama, blocks: BlockStore, every: int, total: int) -> None:
        """blocks: where finished blocks are found; total: how many blocks are calibrated."""
        self.n_samples, self.seq_len = original.n_samples, original.seq_len
        self._original, self._model, self._blocks = original, model, blocks
        self._every, self._total = every, total
        self._found: dict[int, dict[str, Tensor]] = {}

    def refresh(self, index: int) -> Iterator[MetricReported]:
        """Make ready what `block(index)` gives: nothing to do unless blocks were quantized since the last time. Reports every batch of samples."""
        first = index - index % self._every
        if first == 0 or index in self._found:
            return
        self._found = {}
        partly = quantized_copy(self._model, {before: self._blocks.load(before) for before in range(first)})
        chunks = block_chunks(partly, blocks=range(first, min(first + self._every, self._total)))
        of = len(chunks) * self.n_samples
        for number, chunk in enumerate(chunks):
            done = number * self.n_samples
            self._found |= yield from _reported(fisher_diagonal(partly, self._original.tokens, blocks=chunk), first, done, of)

    def block(self, index: int) -> Mapping[str, Float[Tensor, "out in"]]:
        """{module_name: F} of block `index`, which was made ready."""
        return self._original.block(index) if index < self._every else self._found[index]


def _reported(
    pass_over: Generator[int, None, Fisher], block: int, done: int, of: int
) -> Generator[MetricReported, None, dict[int, dict[str, Tensor]]]:
    """One pass over the samples as metrics; returns its saliency on the CPU."""
    while True:
        try:
            samples = next(pass_over)
        except StopIteration as finished:
            fisher: Fisher = finished.value
            return {index: {name: value.cpu() for name, value in matrices.items()} for index, matrices in fisher.items()}
        yield MetricReported(REFRESH, {"block": block, "done": done + samples, "of": of})


def source_of(recipe: Recipe, saliency: SaliencySource | None, model: Llama, blocks: BlockStore, total: int) -> SaliencySource | None:
    """The source that the recipe asks for, None when it weighs nothing by saliency.

    Raises ConfigError when it refreshes its saliency and the samples to do that on are missing or not those of the map.
    """
    if saliency is None or not recipe.needs_saliency:
        return None
    if recipe.refresh is None:
        return saliency
    if not isinstance(saliency, SampledSaliency):
        raise ConfigError(f"Recipe {recipe.name!r} refreshes its saliency; give the map with the tokens that it was computed on (SampledSaliency).")
    if (saliency.n_samples, saliency.seq_len) != tuple(saliency.tokens.shape):
        raise ConfigError(
            f"The saliency map is of {saliency.n_samples} samples of {saliency.seq_len} tokens and its refresh would be of "
            f"{len(saliency.tokens)} of {saliency.tokens.shape[1]}; use the same samples, or leave saliency.refresh out."
        )
    return RefreshedSaliency(saliency, model, blocks, recipe.refresh, total)


def published_saliency(source: SaliencySource | None, index: int, device: torch.device) -> dict[str, Tensor] | None:
    """The published G = (N / T^2) F: a sum over N samples of the squared gradient of the mean over T predicted tokens."""
    if source is None:
        return None
    factor = source.n_samples / (source.seq_len - 1) ** 2
    published = {name: value.to(device, torch.float32) * factor for name, value in source.block(index).items()}
    for name, value in published.items():
        if not bool(torch.isfinite(value).all()):
            raise ConfigError(f"The saliency of {index}.{name} has values that are not finite; compute the map again on a model in float32.")
    return published
