"""The block loop: every block is taught to do, in codes, what the original block does.

For block k with weights W, inputs x_fp of the original model and x_q of the model quantized so far:
    theta* = argmin  C(F(W; x_fp), F(Q(W; theta), A, B; x_q)) + strength * R(Q(W; theta))       ApiQ eq. 3, SAPR section 3
Codes are decided once, when the block freezes; the next block sees exactly what was stored.
"""

import copy
import hashlib
import time
from collections.abc import Generator, Mapping
from dataclasses import asdict
from functools import partial
from typing import cast

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from salq.calibration.compiled import check_compiler
from salq.calibration.fit import FitData
from salq.calibration.frozen_block import dequantized_block
from salq.calibration.objectives import AllTargets, channel_weights
from salq.calibration.places import FinalStates, Placement, Samples, StreamMemory, batches, placement
from salq.calibration.recipe import Recipe
from salq.calibration.salience import RefreshedSaliency, SaliencySource, published_saliency, source_of
from salq.calibration.stages import fit_block
from salq.calibration.starts import start
from salq.calibration.store import Block, BlockStore
from salq.calibration.streams import Streams, streams_gb
from salq.calibration.student import Student
from salq.core.errors import ConfigError, ShapeError
from salq.core.events import BlockDone, BlockStarted, Event, MetricReported, PhaseDone, PhaseStarted
from salq.models.capture import relative_error
from salq.models.llama import LINEARS, Llama
from salq.quant.mixed import check_group_sizes, check_rules


def calibrate(
    model: Llama,
    tokens: Int64[Tensor, "n seq"] | None,
    recipe: Recipe,
    blocks: BlockStore,
    saliency: SaliencySource | None = None,
    *,
    n_blocks: int | None = None,
    seed: int = 0,
    device: torch.device | None = None,
) -> Generator[Event, None, FinalStates | None]:
    """Calibrate the first `n_blocks` blocks (all by default) into `blocks`; finished blocks found there are loaded, not recomputed.

    Returns where the original ends with `tokens`, for the end-to-end pass; None when blocks or tokens are missing.

    tokens: calibration windows; None is allowed for recipes without stages (RTN), which then report no output error.
    saliency: needed when `recipe.needs_saliency`, as a SampledSaliency when `recipe.refresh`.
    device: where blocks are worked on, in float32; the model itself may stay elsewhere.
    Same model, tokens, recipe, seed and device: same codes, resumed or not.
    Raises, before any work, ShapeError when the group size or the rank does not fit and ConfigError when what compiles is not installed; later
    Diverged for a loss that is not finite, ModelError for inputs of a linear that are not.
    """
    device = device or model.device
    total = model.n_blocks if n_blocks is None else min(n_blocks, model.n_blocks)
    _check_shapes(recipe, matrix_shapes(model))
    _check_inputs(model, tokens, recipe, saliency, total)
    if recipe.compile is not None:
        check_compiler(device)
    source = source_of(recipe, saliency, model, blocks, total)
    blocks.claim(origin_of(model, tokens, recipe, seed))
    started = time.monotonic()
    yield PhaseStarted("calibration", of=total)
    streams = None
    if tokens is not None:
        place = _place(model, tokens, recipe, device)
        yield MetricReported("streams", asdict(place))
        streams = Streams(model, tokens, device, StreamMemory(place.where, device))
    for index in range(total):
        block_started, stored = time.monotonic(), blocks.has(index)
        if isinstance(source, RefreshedSaliency) and not stored:
            yield from source.refresh(index)
        teacher = copy.deepcopy(model.blocks[index]).to(device, torch.float32) if _must_move(model, device) else model.blocks[index]
        yield BlockStarted(index, of=total, stored=stored)
        targets = None if streams is None else streams.targets(teacher, augmented=recipe.is_augmented and not stored)
        details: dict[str, float] = {}
        if not stored:
            published = published_saliency(source, index, device)
            generator = _generator(seed, index, 0)
            specs = {name: recipe.spec_of(index, name) for name in LINEARS}
            student = Student(teacher, LINEARS, specs, recipe.quantizer, recipe.adapter, generator, learn_weight=recipe.trains_weights)
            start(student, recipe, published, streams, generator)
            if streams is not None and targets is not None and recipe.active_stages:
                if published is not None:
                    targets.channels = channel_weights(published["mlp.down_proj"])
                data = FitData(streams.quantized, streams.kwargs, targets, published, index)
                details = yield from fit_block(recipe, student, teacher, streams, data, partial(_generator, seed, index))
            blocks.save(index, student.freeze())
        frozen = blocks.load(index)
        output_error = None if streams is None or targets is None else _advance(streams, targets, teacher, frozen)
        yield BlockDone(index, output_error, weight_errors(teacher, frozen), time.monotonic() - block_started, details)
    yield PhaseDone("calibration", time.monotonic() - started)
    return FinalStates(tokens, streams.full) if tokens is not None and streams is not None and total == model.n_blocks else None


def matrix_shapes(model: Llama) -> dict[str, tuple[int, int]]:
    """{'block.module_name': (out, in)} of every matrix that is quantized."""
    shapes = {f"{block}.{name}": _weight(linear).shape for block in range(model.n_blocks) for name, linear in model.linears(block).items()}
    return {name: (shape[0], shape[1]) for name, shape in shapes.items()}


@torch.no_grad()
def weight_errors(block: nn.Module, frozen: Block) -> dict[str, float]:
    """Relative weight error ||W_eff - W|| / ||W|| of every matrix that has a weight, adapters included."""
    errors = {}
    for name, linear in frozen.items():
        if not linear.has_weight:
            continue
        weight = _weight(block.get_submodule(name)).float()
        difference = linear.to(weight.device).effective_weight() - weight
        errors[name] = float(difference.norm() / weight.norm().clamp(min=1e-30))
    return errors


def origin_of(model: Llama, tokens: Int64[Tensor, "n seq"] | None, recipe: Recipe, seed: int) -> dict[str, str]:
    """What decides the codes of a block, by name: blocks of another origin are not gone on with.

    Absent features (None) do not count, and neither does where activations live.
    """
    text = "" if tokens is None else hashlib.sha256(tokens.cpu().numpy().tobytes()).hexdigest()
    return {
        "model": model.source.fingerprint,
        "recipe": hashlib.sha256(recipe.model_dump_json(exclude_none=True, exclude={"data": {"streams_gb"}}).encode()).hexdigest(),
        "calibration text": text,
        "seed": str(seed),
    }


def _check_shapes(recipe: Recipe, shapes: Mapping[str, tuple[int, int]]) -> None:
    """Refuse grids and ranks that do not fit a matrix, and rules for matrices that do not exist."""
    check_rules(recipe.mixed, shapes)
    check_group_sizes(recipe.specs(shapes), shapes)
    for name, shape in shapes.items():
        if recipe.rank > min(shape):
            raise ShapeError(f"{name}: adapter rank {recipe.rank} is larger than this {shape[0]} x {shape[1]} matrix; use at most {min(shape)}.")


def _check_inputs(model: Llama, tokens: Tensor | None, recipe: Recipe, saliency: SaliencySource | None, total: int) -> None:
    """Refuse, before any work, what would fail in the first block."""
    if recipe.needs_data and tokens is None:
        raise ConfigError(f"Recipe {recipe.name!r} learns from text; give it calibration tokens.")
    if not recipe.needs_saliency:
        return
    if saliency is None:
        raise ConfigError(f"Recipe {recipe.name!r} is weighted by saliency; compute a saliency map of this model first.")
    for index in sorted({0, total - 1}):  # a map of fewer blocks, or of other shapes, shows at its ends
        found = _saliency_of(saliency, index)
        for name, linear in model.linears(index).items():
            shape = _weight(linear).shape
            if name not in found or found[name].shape != shape:
                got = tuple(found[name].shape) if name in found else "nothing"
                raise ShapeError(f"The saliency map holds {got} for {index}.{name} of shape {tuple(shape)}; it was computed on another model.")


def _saliency_of(saliency: SaliencySource, index: int) -> Mapping[str, Tensor]:
    """One block of the map; nothing when the map has no such block."""
    try:
        return saliency.block(index)
    except (ConfigError, IndexError, KeyError):
        return {}


def _place(model: Llama, tokens: Tensor, recipe: Recipe, device: torch.device) -> Placement:
    needed = streams_gb(recipe, tokens.numel(), model.config.hidden_size, model.config.intermediate_size)
    return placement(needed, device, recipe.streams_budget_gb)


def _advance(streams: Streams, targets: AllTargets, teacher: nn.Module, frozen: Block) -> float:
    """Move both streams through the block; returns the relative error of its output on the calibration text."""
    streams.advance(dequantized_block(teacher, frozen))
    return _mean_error(streams.quantized, targets.on_full)


def _mean_error(output: Samples, target: Samples) -> float:
    """`relative_error` of all samples, a few at a time: they may live elsewhere."""
    parts = [len(target[rows]) * relative_error(output[rows], target[rows]) for rows in batches(output.shape)]
    return sum(parts) / len(target)


def _generator(seed: int, block: int, stage: int) -> torch.Generator:
    """Randomness of one stage of one block depends on nothing that ran before it: resume repeats it exactly."""
    return torch.Generator().manual_seed((seed * 1009 + block) * 31 + stage)


def _weight(linear: nn.Module) -> Tensor:
    """The weight of a linear, for the type checker: a module's attributes may be anything."""
    return cast(Tensor, linear.weight).detach()


def _must_move(model: Llama, device: torch.device) -> bool:
    return model.device != device or model.dtype != torch.float32
