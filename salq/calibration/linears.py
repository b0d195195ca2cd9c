"""Layer-wise reconstruction (ApiQ-lw): the linears of a block one after the other, each on inputs that come through what is frozen already.

    argmin over Q, A, B of  || X W - X_q (Q(W) + A B^T) ||          ApiQ (arXiv 2402.05147) section 4, ApiQ-lw

in forward order: q, k and v, which read the same input; then o; then gate and up; then down. Then X_q goes through what was frozen. Linears
that share their input have no parameter in common, so fitting them together has the optimum of fitting each alone.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import cast

import torch
from torch import nn

from salq.calibration.fit import FitData
from salq.calibration.frozen_block import dequantized_block
from salq.calibration.inputs import inputs_of
from salq.calibration.objectives import AllTargets
from salq.calibration.places import Samples, StreamMemory, batches
from salq.calibration.recipe import Fit
from salq.calibration.store import Block
from salq.calibration.streams import Streams
from salq.calibration.student import Student
from salq.core.events import StepDone
from salq.models.llama import SHARED_INPUTS

FitStages = Callable[[Student, FitData, int], Iterator[StepDone]]
"""(student, data, number of the group) -> all stages of one group of linears."""


def fit_linears(stages: Sequence[Fit], student: Student, teacher: nn.Module, streams: Streams, data: FitData, fit: FitStages) -> Iterator[StepDone]:
    """Fit the linears of `student` group by group; its steps are numbered through the block, so that progress goes one way.

    streams: the block's inputs in the original model and in the one quantized so far. `data.targets` are not looked at.
    """
    frozen: Block = {}
    augmented = any(stage.objective is not None and stage.objective.augmented for stage in stages)
    for number, names in enumerate(SHARED_INPUTS.values()):
        part = student.part(names)
        part_data = _data_of(names, teacher, streams, data, frozen, augmented=augmented)
        for event in fit(part, part_data, number):
            yield dataclasses.replace(event, step=event.step + number * event.of, of=event.of * len(SHARED_INPUTS))
        del part_data  # its activations are not needed beside those of the next group
        frozen |= {name: part.linears[name].freeze() for name in names}


def _data_of(names: Sequence[str], teacher: nn.Module, streams: Streams, data: FitData, frozen: Block, *, augmented: bool) -> FitData:
    """What one group of linears sees: X_q through the finished ones, X W as target, and X_q W when a stage is augmented."""
    memory, linears = streams.memory, [teacher.get_submodule(name) for name in names]
    original = inputs_of(teacher, names[0], streams.full, data.kwargs, memory)
    on_full = _outputs(linears, original, memory)
    del original  # its room is needed for what follows
    quantized = inputs_of(dequantized_block(teacher, frozen), names[0], streams.quantized, data.kwargs, memory)
    targets = AllTargets(on_full, _outputs(linears, quantized, memory) if augmented else None)
    saliency = None if data.saliency is None else {name: data.saliency[name] for name in names}
    return dataclasses.replace(data, inputs=quantized, kwargs={}, targets=targets, saliency=saliency)


@torch.no_grad()
def _outputs(linears: Sequence[nn.Module], inputs: Samples, memory: StreamMemory) -> Samples:
    """Outputs of the linears side by side: float32 [n, seq, out]."""
    width = sum(cast(nn.Linear, linear).out_features for linear in linears)
    outputs = memory.empty(*inputs.shape[:2], width)
    for rows in batches(inputs.shape):
        batch = inputs[rows]
        outputs[rows] = torch.cat([linear(batch) for linear in linears], dim=-1)
    return outputs
