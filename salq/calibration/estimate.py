"""What a calibration will take, before it starts: time from its arithmetic and this machine's measured speed, memory and disk from its shapes."""

import time
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from salq.calibration.memory import Sizes, Widths, key_width, peak_memory_gb, query_width
from salq.calibration.places import Placement, placement
from salq.calibration.recipe import Recipe
from salq.calibration.streams import streams_gb
from salq.core.device import GB
from salq.saliency.fisher import BATCH_SIZE

FORWARD, BACKWARD = 2, 4
"""Floating-point operations per weight and token of a linear layer: one multiply-add forward, two backward."""
WEIGHT_PASSES = 30
"""Memory-bound sweeps over a block's weights per optimizer step (fake quantization, its gradient, the optimizer), in float32 reads or writes."""
TRAINED_PASSES = 14
"""The same for weights that are trained: their gradient, its moments and the step."""
DEQUANTIZE_PASSES = 4
"""Sweeps over a block's weights in float32 when it runs from its codes: twice read, twice written."""
SEARCH_PASSES = 140
"""The same for the search for a start of the clipping: 23 ranges are tried."""
OVERHEAD = 1.25
"""Attention, norms, activations and Python, relative to the linear layers' time; measured on the default model."""

SECONDS_A_SPEED_HOLDS = 60.0
MEASURE_SECONDS = 0.25
"""Long enough for the best of many short measurements, so that another program's burst does not pass for this machine's speed."""


class Config(Widths, Protocol):
    """The part of a LLaMA configuration that the estimate reads."""

    tie_word_embeddings: bool


@dataclass(frozen=True)
class Estimate:
    """Expected time in seconds, peak memory and disk in GB. `basis` says in one sentence what the figures rest on."""

    seconds: float
    saliency_seconds: float
    evaluation_seconds: float
    memory_gb: float
    disk_gb: float
    basis: str
    distillation_seconds: float = 0.0

    @property
    def total_seconds(self) -> float:
        """Everything from start to the final numbers."""
        return self.seconds + self.distillation_seconds + self.saliency_seconds + self.evaluation_seconds


def estimate(
    config: Config, recipe: Recipe, *, n_blocks: int | None = None, device: torch.device | None = None, evaluation_tokens: int = 8 * 512
) -> Estimate:
    """Estimate a calibration of the first `n_blocks` blocks, its saliency map and its final evaluation of both models."""
    device = device or torch.device("cpu")
    flops, bytes_per_second = machine_speed(device.type, device.index)
    weights = block_weights(config)
    blocks = min(n_blocks or config.num_hidden_layers, config.num_hidden_layers)
    head = config.vocab_size * config.hidden_size
    model_weights = weights * config.num_hidden_layers + head * (1 if config.tie_word_embeddings else 2)
    seconds = blocks * _block_seconds(recipe, weights, config.hidden_size, flops, bytes_per_second)
    seconds += _refresh_seconds(recipe, weights, config.num_hidden_layers, blocks, head, flops, bytes_per_second)
    saliency = 0.0
    if recipe.needs_saliency and recipe.saliency is not None:
        tokens = recipe.saliency.n_samples * recipe.saliency.seq_len
        saliency = OVERHEAD * tokens * (FORWARD + BACKWARD) * (weights * config.num_hidden_layers + head) / flops
    rest = weights * (config.num_hidden_layers - blocks)
    distillation = _distillation_seconds(recipe, weights * blocks, head, rest, flops, bytes_per_second)
    place = _place(config, recipe, device, 4 * model_weights / GB)
    evaluation = OVERHEAD * 2 * evaluation_tokens * FORWARD * (weights * config.num_hidden_layers + head) / flops
    return Estimate(
        seconds=seconds,
        saliency_seconds=saliency,
        evaluation_seconds=evaluation,
        memory_gb=peak_memory_gb(Sizes.of(config, weights, model_weights, blocks), recipe, place, itemsize=4 if device.type == "cpu" else 2),
        disk_gb=(blocks * weights * 1.2 + (4 * weights * config.num_hidden_layers if recipe.needs_saliency else 0)) / GB
        + (place.needed_gb if place.where == "disk" else 0.0),
        distillation_seconds=distillation,
        basis=f"{flops / 1e9:.0f} GFLOP/s float32 matmul measured here; {blocks} blocks of {weights / 1e6:.1f} M weights"
        + (f"; {place.reason}" if recipe.data is not None else ""),
    )


def block_weights(config: Config) -> int:
    """Quantized weights of one block."""
    return config.hidden_size * (2 * query_width(config) + 2 * key_width(config) + 3 * config.intermediate_size)


def machine_speed(device_type: str, index: int | None) -> tuple[float, float]:
    """(float32 matmul in FLOP/s, memory in bytes/s), measured in about half a second, and again when the last measurement is a minute old.

    The best of all measurements counts: other programs only ever slow a machine down.
    """
    known = _SPEEDS.get((device_type, index))
    if known is not None and time.monotonic() - known.at < SECONDS_A_SPEED_HOLDS:
        return known.flops, known.bytes_per_second
    flops, bytes_per_second = _measured_speed(device_type, index)
    if known is not None:
        flops, bytes_per_second = max(flops, known.flops), max(bytes_per_second, known.bytes_per_second)
    _SPEEDS[device_type, index] = _Speed(flops, bytes_per_second, time.monotonic())
    return flops, bytes_per_second


@dataclass(frozen=True)
class _Speed:
    flops: float
    bytes_per_second: float
    at: float


_SPEEDS: dict[tuple[str, int | None], _Speed] = {}


def _measured_speed(device_type: str, index: int | None) -> tuple[float, float]:
    device = torch.device(device_type if index is None else f"{device_type}:{index}")
    size = 1024 if device_type == "cpu" else 4096
    a, b = torch.randn(size, size, device=device), torch.randn(size, size, device=device)
    matmul = _best_seconds(lambda: torch.mm(a, b), device)
    buffer = torch.randn(1 << 23, device=device)
    copy = _best_seconds(lambda: buffer.mul(1.5), device)
    return 2 * size**3 / matmul, 2 * buffer.numel() * 4 / copy


def _best_seconds(work: Any, device: torch.device) -> float:
    best, until = float("inf"), time.perf_counter() + MEASURE_SECONDS
    while best == float("inf") or time.perf_counter() < until:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - started)
    return best


def _block_seconds(recipe: Recipe, weights: int, hidden: int, flops: float, bytes_per_second: float) -> float:
    quantize = 10 * 4 * weights / bytes_per_second
    if recipe.data is None:
        return quantize
    tokens = recipe.data.n_samples * recipe.data.seq_len
    passes = 3.0  # both streams through teacher and frozen block
    if recipe.granularity == "linear":
        passes += 4.0  # and, on average half-way, through both blocks to each of four inputs
    if recipe.needs_moments:
        passes += 2.0  # once more through the teacher, and about as much for the outer products of its inputs
    compute = tokens * FORWARD * weights * passes
    memory = SEARCH_PASSES * 4 * weights / bytes_per_second if recipe.searches_clipping else 0.0
    for stage in recipe.active_stages:
        steps = stage.epochs * -(-recipe.data.n_samples // stage.batch_size)
        memory += steps * (WEIGHT_PASSES + (TRAINED_PASSES if stage.lr_weight else 0)) * 4 * weights / bytes_per_second
        if stage.objective is not None:
            compute += tokens * (stage.epochs * (FORWARD + BACKWARD) + 2 * FORWARD) * weights
        if stage.sliced_wasserstein is not None:  # two projections and the gradient of one; sorting takes about as long again
            compute += 2 * 3 * FORWARD * stage.epochs * tokens * hidden * stage.sliced_wasserstein.projections
    return OVERHEAD * compute / flops + memory + quantize


def _refresh_seconds(recipe: Recipe, weights: int, of_model: int, blocks: int, head: int, flops: float, bytes_per_second: float) -> float:
    """Saliency again, of the model quantized so far: per refresh a forward pass, the gradient down to its first block, and that of `refresh` blocks.

    The head counts twice, for logits and their gradient; blocks that are quantized are dequantized for every batch.
    """
    if recipe.refresh is None or recipe.saliency is None:
        return 0.0
    tokens, batches = recipe.saliency.n_samples * recipe.saliency.seq_len, -(-recipe.saliency.n_samples // BATCH_SIZE)
    seconds = 0.0
    for first in range(recipe.refresh, blocks, recipe.refresh):
        passed = of_model + (of_model - first) + min(recipe.refresh, blocks - first)
        seconds += OVERHEAD * tokens * FORWARD * (passed * weights + 2 * head) / flops
        seconds += batches * first * DEQUANTIZE_PASSES * 4 * weights / bytes_per_second
    return seconds


def _distillation_seconds(recipe: Recipe, learned: int, head: int, rest: int, flops: float, bytes_per_second: float) -> float:
    """Teacher once per sample that is new to the blocks, student forward and backward per step; the head three times: both logits, one gradient."""
    config = recipe.distillation
    if config is None:
        return 0.0
    tokens = config.steps * config.batch_size * config.seq_len
    taught = float(min(tokens, config.n_samples * config.seq_len))
    if recipe.data is not None and recipe.data.seq_len == config.seq_len and rest == 0:
        taught *= max(0.0, 1 - recipe.data.n_samples / config.n_samples)
    compute = taught * FORWARD * (learned + rest) + tokens * ((FORWARD + BACKWARD) * learned + 2 * FORWARD * rest + 3 * FORWARD * head)
    return OVERHEAD * compute / flops + config.steps * WEIGHT_PASSES * 4 * learned / bytes_per_second


def _place(config: Config, recipe: Recipe, device: torch.device, model_gb: float) -> Placement:
    tokens = 0 if recipe.data is None else recipe.data.n_samples * recipe.data.seq_len
    needed = streams_gb(recipe, tokens, config.hidden_size, config.intermediate_size)
    return placement(needed, device, recipe.streams_budget_gb, taken_gb=model_gb)
