"""All stages of one block: what is measured before the first step, the optimizer that they may share, block by block or linear by linear."""

from collections.abc import Callable, Generator, Iterator, Sequence

import torch
from torch import nn

from salq.calibration.compiled import compilation_failure, compile_block
from salq.calibration.fit import Factors, FitData, StartLosses, loss_terms, losses_at_start, new_optimizer, run_stage
from salq.calibration.linears import fit_linears
from salq.calibration.recipe import Fit, Recipe
from salq.calibration.streams import Streams
from salq.calibration.student import Student
from salq.core.events import StepDone

Details = dict[str, float]
RandomStage = Callable[[int], torch.Generator]
"""Number of a stage, from 1 -> its own generator."""


def fit_block(
    recipe: Recipe, student: Student, teacher: nn.Module, streams: Streams, data: FitData, random: RandomStage
) -> Generator[StepDone, None, Details]:
    """Carry out all active stages; returns the losses and gradients before the first step, for `BlockDone.details`."""
    stages, details = recipe.active_stages, Details()

    def fit(part: Student, part_data: FitData, number: int) -> Iterator[StepDone]:
        starts = block_starts(stages, part, part_data)
        _add(details, start_details(stages[0], part, part_data, starts[0]))
        if recipe.compile is not None:  # not before: compiled passes go backward once, and the details ask for each term's gradient
            compile_block(part.block)
        shared = new_optimizer(stages, part) if recipe.optimizer_state == "kept" else None
        for index, (stage, start) in enumerate(zip(stages, starts, strict=True)):
            generator = random(1 + index + number * len(stages))
            yield from run_stage(stage, part, part_data, generator, start=start, optimizer=shared)

    try:
        if recipe.granularity == "linear":
            yield from fit_linears(stages, student, teacher, streams, data, fit)
        else:
            yield from fit(student, data, 0)
    except Exception as error:
        if (failure := compilation_failure(error)) is not None:
            raise failure from error
        raise
    return details


def block_starts(stages: Sequence[Fit], student: Student, data: FitData) -> list[StartLosses]:
    """The losses of every stage before the first step of the first one: relative strengths refer to the untouched block.

    A stage without an output loss (weights only) borrows the first one of its recipe, so that its strength has something to be relative to.
    Without a term that could be relative, nothing is measured: it would cost a forward pass over all samples.
    """
    if all(stage.regularizer is None and stage.sliced_wasserstein is None for stage in stages):
        return [StartLosses(0.0, 0.0) for _ in stages]
    objective = next((stage.objective for stage in stages if stage.objective is not None), None)
    return [
        losses_at_start(stage if stage.objective is not None else stage.model_copy(update={"objective": objective}), student, data)
        for stage in stages
    ]


def start_details(stage: Fit, student: Student, data: FitData, start: StartLosses) -> Details:
    """What a run shows of a block before its first step.

    output_at_start, regularizer_at_start: mean output loss over all samples, and raw R, where a term is relative to them.
    loss.TERM: each term as it enters the sum, on the first batch; gradient.TERM.GROUP: the norm of its gradient with respect to the
    parameters of that group (clipping, adapter).
    """
    rows = torch.arange(min(stage.batch_size, data.inputs.shape[0]))
    terms = loss_terms(stage, student, data, rows, Factors.of(stage, data, start), torch.Generator().manual_seed(data.block))
    details = {"output_at_start": start.output, "regularizer_at_start": start.regularizer} if start != StartLosses(0.0, 0.0) else {}
    groups = {group: parameters for group in stage.rates if (parameters := student.parameters(group))}
    everything = [parameter for parameters in groups.values() for parameter in parameters]
    for term, value in terms.items():
        details[f"loss.{term}"] = float(value.detach())
        learned = everything if value.requires_grad else []
        gradients = dict(zip(learned, torch.autograd.grad(value, learned, retain_graph=True, allow_unused=True) if learned else (), strict=True))
        for group, parameters in groups.items():
            squares = [float(gradient.square().sum()) for one in parameters if (gradient := gradients.get(one)) is not None]
            details[f"gradient.{term}.{group}"] = sum(squares) ** 0.5
    student.new_step()
    return details


def _add(details: Details, more: Details) -> None:
    """Linear by linear, losses add up and gradients of different parameters are parts of one vector."""
    for name, value in more.items():
        before = details.get(name, 0.0)
        details[name] = (before**2 + value**2) ** 0.5 if name.startswith("gradient.") else before + value
