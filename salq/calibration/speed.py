"""How fast calibration is: against the same steps as a textbook torch loop takes them, and against the machine's own matrix product.

Both loops start from the same parameters, take the same batches, and the losses of their first steps must be the same before their times count: at
the rates of a short calibration the order of a sum grows into another path within ten steps. The textbook's loop is timed with the allocator as it
comes, and once more with the allocator told to keep what is freed, which is a part of salq's speed.
"""

import copy
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from salq.calibration.compiled import compile_block
from salq.calibration.engine import calibrate
from salq.calibration.estimate import BACKWARD, FORWARD
from salq.calibration.fit import FitData, StartLosses, new_optimizer, run_stage
from salq.calibration.objectives import TINY
from salq.calibration.recipe import Fit, Recipe
from salq.calibration.store import MemoryBlocks
from salq.calibration.streams import Streams
from salq.calibration.student import Student, StudentLinear
from salq.core.device import keep_freed_memory, step_precision
from salq.core.errors import ConfigError
from salq.core.events import BlockDone
from salq.models.capture import run_block
from salq.models.llama import LINEARS, Llama
from salq.quant.clipping import LWC, Clipping
from salq.quant.grid import group_range, grouped
from salq.quant.spec import QuantSpec

SAME_LOSS = {torch.float32: 1e-3, torch.bfloat16: 1e-2}
"""Largest relative difference of the two loops' losses in their first round, by the dtype of the model: float32 sums in another order; and weights
of 8 bits lie on the border of two codes so often that the order of a sum soon shows."""
MATMUL_SECONDS = 0.5
FIRST_LINEARS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
"""What reads the block's own input, which needs no gradient."""


@dataclass(frozen=True)
class CalibrationSpeed:
    """Seconds of an optimizer step (medians) in the textbook's loop and in salq's; seconds, model FLOPs and matmul rate of whole blocks.

    block_flops: multiply-adds x 2 of the linears and of causal attention that the method itself needs for one block; what salq does
    besides, such as measuring the loss before the first step, counts as time only.
    """

    textbook_step: float
    textbook_kept_step: float
    """With freed memory kept, as salq's loop runs."""
    step: float
    steps: int
    loss_difference: float
    """Largest relative difference of the two loops' first losses."""
    block_seconds: float
    block_flops: float
    matmul_rate: float

    @property
    def ratio(self) -> float:
        """How many times faster than the textbook's loop a step is."""
        return self.textbook_step / self.step

    @property
    def matmul_share(self) -> float:
        """Share of the measured matrix-product rate that calibrating whole blocks reaches."""
        return self.block_flops / self.block_seconds / self.matmul_rate


def calibration_speed(model: Llama, recipe: Recipe, *, blocks: int = 2, rounds: int = 8, steps: int = 4) -> CalibrationSpeed:
    """Measure on `model`: `rounds` times `steps` optimizer steps of either loop on block 0, in turns, then calibration of `blocks` blocks.

    The process keeps freed memory from then on. Token ids are drawn at random: no time depends on them. Raises ConfigError for a recipe that
    is not one stage of clipping and adapters against a block's output, and when the two loops' first losses are not the same.
    """
    stage, data = _only_stage(recipe), recipe.data
    assert data is not None
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, model.config.vocab_size, (data.n_samples, data.seq_len), generator=generator)
    streams = Streams(model, tokens, model.device)
    teacher = copy.deepcopy(model.blocks[0]).float()  # as `calibrate` does: on a GPU the model is in bfloat16
    student = Student(teacher, LINEARS, recipe.spec, recipe.quantizer, recipe.adapter, generator)
    fit_data = FitData(streams.quantized, streams.kwargs, streams.targets(teacher, augmented=True), None, 0)
    textbook = [_textbook(student, stage, recipe.spec, fit_data) for _ in range(2)]  # parameters are copied before salq's loop changes them
    with step_precision(model.device):  # the textbook's loop gets what salq's takes by itself
        (default,) = _in_turns(textbook[:1], rounds, steps)
        keep_freed_memory()
        if recipe.compile is not None:
            compile_block(student.block)
        own, plain = _in_turns([_ours(student, stage, fit_data), textbook[1]], rounds, steps)
    difference = max(abs(one - other) / abs(other) for one, other in zip(own.losses, plain.losses, strict=True))
    if not difference < SAME_LOSS[model.dtype]:
        raise ConfigError(f"The two loops' losses differ by {difference:.1e} within {steps} steps; they do not do the same, so no time counts.")
    rates, seconds = [_matmul_rate(model.device)], []
    for event in calibrate(model, tokens, recipe, MemoryBlocks(), n_blocks=blocks):
        if isinstance(event, BlockDone):
            seconds.append(event.seconds)
            rates.append(_matmul_rate(model.device))
    return CalibrationSpeed(
        statistics.median(default.seconds), statistics.median(plain.seconds), statistics.median(own.seconds), len(own.seconds), difference,
        statistics.mean(seconds), block_flops(model, recipe), statistics.mean(rates),
    )  # fmt: skip


def _matmul_rate(device: torch.device) -> float:
    """FLOP/s of a square float32 product; the median of half a second of calls, because a busy machine's best moment is not its speed."""
    size = 1024 if device.type == "cpu" else 4096
    a, b = torch.randn(size, size, device=device), torch.randn(size, size, device=device)
    seconds: list[float] = []
    with step_precision(device):
        while sum(seconds) < MATMUL_SECONDS:
            started = time.perf_counter()
            torch.mm(a, b)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds.append(time.perf_counter() - started)
    return FORWARD * size**3 / statistics.median(seconds)


def block_flops(model: Llama, recipe: Recipe) -> float:
    """Model FLOPs of calibrating one block: two teacher passes, the steps, and one pass through what was frozen."""
    stage, data = _only_stage(recipe), recipe.data
    assert data is not None
    tokens = data.n_samples * data.seq_len
    shapes = {name: cast(Tensor, linear.weight).shape for name, linear in model.linears(0).items()}
    weights = sum(shape.numel() for shape in shapes.values())
    attention = 2 * model.config.hidden_size * data.seq_len / 2  # scores and mixing of values; a causal token sees half of the others
    forward = FORWARD * (weights + attention)
    backward = BACKWARD * (weights + attention) - FORWARD * sum(shapes[name].numel() for name in FIRST_LINEARS)
    adapter = (FORWARD + BACKWARD) * sum(recipe.rank * sum(shape) for shape in shapes.values())
    passes = 2 + (1 if stage.objective is not None and stage.objective.augmented else 0)
    return float(tokens * (passes * forward + stage.epochs * (forward + backward + adapter)))


def _only_stage(recipe: Recipe) -> Fit:
    stages = recipe.active_stages
    fits = len(stages) == 1 and stages[0].objective is not None and stages[0].regularizer is None and stages[0].sliced_wasserstein is None
    if not fits or recipe.data is None or recipe.granularity == "linear" or not isinstance(recipe.quantizer, LWC) or recipe.mixed:
        raise ConfigError(
            f"Speed is measured on one stage of clipping and adapters against a block's output, and {recipe.name!r} has more; use apiq."
        )
    return stages[0]


@dataclass
class _Timed:
    """Losses of the steps of the first round, which warms up, and seconds of every later one."""

    losses: list[float]
    seconds: list[float]


def _in_turns(loops: list[Iterator[float]], rounds: int, steps: int) -> list[_Timed]:
    """Let every loop take `steps` steps, in turns, so that all see the same weather."""
    found = [_Timed([], []) for _ in loops]
    for number in range(rounds + 1):
        for timed, loop in zip(found, loops, strict=True):
            for _ in range(steps):
                started = time.perf_counter()
                loss = next(loop)
                if number:
                    timed.seconds.append(time.perf_counter() - started)
                else:
                    timed.losses.append(loss)
    return found


def _ours(student: Student, stage: Fit, data: FitData) -> Iterator[float]:
    """The loss of every step of salq's own loop, an epoch at a time with one optimizer: of a long stage, a GPU reports one step in many."""
    epoch = stage.model_copy(update={"epochs": 1, "schedule": "constant"})
    optimizer, generator = new_optimizer([epoch], student), torch.Generator().manual_seed(0)
    while True:
        for event in run_stage(epoch, student, data, generator, start=StartLosses(0.0, 0.0), optimizer=optimizer):
            yield sum(event.loss.values())


class TextbookLinear(nn.Module):
    """The same student linear as a textbook writes it: autograd goes through every operation of the quantizer, at every use."""

    def __init__(self, linear: StudentLinear, spec: QuantSpec) -> None:
        """Parameters start as copies of those of `linear`."""
        super().__init__()
        assert isinstance(linear.clipping, Clipping)
        assert linear.adapter is not None
        self.spec, self.scaling = spec, linear.adapter.scaling
        self.weight, self.bias = linear.weight, linear.bias
        self.low, self.high = group_range(linear.weight, spec)
        self.upper, self.lower = _copied(linear.clipping.upper_logit), _copied(linear.clipping.lower_logit)
        self.a, self.b = _copied(linear.adapter.lora_A), _copied(linear.adapter.lora_B)

    def forward(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        """x @ fake_quantize(W).T + the adapter."""
        low, high = (self.low * self.lower.sigmoid()).clamp(max=0), (self.high * self.upper.sigmoid()).clamp(min=0)
        scale = ((high - low) / self.spec.max_code).clamp(min=1e-5)
        zero = _round(-low / scale).clamp(0, self.spec.max_code).detach()
        codes = (_round(grouped(self.weight, self.spec) / scale[..., None]) + zero[..., None]).clamp(0, self.spec.max_code)
        weight = ((codes - zero[..., None]) * scale[..., None]).reshape(self.weight.shape)
        return nn.functional.linear(x, weight, self.bias) + x @ self.a.T @ self.b.T * self.scaling


def _copied(parameter: Tensor | None) -> nn.Parameter:
    assert parameter is not None
    return nn.Parameter(parameter.detach().clone())


def _round(x: Tensor) -> Tensor:
    """Straight-through rounding."""
    return (x.round() - x).detach() + x


def _textbook(student: Student, stage: Fit, spec: QuantSpec, data: FitData) -> Iterator[float]:
    """The loss of every step of the plain loop, from a copy of the student's parameters."""
    block = copy.deepcopy(student.block)
    clipping: list[nn.Parameter] = []
    adapters: list[nn.Parameter] = []
    for name, linear in student.linears.items():
        assert isinstance(linear, StudentLinear)  # of the lwc quantizer
        plain = TextbookLinear(linear, spec)
        block.set_submodule(name, plain)
        clipping += [plain.upper, plain.lower]
        adapters += [plain.a, plain.b]
    optimizer = torch.optim.AdamW(
        [{"params": clipping, "lr": stage.rates["clipping"]}, {"params": adapters, "lr": stage.rates["adapter"]}], weight_decay=stage.weight_decay
    )
    order = torch.Generator().manual_seed(0)

    def error(output: Tensor, target: Tensor, full: Tensor) -> Tensor:
        if stage.objective is not None and stage.objective.normalize == "token":
            return ((output - target) ** 2).mean(-1).div((full**2).mean(-1).clamp(min=TINY)).mean()
        return nn.functional.mse_loss(output, target)

    def loop() -> Iterator[float]:
        while True:
            for rows in torch.randperm(len(data.inputs), generator=order).split(stage.batch_size):
                output, full = run_block(block, data.inputs[rows], data.kwargs), data.targets.on_full[rows]
                loss = error(output, full, full)
                if data.targets.on_quantized is not None:
                    loss = loss + error(output, data.targets.on_quantized[rows], full)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                yield loss.item()

    return loop()
