"""The way of an error through a stack of blocks, against a slow transcription."""

from functools import partial

import pytest
import torch
from torch import Tensor

from salq.lessons.travel import travel
from salq.models.capture import relative_error


def block(hidden: Tensor, *, weight: Tensor) -> Tensor:
    return hidden + torch.tanh(hidden @ weight.T)


def test_travel_is_what_running_the_stacks_gives(generator: torch.Generator) -> None:
    weights = [torch.randn(6, 6, generator=generator).double() for _ in range(4)]
    changed = [weight + 0.1 * torch.randn(6, 6, generator=generator).double() for weight in weights]
    hidden = torch.randn(2, 5, 6, generator=generator).double()
    found = travel([partial(block, weight=one) for one in weights], [partial(block, weight=one) for one in changed], hidden)

    def error(stack: list[Tensor], depth: int) -> float:
        state = exact = hidden
        for index in range(depth + 1):
            state, exact = block(state, weight=stack[index]), block(exact, weight=weights[index])
        ratios = [float((state[i, j] - exact[i, j]).norm() / exact[i, j].norm()) for i in range(2) for j in range(5)]
        return sum(ratios) / len(ratios)

    for depth in range(4):
        assert found.together[depth] == pytest.approx(error(changed, depth), rel=1e-3)
        alone = [changed[i] if i == depth else weights[i] for i in range(4)]
        assert found.alone[depth] == pytest.approx(error(alone, depth), rel=1e-3)
        for kept in range(4):
            stack = [weights[i] if i == kept else changed[i] for i in range(4)]
            assert found.without[kept][depth] == pytest.approx(error(stack, depth), rel=1e-3)


def test_the_mean_is_over_tokens() -> None:
    original = torch.tensor([[[1.0, 0.0], [1000.0, 0.0]]])
    assert relative_error(original + torch.tensor([[[0.0, 1.0], [0.0, 0.0]]]), original) == pytest.approx(0.5)
