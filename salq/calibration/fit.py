"""One stage of one block: AdamW steps on the clipping and the adapters of a student."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from salq.calibration.objectives import Targets
from salq.calibration.recipe import Fit
from salq.calibration.student import Student
from salq.core.errors import Diverged
from salq.core.events import StepDone
from salq.models.capture import run_block


@dataclass
class FitData:
    """What every stage of a block sees: the quantized stream's inputs, the teacher's outputs, the published saliency G, the block's index."""

    inputs: Float[Tensor, "n seq hidden"]
    kwargs: Mapping[str, object]
    targets: Targets
    saliency: Mapping[str, Float[Tensor, "out in"]] | None
    block: int


@dataclass(frozen=True)
class StartLosses:
    """Mean output loss and R of a block before its first step: what the relative convention scales by and what the run's page shows."""

    output: float
    regularizer: float


def run_stage(stage: Fit, student: Student, data: FitData, generator: torch.Generator) -> Iterator[StepDone]:
    """Minimise the stage's terms; yields after a step, at most about 64 times on a GPU, where every report waits for the device.

    Raises Diverged at the first report of a loss that is not finite.
    """
    start = losses_at_start(stage, student, data)
    coefficient = 0.0 if stage.regularizer is None else stage.regularizer.coefficient(data.block, start.output, start.regularizer)
    optimizer = _optimizer(stage, student)
    n_samples = data.inputs.shape[0]
    of = stage.epochs * math.ceil(n_samples / stage.batch_size)
    stride = 1 if data.inputs.device.type == "cpu" else max(1, of // 64)
    last_finite: float | None = None
    step = 0
    for _ in range(stage.epochs):
        for rows in torch.randperm(n_samples, generator=generator).split(stage.batch_size):
            terms = _step(stage, student, data, rows, coefficient, optimizer, _rate(stage, step, of))
            step += 1
            if step % stride == 0 or step == of:
                losses = {name: float(term) for name, term in terms.items()}
                if not all(map(math.isfinite, losses.values())):
                    raise Diverged(data.block, stage.name, step, last_finite)
                last_finite = sum(losses.values())
                yield StepDone(data.block, stage.name, step, of, losses)


@torch.no_grad()
def losses_at_start(stage: Fit, student: Student, data: FitData) -> StartLosses:
    """The two terms before the first step, over all samples, without gradient."""
    student.new_step()
    output = 0.0
    if stage.objective is not None:
        for rows in torch.arange(data.inputs.shape[0]).split(stage.batch_size):
            result = run_block(student.block, data.inputs[rows], data.kwargs)
            output += float(stage.objective.loss(result, data.targets.batch(rows))) * len(rows) / data.inputs.shape[0]
    raw = 0.0 if stage.regularizer is None else float(stage.regularizer.raw(student.linears, _weights(stage, data)))
    return StartLosses(output, raw)


def _step(
    stage: Fit, student: Student, data: FitData, rows: Tensor, coefficient: float, optimizer: torch.optim.AdamW, rate: float
) -> dict[str, Tensor]:
    """One optimizer step; returns the terms, as they enter the sum, still on the device."""
    student.new_step()
    terms: dict[str, Tensor] = {}
    if stage.objective is not None:
        output = run_block(student.block, data.inputs[rows], data.kwargs)
        terms["output"] = stage.objective.loss(output, data.targets.batch(rows))
    if stage.regularizer is not None and coefficient > 0:
        terms["weight_saliency" if stage.regularizer.weighted else "weight"] = coefficient * stage.regularizer.raw(
            student.linears, _weights(stage, data)
        )
    if not terms:  # a dead regularizer alone (R = 0 at the start): nothing to minimise, nothing changes
        return {"output": torch.zeros(())}
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * rate
    optimizer.zero_grad(set_to_none=True)
    sum(terms.values(), torch.zeros((), device=data.inputs.device)).backward()
    optimizer.step()
    return {name: term.detach() for name, term in terms.items()}


def _weights(stage: Fit, data: FitData) -> Mapping[str, Tensor] | None:
    return data.saliency if stage.regularizer is not None and stage.regularizer.weighted else None


def _optimizer(stage: Fit, student: Student) -> torch.optim.AdamW:
    groups = [
        {"params": student.parameters(group), "lr": rate, "base_lr": rate}
        for group, rate in (("clipping", stage.lr_clipping), ("adapter", stage.lr_adapter))
        if rate > 0 and student.parameters(group)
    ]
    return torch.optim.AdamW(groups, weight_decay=stage.weight_decay)


def _rate(stage: Fit, step: int, of: int) -> float:
    """Factor on the learning rates at `step` (0-based): 1, or half a cosine that ends at 0 after the last step."""
    return 1.0 if stage.schedule == "constant" else 0.5 * (1 + math.cos(math.pi * step / of))
