"""Dealing out bits: within the budget, every step worth it, and optimal where theory says so."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from salq.core.errors import ConfigError
from salq.lessons.allocation import WIDTHS, allocate, allocate_within, greedy_path, total_cost

matrices = st.lists(st.tuples(st.integers(1, 50), st.floats(0.01, 100), st.floats(2, 8)), min_size=1, max_size=5)


def costs(parts: list[tuple[int, float, float]]) -> tuple[list[int], dict[int, list[float]]]:
    """Geometric costs: each further bit divides a matrix's cost by its own factor."""
    return [size for size, _, _ in parts], {bits: [base / factor**bits for _, base, factor in parts] for bits in WIDTHS}


@settings(deadline=None)
@given(matrices, st.floats(2, 8))
def test_a_deal_keeps_the_budget_and_no_affordable_step_is_left(parts: list[tuple[int, float, float]], mean_bits: float) -> None:
    weights, cost = costs(parts)
    widths = allocate(weights, cost, mean_bits)
    spent = sum(size * bits for size, bits in zip(weights, widths, strict=True))
    assert spent <= mean_bits * sum(weights) + 1e-5
    for index, bits in enumerate(widths):
        for step in [one for one in WIDTHS if one > bits][:1]:
            assert spent + (step - bits) * weights[index] > mean_bits * sum(weights) - 1e-5 or cost[step][index] >= cost[bits][index]


def test_equal_sizes_and_equal_steps_are_dealt_optimally() -> None:
    weights, cost = [7] * 4, {2: [9.0, 4.0, 1.0, 7.0], 3: [3.0, 2.0, 0.4, 1.0], 4: [1.0, 1.5, 0.2, 0.4], 8: [1.0, 1.5, 0.2, 0.4]}
    for added in range(9):
        widths = allocate(weights, cost, 2 + added / 4)
        best = min(total_cost(cost, deal) for deal in itertools.product((2, 3, 4), repeat=4) if sum(deal) <= 8 + added)
        assert total_cost(cost, widths) == pytest.approx(best)


def test_too_small_a_budget_is_one_sentence() -> None:
    with pytest.raises(ConfigError, match=r"1\.5 bits per weight is less than every matrix at 2 bits"):
        allocate([1], {bits: [1.0] for bits in WIDTHS}, 1.5)


@settings(deadline=None)
@given(matrices, st.floats(2, 8))
def test_dealing_out_sizes_is_dealing_out_bits(parts: list[tuple[int, float, float]], mean_bits: float) -> None:
    weights, cost = costs(parts)
    sizes = {bits: [bits * size for size in weights] for bits in WIDTHS}
    assert allocate_within(sizes, cost, mean_bits * sum(weights)) == allocate(weights, cost, mean_bits)


@settings(deadline=None)
@given(matrices)
def test_the_path_is_what_growing_budgets_buy(parts: list[tuple[int, float, float]]) -> None:
    weights, cost = costs(parts)
    sizes = {bits: [bits * size + 3 for size in weights] for bits in WIDTHS}
    path = greedy_path(sizes, cost)
    assert [size for size, _ in path] == sorted({size for size, _ in path})
    for size, predicted in path:
        widths = allocate_within(sizes, cost, size)
        assert sum(sizes[bits][index] for index, bits in enumerate(widths)) == size
        assert total_cost(cost, widths) == pytest.approx(predicted)
    with pytest.raises(ConfigError, match="is less than"):
        allocate_within(sizes, cost, path[0][0] - 1)
