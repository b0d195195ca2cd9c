"""Clipping that starts at the least rounding error: near the best of a finer search, no worse than no clipping, defined for every group."""

import pytest
import torch
from torch import Tensor

from salq.quant.clipping import LWC, MinMax
from salq.quant.grid import fake_quantize, group_range, qparams_from_range
from salq.quant.spec import QuantSpec

STARTED = LWC(start="error")


def error(rounded: Tensor, weight: Tensor, size: int) -> Tensor:
    """Squared error of every group."""
    return (rounded.detach() - weight).square().reshape(len(weight), -1, size).sum(dim=-1)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_the_start_is_near_the_best_of_a_finer_search(bits: int, symmetric: bool) -> None:
    generator = torch.Generator().manual_seed(bits)
    weight = torch.randn(24, 128, generator=generator) * torch.rand(24, 1, generator=generator)
    spec = QuantSpec(bits=bits, group_size=32, symmetric=symmetric)
    found = error(STARTED.build(weight, spec).fake_quantize(weight), weight, 32)
    low, high = group_range(weight, spec)
    fractions = torch.linspace(0.2, 1, 41)
    best = torch.full_like(low, float("inf"))
    for lower in fractions:
        for upper in fractions:
            best = torch.minimum(best, error(fake_quantize(weight, qparams_from_range(low * lower, high * upper, spec), spec), weight, 32))
    assert float(found.sum() / best.sum()) < 1.06


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_over_a_matrix_it_is_no_worse_than_the_whole_range_or_the_published_start(bits: int) -> None:
    weight = torch.randn(32, 256, generator=torch.Generator().manual_seed(0))
    spec = QuantSpec(bits=bits, group_size=16)
    found = error(STARTED.build(weight, spec).fake_quantize(weight), weight, 16)
    for other in (MinMax(), LWC()):
        assert float(found.sum()) <= 1.001 * float(error(other.build(weight, spec).fake_quantize(weight), weight, 16).sum())


def test_groups_that_are_equal_one_signed_or_zero_start_somewhere_finite() -> None:
    weight = torch.stack([torch.zeros(8), torch.full((8,), 0.5), torch.linspace(0.1, 1, 8), torch.linspace(-1, -0.1, 8)])
    clipping = STARTED.build(weight, QuantSpec(bits=2, group_size=8))
    assert all(bool(torch.isfinite(logit).all()) for logit in clipping.parameters())
    clipping.fake_quantize(weight).square().sum().backward()
    assert all(parameter.grad is not None and bool(torch.isfinite(parameter.grad).all()) for parameter in clipping.parameters())
