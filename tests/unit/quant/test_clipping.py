"""Clipping that starts at the least rounding error: near the best of a finer search, no worse than no clipping, defined for every group."""

import pytest
import torch
from torch import Tensor

from salq.quant.clipping import LWC, Clipping, MinMax
from salq.quant.grid import fake_quantize, group_range, qparams_from_range
from salq.quant.spec import QuantSpec


def started(weight: Tensor, spec: QuantSpec, energy: Tensor | None = None) -> Clipping:
    """Clipping at its least error."""
    clipping = LWC().build(weight, spec)
    clipping.start_at_least_error(weight, energy)
    return clipping


def error(rounded: Tensor, weight: Tensor, size: int) -> Tensor:
    """Squared error of every group."""
    return (rounded.detach() - weight).square().reshape(len(weight), -1, size).sum(dim=-1)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_the_start_is_near_the_best_of_a_finer_search(bits: int, symmetric: bool) -> None:
    generator = torch.Generator().manual_seed(bits)
    weight = torch.randn(24, 128, generator=generator) * torch.rand(24, 1, generator=generator)
    spec = QuantSpec(bits=bits, group_size=32, symmetric=symmetric)
    found = error(started(weight, spec).fake_quantize(weight), weight, 32)
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
    found = error(started(weight, spec).fake_quantize(weight), weight, 16)
    for other in (MinMax(), LWC()):
        assert float(found.sum()) <= 1.001 * float(error(other.build(weight, spec).fake_quantize(weight), weight, 16).sum())


def test_strong_inputs_decide_what_is_clipped() -> None:
    generator = torch.Generator().manual_seed(1)
    weight, energy = torch.randn(16, 64, generator=generator), torch.rand(64, generator=generator) ** 6
    spec = QuantSpec(bits=2, group_size=16)

    def weighted(clipping: Clipping) -> float:
        return float((energy * (clipping.fake_quantize(weight).detach() - weight).square()).sum())

    assert weighted(started(weight, spec, energy)) < 0.85 * weighted(started(weight, spec))


def test_groups_that_are_equal_one_signed_or_zero_start_somewhere_finite() -> None:
    weight = torch.stack([torch.zeros(8), torch.full((8,), 0.5), torch.linspace(0.1, 1, 8), torch.linspace(-1, -0.1, 8)])
    clipping = started(weight, QuantSpec(bits=2, group_size=8))
    assert all(bool(torch.isfinite(logit).all()) for logit in clipping.parameters())
    clipping.fake_quantize(weight).square().sum().backward()
    assert all(parameter.grad is not None and bool(torch.isfinite(parameter.grad).all()) for parameter in clipping.parameters())
