"""Where learning starts: weights, clipping and adapters of a student set in closed form, before the first step.

Weighted by nothing, by saliency, or by what each linear receives (`input_moment`), in forward order: what a linear receives comes through those
before it as they were set.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from salq.calibration.inputs import input_moment
from salq.calibration.recipe import Recipe
from salq.calibration.streams import Streams
from salq.calibration.student import Student, StudentLinear, TokenAdaptiveLinear
from salq.models.llama import SHARED_INPUTS
from salq.quant.clipping import Clipping
from salq.quant.compensation import Compensation


@torch.no_grad()
def start(student: Student, recipe: Recipe, saliency: Mapping[str, Tensor] | None, streams: Streams | None, generator: torch.Generator) -> None:
    """Set clipping, weights and adapters of `student` to where the recipe starts them; nothing when it starts them as published.

    saliency, streams: needed as `recipe.needs_saliency` and `recipe.needs_moments` say; the streams are at the student's block.
    """
    if not recipe.has_start:
        return
    for first, names in SHARED_INPUTS.items():
        moment = None
        if recipe.needs_moments:
            assert streams is not None
            student.new_step()
            moment = input_moment(student.block, first, streams.quantized, streams.kwargs)
        compensation = Compensation.of(moment) if moment is not None and recipe.rounding == "compensated" else None
        for name in names:
            linear = student.linears[name]
            _start_range(linear, recipe, moment)
            if compensation is not None:
                assert isinstance(linear, StudentLinear)
                assert isinstance(linear.clipping, Clipping)  # the grid is uniform
                linear.start_weight(compensation(linear.original, linear.clipping.qparams(), linear.spec))
            _start_adapter(linear, recipe, None if saliency is None else saliency[name], moment, generator)
    student.new_step()


def _start_range(linear: StudentLinear | TokenAdaptiveLinear, recipe: Recipe, moment: Float[Tensor, "in in"] | None) -> None:
    if recipe.searches_clipping:
        assert isinstance(linear.clipping, Clipping)
        energy = moment.diagonal() if moment is not None and recipe.quantizer.start == "output" else None
        linear.clipping.start_at_least_error(linear.original, energy)


def _start_adapter(
    linear: StudentLinear | TokenAdaptiveLinear,
    recipe: Recipe,
    saliency: Float[Tensor, "out in"] | None,
    moment: Float[Tensor, "in in"] | None,
    generator: torch.Generator,
) -> None:
    how = None if recipe.adapter is None else recipe.adapter.start
    if how is None:
        return
    assert linear.adapter is not None
    linear.new_step()
    residual = linear.original - linear.fake_weight()
    if how == "output":
        assert moment is not None
        linear.adapter.start_from_output(residual, moment, generator)
    else:
        linear.adapter.start_from(residual, saliency if how == "saliency" else None, generator)
