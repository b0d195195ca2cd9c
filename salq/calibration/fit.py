"""One stage of one block: AdamW steps on the clipping, the adapters and, where they are trained, the weights of a student."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from salq.calibration.objectives import AllTargets
from salq.calibration.places import Samples
from salq.calibration.recipe import Fit
from salq.calibration.student import Student
from salq.core.device import step_precision
from salq.core.errors import Diverged
from salq.core.events import StepDone
from salq.models.capture import run_block


@dataclass
class FitData:
    """What every stage of a block sees: the quantized stream's inputs, the teacher's outputs, the published saliency G, the block's index."""

    inputs: Samples
    kwargs: Mapping[str, object]
    targets: AllTargets
    saliency: Mapping[str, Float[Tensor, "out in"]] | None
    block: int


@dataclass(frozen=True)
class StartLosses:
    """Mean output loss and R of a block before its first step: what the relative convention scales by and what the run's page shows."""

    output: float
    regularizer: float
    sliced_wasserstein: float = 0.0


@dataclass(frozen=True)
class Factors:
    """What the terms of a stage are multiplied by in one block, and the saliency that its regularizer weighs with."""

    regularizer: float
    sliced_wasserstein: float
    saliency: Mapping[str, Float[Tensor, "out in"]] | None

    @classmethod
    def of(cls, stage: Fit, data: FitData, start: StartLosses) -> "Factors":
        """Strength and scale as the recipe's conventions say, from the losses before the first step."""
        term, transport = stage.regularizer, stage.sliced_wasserstein
        return cls(
            0.0 if term is None else term.coefficient(data.block, start.output, start.regularizer),
            0.0 if transport is None else transport.factor(data.block, start.output, start.sliced_wasserstein),
            None if term is None else term.prepared(data.saliency),
        )


def run_stage(
    stage: Fit,
    student: Student,
    data: FitData,
    generator: torch.Generator,
    *,
    start: StartLosses | None = None,
    optimizer: torch.optim.AdamW | None = None,
) -> Iterator[StepDone]:
    """Minimise the stage's terms; yields after a step, at most about 64 times on a GPU, where every report waits for the device.

    start: the block's losses before its first stage; measured now when not given.
    optimizer: one that earlier stages have used, whose moments are kept; a fresh one when not given.
    Raises Diverged at the first report of a loss that is not finite.
    """
    factors = Factors.of(stage, data, start or losses_at_start(stage, student, data))
    optimizer = optimizer or new_optimizer([stage], student)
    _retune(optimizer, stage)
    n_samples = data.inputs.shape[0]
    of = stage.epochs * math.ceil(n_samples / stage.batch_size)
    stride = 1 if data.inputs.device.type == "cpu" else max(1, of // 64)
    last_finite: float | None = None
    step = 0
    for _ in range(stage.epochs):
        for rows in torch.randperm(n_samples, generator=generator).split(stage.batch_size):
            with step_precision(data.inputs.device):
                terms = _step(stage, student, data, rows, factors, optimizer, _rate(stage, step, of), generator)
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
    output = transported = 0.0
    if stage.objective is not None:
        projections = torch.Generator().manual_seed(data.block)  # a generator of its own: measuring does not change the stages' draws
        for rows in torch.arange(data.inputs.shape[0]).split(stage.batch_size):
            result, targets = run_block(student.block, data.inputs[rows], data.kwargs), data.targets.batch(rows)
            output += float(stage.objective.loss(result, targets)) * len(rows) / data.inputs.shape[0]
            if stage.sliced_wasserstein is not None:
                distance = stage.sliced_wasserstein.distance(result, targets.on_full, projections)
                transported += float(distance) * len(rows) / data.inputs.shape[0]
    raw = 0.0 if stage.regularizer is None else float(stage.regularizer.raw(student.linears, stage.regularizer.prepared(data.saliency)))
    return StartLosses(output, raw, transported)


def loss_terms(
    stage: Fit, student: Student, data: FitData, rows: Tensor, factors: Factors, generator: torch.Generator
) -> dict[str, Float[Tensor, ""]]:
    """The terms of the stage on the samples `rows`, as they enter the sum; `generator` draws the sliced Wasserstein term's directions."""
    student.new_step()
    terms: dict[str, Tensor] = {}
    if stage.objective is not None:
        output, targets = run_block(student.block, data.inputs[rows], data.kwargs), data.targets.batch(rows)
        terms["output"] = stage.objective.loss(output, targets)
        if stage.sliced_wasserstein is not None and factors.sliced_wasserstein > 0:
            terms["output"] = (1 - stage.sliced_wasserstein.weight) * terms["output"]
            terms["sliced_wasserstein"] = factors.sliced_wasserstein * stage.sliced_wasserstein.distance(output, targets.on_full, generator)
    if stage.regularizer is not None and factors.regularizer > 0:
        raw = stage.regularizer.raw(student.linears, factors.saliency)
        terms["weight_saliency" if stage.regularizer.weighted else "weight"] = factors.regularizer * raw
    return terms


def _step(
    stage: Fit,
    student: Student,
    data: FitData,
    rows: Tensor,
    factors: Factors,
    optimizer: torch.optim.AdamW,
    rate: float,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """One optimizer step; returns the terms, as they enter the sum, still on the device."""
    terms = loss_terms(stage, student, data, rows, factors, generator)
    if not terms:  # a dead regularizer alone (R = 0 at the start): nothing to minimise, nothing changes
        return {"weight": torch.zeros(())}
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * rate
    optimizer.zero_grad(set_to_none=True)
    sum(terms.values(), torch.zeros((), device=data.inputs.device)).backward()
    optimizer.step()
    return {name: term.detach() for name, term in terms.items()}


def new_optimizer(stages: Sequence[Fit], student: Student) -> torch.optim.AdamW:
    """AdamW over the groups that any of the stages learns; `run_stage` sets the rates and the decay of its own stage."""
    groups = [
        {"params": student.parameters(group), "group": group}
        for group in stages[0].rates
        if student.parameters(group) and any(stage.rates[group] > 0 for stage in stages)
    ]
    return torch.optim.AdamW(groups)


def _retune(optimizer: torch.optim.AdamW, stage: Fit) -> None:
    """The stage's rates and decay; the moments stay what they are, as in SAPR's released code."""
    for group in optimizer.param_groups:
        group["base_lr"] = stage.rates[group["group"]]
        group["weight_decay"] = stage.weight_decay


def _rate(stage: Fit, step: int, of: int) -> float:
    """Factor on the learning rates at `step` (0-based): 1, or half a cosine that ends at 0 after the last step."""
    return 1.0 if stage.schedule == "constant" else 0.5 * (1 + math.cos(math.pi * step / of))
