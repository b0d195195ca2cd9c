"""Linears of a block that read the same input, run as one: q, k and v; gate and up.

The block keeps a module under each linear's own name, so that transformers' forward pass works unchanged: the first of the siblings that is
called computes all of them, the others hand out their part. The decode engine calls the group itself.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from salq.quant.spec import QuantSpec

GROUPS: tuple[tuple[str, ...], ...] = (
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    ("self_attn.o_proj",),
    ("mlp.gate_proj", "mlp.up_proj"),
    ("mlp.down_proj",),
)
"""The linears of a block by their input."""


class LinearGroup(nn.Module):
    """One executor module that yields the outputs of several linears side by side."""

    def __init__(self, inner: nn.Module, sizes: tuple[int, ...]) -> None:
        """`sizes` are the output features of the linears, in the order of `inner`'s output."""
        super().__init__()
        self.inner, self.sizes = inner, sizes
        self._input: Tensor | None = None
        self._parts: dict[int, Tensor] = {}

    def forward(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        """All outputs, side by side."""
        output: Tensor = self.inner(x)
        return output

    def part(self, index: int, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        """Output of linear `index`. The siblings' outputs are kept until they were asked for, or another input comes."""
        if self._input is not x or index not in self._parts:
            self._input, self._parts = x, dict(enumerate(self.inner(x).split(self.sizes, dim=-1)))
        found = self._parts.pop(index)
        if not self._parts:
            self._input = None
        return found

    def __deepcopy__(self, memo: dict[int, Any]) -> "LinearGroup":
        """Weights are constant: copies of a model share them."""
        return LinearGroup(self.inner, self.sizes)


class GroupedLinear(nn.Module):
    """One linear of a group, under its own name in the block."""

    def __init__(self, group: LinearGroup, index: int, in_features: int, spec: QuantSpec, rank: int = 0) -> None:
        """Number `index` of `group`."""
        super().__init__()
        self.group, self.index = group, index
        self.in_features, self.out_features, self.spec = in_features, group.sizes[index], spec
        self.rank = rank

    def forward(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        """The linear on `x`."""
        return self.group.part(self.index, x)


def shared_group(linears: list[nn.Module]) -> LinearGroup | None:
    """The group whose members `linears` are, all of them in order; None when they run one by one."""
    first = linears[0]
    if not isinstance(first, GroupedLinear) or len(linears) != len(first.group.sizes):
        return None
    same = all(isinstance(linear, GroupedLinear) and linear.group is first.group and linear.index == at for at, linear in enumerate(linears))
    return first.group if same else None


def trial(module: nn.Module, in_features: int, device: torch.device, dtype: torch.dtype) -> None:
    """Call `module` once on a row of ones. Raises what it raises, and RuntimeError for a result that is not finite."""
    with torch.no_grad():
        output = module(torch.ones(1, in_features, device=device, dtype=dtype))
    if not bool(torch.isfinite(output).all()):
        raise RuntimeError("its first result is not finite")
