"""Where learning starts: clipping and adapters of a student set in closed form, before the first step.

Weighted by nothing, by saliency, or by what each linear receives: with the second moment M = E[x x^T] of its inputs, the output error of a
change D of its weight is E ||D x||^2 = trace(D M D^T), which the moments of a few thousand tokens tell exactly.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from salq.calibration.places import Samples, batches
from salq.calibration.recipe import Recipe
from salq.calibration.student import Student
from salq.models.capture import run_block
from salq.models.llama import SHARED_INPUTS
from salq.quant.clipping import Clipping

Moments = Mapping[str, Float[Tensor, "in in"]]
"""{module_name: E[x x^T] over all tokens}, float32; linears that share their input share the tensor."""


@torch.no_grad()
def start(student: Student, recipe: Recipe, saliency: Mapping[str, Tensor] | None, moments: Moments | None, generator: torch.Generator) -> None:
    """Set clipping and adapters of `student` to where the recipe starts them; nothing when it starts them as published.

    saliency, moments: of the block's matrices; needed as `recipe.needs_saliency` and `recipe.needs_moments` say.
    """
    if recipe.searches_clipping:
        for name, linear in student.linears.items():
            assert isinstance(linear.clipping, Clipping)
            energy = moments[name].diagonal() if moments is not None and recipe.quantizer.start == "output" else None
            linear.clipping.start_at_least_error(linear.weight, energy)
    how = None if recipe.adapter is None else recipe.adapter.start
    if how is not None:
        student.new_step()
        for name, linear in student.linears.items():
            assert linear.adapter is not None
            residual = linear.weight - linear.fake_weight()
            if how == "output":
                assert moments is not None
                linear.adapter.start_from_output(residual, moments[name], generator)
            else:
                linear.adapter.start_from(residual, saliency[name] if how == "saliency" and saliency is not None else None, generator)
    student.new_step()


@torch.no_grad()
def input_moments(block: nn.Module, hidden: Samples, kwargs: Mapping[str, object]) -> dict[str, Float[Tensor, "in in"]]:
    """`Moments` of every linear of `block` when the block receives `hidden` [n, seq, hidden]."""
    sums: dict[str, Tensor] = {}

    def observe(name: str) -> torch.utils.hooks.RemovableHandle:
        def add(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            x = args[0].flatten(0, -2).float()
            sums[name] = x.T @ x if name not in sums else sums[name].addmm_(x.T, x)

        return block.get_submodule(name).register_forward_pre_hook(add)

    handles = [observe(name) for name in SHARED_INPUTS]
    try:
        for rows in batches(hidden.shape):
            run_block(block, hidden[rows], kwargs)
    finally:
        for handle in handles:
            handle.remove()
    tokens = hidden.shape[0] * hidden.shape[1]
    means = {first: total.div_(tokens) for first, total in sums.items()}
    return {name: means[first] for first, names in SHARED_INPUTS.items() for name in names}
