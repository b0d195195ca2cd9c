"""Calibration from Python, without a run store: a model, a recipe, and the calibrated model back."""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import cached_property

from salq.calibration.distillation import distill
from salq.calibration.engine import calibrate as calibration_events
from salq.calibration.engine import matrix_shapes
from salq.calibration.recipe import Recipe
from salq.calibration.salience import SaliencySource, SampledSaliency
from salq.calibration.store import Block, BlockStore, MemoryBlocks
from salq.core.drain import drain
from salq.core.events import Event
from salq.core.progress import Progress
from salq.data.sources import load_text
from salq.data.text import Text
from salq.data.windows import sample_windows
from salq.kernels.assemble import quantized_copy
from salq.models.llama import Llama
from salq.quant.size import SizeReport
from salq.saliency.maps import SaliencyMap, compute_saliency


@dataclass(frozen=True)
class Calibrated:
    """A finished calibration. `progress` has the loss curves and errors of every block; `blocks` the codes, by block and module_name."""

    original: Llama
    recipe: Recipe
    blocks: dict[int, Block]
    progress: Progress

    @cached_property
    def quantized(self) -> Llama:
        """A model that runs from the codes; everything that is not quantized is shared with the original."""
        return quantized_copy(self.original, self.blocks)

    @property
    def size(self) -> SizeReport:
        """Bits per weight and size in MB (10**6 bytes) in the packed format: quantized matrices alone, and the whole model."""
        shapes = {name: shape for name, shape in matrix_shapes(self.original).items() if int(name.split(".")[0]) in self.blocks}
        return self.recipe.size(shapes, self.original.parameters)


def _sampled(model: Llama, recipe: Recipe, saliency: SaliencyMap | None, words: Text | None, seed: int) -> SaliencySource | None:
    """The map, and where the recipe refreshes it also windows of the calibration text, as many and as long as those of the map."""
    if saliency is None or not recipe.needs_saliency:
        return None
    if recipe.refresh is None or words is None:
        return saliency
    return SampledSaliency(saliency, sample_windows(words, model.tokenizer, saliency.n_samples, saliency.seq_len, seed))


def calibrate(
    model: Llama,
    recipe: Recipe,
    *,
    text: str = "auto",
    saliency: SaliencyMap | None = None,
    blocks: BlockStore | None = None,
    n_blocks: int | None = None,
    seed: int = 0,
    on_event: Callable[[Event], None] | None = None,
) -> Calibrated:
    """Calibrate `model` with `recipe`, block by block; the model itself is left as it is.

    For block k with weights W (out x in), inputs x_fp of the original model and x_q of the model quantized so far:

        min over theta of  C(F(W; x_fp), F(Q(W; theta), A, B; x_q)) + strength * R(Q(W; theta))     ApiQ (arXiv 2402.05147) eq. 3,
        R = sum of G (Q(W; theta) - W)^2, G the saliency in nats^2 / weight^2                       SAPR (arXiv 2504.13932) section 3

    text: calibration text (auto, bundled, wikitext2, c4, self:N, chats:N or a UTF-8 file), cut into recipe.data.n_samples windows.
    saliency: computed, or found in the cache, when the recipe needs it and none is given.
    blocks: where finished blocks go and are found again (in memory by default); n_blocks: calibrate only the first ones.
    on_event: called with every event. Same model, text, recipe, seed and device: same codes.
    Raises ShapeError, TextError, ConfigError and ResourceError before any work, Diverged for a loss that is not finite.
    """
    tokens = None
    words = load_text(text, "calibration", model) if recipe.reads_text else None
    if recipe.data is not None and words is not None:
        tokens = sample_windows(words, model.tokenizer, recipe.data.n_samples, recipe.data.seq_len, seed)
        if recipe.needs_saliency and saliency is None and recipe.saliency is not None:
            saliency = drain(compute_saliency(model, words, recipe.saliency.n_samples, recipe.saliency.seq_len, seed))
    if saliency is not None:
        saliency.check_model(model)
    store = blocks or MemoryBlocks()
    progress = Progress()
    source = _sampled(model, recipe, saliency, words, seed)
    total = model.n_blocks if n_blocks is None else min(n_blocks, model.n_blocks)

    def work() -> Generator[Event, None, dict[int, Block]]:
        known = yield from calibration_events(model, tokens, recipe, store, source, n_blocks=n_blocks, seed=seed)
        finished = {index: store.load(index) for index in range(total)}
        if recipe.distillation is None or words is None:
            return finished
        samples = sample_windows(words, model.tokenizer, recipe.distillation.n_samples, recipe.distillation.seq_len, seed)
        return (yield from distill(model, finished, samples, recipe.distillation, known=known, seed=seed))

    def watch(event: Event) -> None:
        progress.add(event)
        if on_event is not None:
            on_event(event)

    return Calibrated(model, recipe, drain(work(), watch), progress)
