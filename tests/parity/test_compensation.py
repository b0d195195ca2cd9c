"""Rounding that makes up for its own errors, against GPTQ's equations in float64."""

import numpy as np
import pytest
import torch

from salq.quant.clipping import LWC
from salq.quant.compensation import DAMPING, Compensation
from salq.quant.grid import QParams, dequantize, quantize
from salq.quant.spec import QuantSpec
from tests.parity import oracles

GROUP, IN = 16, 160
"""More columns than one panel, and not a multiple of it."""


def problem(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(weight [5, IN], moment of correlated inputs)."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(600, IN, generator=generator) @ torch.randn(IN, IN, generator=generator) / IN**0.5
    return torch.randn(5, IN, generator=generator), inputs.T @ inputs / len(inputs)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_the_codes_are_those_of_the_equations(bits: int) -> None:
    weight, moment = problem(bits)
    spec = QuantSpec(bits=bits, group_size=GROUP)
    qparams = QParams(*(part.detach() for part in LWC(init_logit=1.0).build(weight, spec).qparams()))
    stored = QParams(qparams.scale.half().float(), qparams.zero_point)
    compensation = Compensation.of(moment)
    assert compensation is not None
    codes = quantize(compensation(weight, qparams, spec), stored, spec)
    scale, zero = (part.double().repeat_interleave(GROUP, dim=1).numpy() for part in stored)
    want = oracles.compensated_codes(weight.double().numpy(), scale, zero.round().astype(int), bits, moment.double().numpy(), DAMPING)
    different = (codes.numpy() != want).any(axis=1)
    assert different.sum() <= 1  # float32 may round one value on a tie to the other side, after which the rest of that row goes another way


@pytest.mark.parametrize("bits", [2, 4])
def test_the_output_moves_less_than_by_rounding_to_nearest(bits: int) -> None:
    weight, moment = problem(9)
    spec = QuantSpec(bits=bits, group_size=GROUP)
    qparams = QParams(*(part.detach() for part in LWC(init_logit=1.0).build(weight, spec).qparams()))
    compensation = Compensation.of(moment)
    assert compensation is not None

    def error(rounded: torch.Tensor) -> float:
        change = dequantize(quantize(rounded, qparams, spec), qparams, spec) - weight
        return float(torch.trace(change @ moment @ change.T))

    assert error(compensation(weight, qparams, spec)) < 0.8 * error(weight)


def test_uncorrelated_inputs_leave_nothing_to_make_up_for() -> None:
    weight, _ = problem(3)
    spec = QuantSpec(bits=3, group_size=GROUP)
    qparams = QParams(*(part.detach() for part in LWC(init_logit=1.0).build(weight, spec).qparams()))
    compensation = Compensation.of(torch.diag(torch.linspace(0.5, 2.0, IN)))
    assert compensation is not None
    assert np.allclose(compensation(weight, qparams, spec), weight, atol=1e-6)


def test_inputs_that_are_always_zero_say_nothing() -> None:
    assert Compensation.of(torch.zeros(IN, IN)) is None
