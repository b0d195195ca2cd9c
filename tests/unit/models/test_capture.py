"""How far a hidden state is from another one: against a slow transcription, and where it is all zeros or not finite."""

import math

import pytest
import torch

from salq.models.capture import relative_error


def test_it_is_the_mean_of_the_ratios_of_tokens(generator: torch.Generator) -> None:
    original = torch.randn(2, 3, 8, generator=generator)
    changed = original + 0.1 * torch.randn(2, 3, 8, generator=generator)
    pairs = zip(changed.double().reshape(-1, 8), original.double().reshape(-1, 8), strict=True)
    ratios = [float((one - other).norm() / other.norm()) for one, other in pairs]
    assert relative_error(changed, original) == pytest.approx(sum(ratios) / len(ratios), rel=1e-5)


def test_a_massive_token_counts_as_any_other(generator: torch.Generator) -> None:
    original, size = torch.randn(1, 4, 8, generator=generator), torch.tensor([1.0, 1.0, 1000.0, 1.0])[None, :, None]
    changed = original + 0.1 * torch.randn(1, 4, 8, generator=generator)
    assert relative_error(changed * size, original * size) == pytest.approx(relative_error(changed, original), rel=1e-5)


def test_all_zero_states_are_equal_and_broken_ones_say_so() -> None:
    nothing, something = torch.zeros(1, 2, 4), torch.ones(1, 2, 4)
    assert relative_error(nothing, nothing) == 0.0
    assert math.isnan(relative_error(something * torch.nan, something))
    assert math.isinf(relative_error(something * torch.inf, something))
