"""The end-to-end pass: after the blocks, scales and adapters of the whole model learn to predict what the original predicts.

    theta* = argmin  mean over tokens of KL(p || q_theta),    W_hat = (codes - zero_point) * s,  s = s_0 * exp(u)

theta is {u, A, B}: codes and zero points stay as the blocks decided them, as in the end-to-end phase of EfficientQAT (arXiv 2407.11062,
section 3.3), which trains step sizes on the text's own tokens; the target here is the original's prediction (LLM-QAT, arXiv 2305.17888,
eq. 4), so that no text has to be true. With `lr_weight` the weights are trained too, through straight-through rounding, and the codes are
decided anew at the end. A relative learning rate (u is a logarithm) fits groups of any magnitude and keeps every scale positive.

With `lr_bits` = b the rates of u, A and B are those of b bits, times (2^b - 1) / (2^bits - 1) at other widths: the step of a grid over the same
range, which is what they have to make up for.
"""

import math
import time
from collections.abc import Generator, Mapping
from typing import Literal, Protocol, cast

import torch
from jaxtyping import Float, Int64
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from salq.calibration.head import head_kl
from salq.calibration.learnable import LearnableLinear, student_of
from salq.calibration.places import FinalStates
from salq.calibration.store import Block
from salq.core.device import step_precision
from salq.core.errors import Diverged
from salq.core.events import Event, MetricReported, PhaseDone, PhaseStarted, PhaseStep
from salq.core.progress import DISTILLATION
from salq.models.llama import Llama
from salq.quant.spec import QuantSpec

WARMUP = 0.05
"""Share of the steps in which the learning rates rise from 0: Adam's first estimates are poor."""
SECONDS_BETWEEN_CHECKPOINTS = 120.0
PHASE = "distillation"


class Distillation(BaseModel):
    """How long the end-to-end pass takes, on how much text, and what it trains."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(default=100, ge=1, le=1_000_000, description="Optimizer steps of the end-to-end pass.")
    batch_size: int = Field(default=4, ge=1, le=1024, description="Samples per step of the end-to-end pass.")
    n_samples: int = Field(default=128, ge=1, le=65536, description="Text samples of the end-to-end pass, used again when the steps need more.")
    seq_len: int = Field(default=256, ge=8, le=8192, description="Tokens per sample of the end-to-end pass.")
    lr_scale: float = Field(
        default=1e-3,
        ge=0,
        le=10,
        description="Learning rate of the logarithm of the scales in the end-to-end pass: 0.001 is 0.1 % a step.",
    )
    lr_adapter: float = Field(
        default=1e-3,
        ge=0,
        le=10,
        description="Learning rate of the adapters in the end-to-end pass.",
    )
    lr_bits: Literal[2, 3, 4, 8] | None = Field(
        default=None,
        description="Bits that the rates of scales and adapters are meant for: finer grids take smaller steps, coarser ones larger. None: any bits.",
    )
    lr_weight: float = Field(
        default=0.0, ge=0, le=10, description="Learning rate of the weights; 0 keeps them, and the codes, as the blocks left them."
    )
    weight_decay: float = Field(default=0.0, ge=0, le=10, description="AdamW's decoupled weight decay in the end-to-end pass.")


class Checkpoints(Protocol):
    """Where the state of an interrupted end-to-end pass is kept: named float32 tensors, and the number of finished steps."""

    def save(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        """Keep the state after `step` steps, in place of the last one."""

    def load(self) -> tuple[int, dict[str, Tensor]] | None:
        """The state that was kept, if any."""


def distill(
    model: Llama,
    blocks: Mapping[int, Block],
    tokens: Int64[Tensor, "n seq"],
    config: Distillation,
    *,
    known: FinalStates | None = None,
    seed: int = 0,
    checkpoints: Checkpoints | None = None,
) -> Generator[Event, None, dict[int, Block]]:
    """The phase "distillation" over `blocks` of `model`; returns the blocks with what was learned. Works where the model is, in float32.

    known: what `calibrate` returned; samples that the blocks have seen are not run through the original once more.
    One PhaseStep and one MetricReported("distillation_kl", {step, value}) per step; value in nats per token, on that step's samples.
    Same model, blocks, tokens, known, config, seed and device: same result, resumed from a checkpoint or not.
    Raises Diverged at a loss that is not finite.
    """
    started = time.monotonic()
    yield PhaseStarted(PHASE, of=config.steps, unit="steps")
    student = student_of(model, blocks, learn_weight=config.lr_weight > 0)
    optimizer = _optimizer(student, config)
    teacher = _Teacher(model, tokens, known)
    first = _restore(checkpoints, student, optimizer)
    saved_at, last_finite = time.monotonic(), None
    order = _order(len(tokens), config, seed)
    for step in range(first, config.steps):
        rows = order[step]
        with step_precision(student.device):
            loss = _step(student, tokens[rows], teacher.hidden(rows), optimizer, rate(step, config.steps))
        value = float(loss)
        if not math.isfinite(value):
            raise Diverged(max(blocks), PHASE, step + 1, last_finite)
        last_finite = value
        if checkpoints is not None and time.monotonic() - saved_at > SECONDS_BETWEEN_CHECKPOINTS:
            checkpoints.save(step + 1, _state(student, optimizer))
            saved_at = time.monotonic()
        yield MetricReported(DISTILLATION, {"step": step + 1, "value": value})
        yield PhaseStep(PHASE, step + 1)
    yield PhaseDone(PHASE, time.monotonic() - started)
    return {index: {name: linear.freeze() for name, linear in _learners(student, index, block).items()} for index, block in blocks.items()}


def _step(student: Llama, tokens: Tensor, target: Tensor, optimizer: torch.optim.AdamW, factor: float) -> Float[Tensor, ""]:
    """One optimizer step at `factor` of the learning rates; returns the loss before it."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
    hidden = student.model.model(input_ids=tokens.to(student.device), use_cache=False).last_hidden_state
    loss = head_kl(hidden, target, cast(Tensor, student.model.lm_head.weight))
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return loss.detach()


class _Teacher:
    """Final hidden states of the original, after its norm: computed when a sample is first used, and kept for the next time."""

    def __init__(self, model: Llama, tokens: Tensor, ends: FinalStates | None) -> None:
        """ends: of samples that have been run through the original's blocks already; the first of `tokens` may be the same."""
        self._model, self._tokens, self._ends = model, tokens, ends
        self._known: dict[int, Tensor] = {}

    @torch.no_grad()
    def hidden(self, rows: Tensor) -> Float[Tensor, "batch seq hidden"]:
        self._known.update((row, self._normed(row)) for row in rows.tolist() if row not in self._known and self._has_ended(row))
        new = [row for row in rows.tolist() if row not in self._known]
        if new:
            batch = self._tokens[new].to(self._model.device)
            computed = self._model.model.model(input_ids=batch, use_cache=False).last_hidden_state
            self._known.update(zip(new, computed, strict=True))
        return torch.stack([self._known[row] for row in rows.tolist()]).float()

    def _has_ended(self, row: int) -> bool:
        return self._ends is not None and row < len(self._ends.tokens) and torch.equal(self._ends.tokens[row], self._tokens[row])

    def _normed(self, row: int) -> Float[Tensor, "seq hidden"]:
        assert self._ends is not None
        ended = self._ends.hidden[row : row + 1][0]
        return cast(Tensor, self._model.model.model.norm(ended.to(self._model.device, self._model.dtype)))


def rate(step: int, of: int) -> float:
    """Factor on the learning rates at `step` (0-based): a short linear rise, then half a cosine that ends at 0 after the last step."""
    rise = max(1, round(WARMUP * of))
    return (step + 1) / rise if step < rise else 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, of - rise)))


def learning_rates(config: Distillation, spec: QuantSpec) -> dict[str, float]:
    """The rate of every parameter of a LearnableLinear on this grid, by its name."""
    step = 1.0 if config.lr_bits is None else (2**config.lr_bits - 1) / spec.max_code
    return {"log_gain": step * config.lr_scale, "lora_A": step * config.lr_adapter, "lora_B": step * config.lr_adapter, "weight": config.lr_weight}


def _order(n_samples: int, config: Distillation, seed: int) -> list[Tensor]:
    """Samples of every step: one random permutation after the other, so that each sample is used equally often."""
    generator = torch.Generator().manual_seed(seed * 1009 + 7)
    needed = config.steps * config.batch_size
    rounds = [torch.randperm(n_samples, generator=generator) for _ in range(-(-needed // n_samples))]
    return list(torch.cat(rounds)[:needed].split(config.batch_size))


def _learners(student: Llama, index: int, block: Block) -> dict[str, LearnableLinear]:
    learned = student.blocks[index]
    return {name: cast(LearnableLinear, learned.get_submodule(name)) for name in block}


def _optimizer(student: Llama, config: Distillation) -> torch.optim.AdamW:
    chosen: dict[float, list[nn.Parameter]] = {}
    for module in student.model.modules():
        if isinstance(module, LearnableLinear):
            rates = learning_rates(config, module.frozen.spec)
            for name, parameter in module.named_parameters(recurse=False):
                chosen.setdefault(rates[name], []).append(parameter)
                parameter.requires_grad_(rates[name] > 0)
    groups = [{"params": parameters, "lr": lr, "base_lr": lr} for lr, parameters in chosen.items() if lr > 0]
    return torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=config.weight_decay)


def _state(student: Llama, optimizer: torch.optim.AdamW) -> dict[str, Tensor]:
    """Every learned number with its two moments, by position: parameters are always built in the same order."""
    tensors: dict[str, Tensor] = {}
    for number, parameter in enumerate(_parameters(optimizer)):
        moments = optimizer.state[parameter]
        tensors |= {f"{number}.value": parameter.detach(), f"{number}.exp_avg": moments["exp_avg"], f"{number}.exp_avg_sq": moments["exp_avg_sq"]}
    return {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}


def _restore(checkpoints: Checkpoints | None, student: Llama, optimizer: torch.optim.AdamW) -> int:
    """Take up a kept state; returns the number of steps that it holds."""
    found = None if checkpoints is None else checkpoints.load()
    if found is None:
        return 0
    step, tensors = found
    for number, parameter in enumerate(_parameters(optimizer)):
        parameter.data.copy_(tensors[f"{number}.value"])
        moments = {name: tensors[f"{number}.{name}"].to(parameter.device) for name in ("exp_avg", "exp_avg_sq")}
        optimizer.state[parameter] = {"step": torch.tensor(float(step)), **moments}
    return step


def _parameters(optimizer: torch.optim.AdamW) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
