"""The list of matrices that every fast executor is tested on, in Triton's interpreter and on a GPU, and their product in float64."""

import dataclasses
from typing import NamedTuple

import torch
from torch import Tensor

from salq.quant.frozen import FrozenLinear, rtn
from salq.quant.spec import BITS, QuantSpec
from tests.helpers import random_weight

TOLERANCE = {torch.float16: 1e-3, torch.bfloat16: 8e-3, torch.float32: 5e-4}
"""Relative Frobenius error. float16 and bfloat16: rounding of the result (3e-4 and 2e-3, more where the interpreter truncates); float32: the
bias of the codes, next to a channel of x that is 50 times the others (1e-5 without)."""

INPUTS = {16: 48, 32: 96, 64: 192, 96: 192, 128: 256, 256: 256, None: 100}
"""Inputs for each group size: ragged in tiles of 32 units, and as a whole row ragged in words too."""


class Case(NamedTuple):
    """One matrix, and the x that it is multiplied by."""

    bits: int
    group_size: int | None
    dtype: torch.dtype
    shape: tuple[int, int]
    m: int
    rank: int
    symmetric: bool

    def __str__(self) -> str:
        """For the name of a test."""
        group, kind = self.group_size or "row", "sym" if self.symmetric else "asym"
        return f"w{self.bits}g{group}-{kind}-{self.shape[0]}x{self.shape[1]}-m{self.m}-r{self.rank}-{str(self.dtype)[6:]}"


def cases() -> list[Case]:
    """Every width x group size x dtype; rows of x, ranks, odd numbers of rows and kinds of grid take turns. And 576 inputs at every width."""
    found = []
    for bits in BITS:
        for group, inputs in INPUTS.items():
            for dtype in TOLERANCE:
                turn = len(found)
                m, rank = (1, 2, 1, 1, 3, 1, 1, 1, 5, 1, 1)[turn % 11], (0, 3, 0)[turn % 3]
                found.append(Case(bits, group, dtype, (5 + turn % 4, inputs), m, rank, turn % 4 == 3))
        found.append(Case(bits, 64, torch.float32, (3, 576), 1, 2, False))
    return found


def frozen_of(case: Case, device: str = "cpu") -> FrozenLinear:
    """A random matrix of the case, with an adapter if it has a rank."""
    frozen = rtn(random_weight(*case.shape), QuantSpec(bits=case.bits, group_size=case.group_size, symmetric=case.symmetric))
    if case.rank:
        generator = torch.Generator().manual_seed(1)
        a, b = torch.randn(case.rank, case.shape[1], generator=generator), torch.randn(case.shape[0], case.rank, generator=generator)
        frozen = dataclasses.replace(frozen, lora_A=(a / 8).half(), lora_B=(b / 8).half(), scaling=0.5)
    return frozen.to(torch.device(device))


def inputs_of(case: Case, device: str = "cpu") -> tuple[Tensor, Tensor]:
    """(x [m, in] in the dtype of the case with an outlier, bias float32 [out])."""
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(case.m, case.shape[1], generator=generator)
    x[:, 7] *= 50  # LLaMA's activations have such channels
    return x.to(case.dtype).to(device), torch.randn(case.shape[0], generator=generator).to(device)


def product(frozen: FrozenLinear, x: Tensor, bias: Tensor) -> Tensor:
    """x @ ((codes - zero_point) * scale).T + scaling * (x @ A.T) @ B.T + bias, in float64."""
    size = frozen.codes.shape[1] // frozen.scale.shape[1]
    zero, scale = (grid.double().repeat_interleave(size, dim=1) for grid in (frozen.zero_point, frozen.scale))
    result = x.double() @ ((frozen.codes.double() - zero) * scale).T + bias.double()
    if frozen.lora_A is not None and frozen.lora_B is not None:
        result += frozen.scaling * (x.double() @ frozen.lora_A.double().T) @ frozen.lora_B.double().T
    return result


def relative_error(got: Tensor, want: Tensor) -> float:
    """Frobenius norm of the difference over that of `want`; NaN when anything in `got` is."""
    return float((got.double() - want).norm() / want.norm())
