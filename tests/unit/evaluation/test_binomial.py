"""The exact interval of a share: known values, exact enumeration, coverage, and what is refused."""

from fractions import Fraction
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from salq.core.errors import ConfigError
from salq.evaluation.binomial import at_least, at_most, share


def tail(counts: range, trials: int, p: float) -> float:
    """The sum of binomial probabilities in exact arithmetic."""
    exact = Fraction(p)
    return float(sum(comb(trials, k) * exact**k * (1 - exact) ** (trials - k) for k in counts))


@given(trials=st.integers(1, 40), data=st.data())
def test_the_bounds_are_where_each_tail_is_exactly_a_fortieth(trials: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, trials))
    found = share(right, trials)
    assert 0 <= found.low <= found.value <= found.high <= 1
    if right:
        assert tail(range(right, trials + 1), trials, found.low) == pytest.approx(0.025, rel=1e-9)
    if right < trials:
        assert tail(range(right + 1), trials, found.high) == pytest.approx(0.025, rel=1e-9)


@given(trials=st.integers(1, 30), p=st.floats(0.01, 0.99))
def test_it_holds_the_truth_at_least_as_often_as_promised(trials: int, p: float) -> None:
    """By enumeration of every outcome, not by simulation."""
    covered = [k for k in range(trials + 1) if share(k, trials).low <= p <= share(k, trials).high]
    assert sum(comb(trials, k) * p**k * (1 - p) ** (trials - k) for k in covered) >= 0.95 - 1e-9


def test_ends_symmetry_and_many_trials() -> None:
    none, all_right = share(0, 10), share(10, 10)
    assert (none.low, all_right.high) == (0.0, 1.0)
    assert none.high == pytest.approx(1 - 0.025 ** (1 / 10))  # the closed form of the textbook
    assert all_right.low == pytest.approx(1 - none.high)
    many = share(5200, 10_000)
    assert many.low == pytest.approx(0.5102, abs=5e-4)
    assert at_least(0, 7, 0.3) == pytest.approx(1) == at_most(7, 7, 0.3)


@pytest.mark.parametrize(("right", "trials"), [(0, 0), (-1, 5), (6, 5)])
def test_what_is_no_share_is_refused(right: int, trials: int) -> None:
    with pytest.raises(ConfigError, match="is not a share"):
        share(right, trials)
