"""Paired statistics: known cases, coverage, and what is refused."""

import numpy as np
import pytest

from salq.core.errors import ConfigError
from salq.evaluation.paired import bootstrap, degradation_removed, mean_difference, over_seeds, student_quantile, widened_tail


def test_a_constant_difference_has_an_interval_of_no_width() -> None:
    tokens = np.full(10, 5.0)
    a = np.arange(10.0)
    found = mean_difference(a, a + 2.0, tokens)
    assert (found.value, found.low, found.high) == pytest.approx((0.4, 0.4, 0.4))
    assert found.is_decided


def test_the_difficulty_of_a_window_cancels_out() -> None:
    """Windows differ a thousand times more than the methods do; the paired interval still finds the sign."""
    generator = np.random.default_rng(0)
    a = generator.normal(0, 100, 48)
    b = a - 0.1 + generator.normal(0, 0.05, 48)
    found = mean_difference(a, b, np.ones(48))
    assert found.high < 0


def test_nothing_is_decided_by_noise_alone_more_often_than_promised() -> None:
    """95 % intervals of differences that are zero on average leave 0 out in about 5 % of experiments."""
    generator = np.random.default_rng(1)
    wrong = sum(mean_difference(np.zeros(48), generator.normal(0, 1, 48), np.ones(48), seed=trial).is_decided for trial in range(200))
    assert wrong <= 22


def test_the_share_of_a_degradation() -> None:
    original, a = np.full(6, 10.0), np.full(6, 18.0)
    assert degradation_removed(original, a, np.full(6, 16.0)).value == pytest.approx(0.25)
    assert degradation_removed(original, a, np.full(6, 20.0)).value == pytest.approx(-0.25)


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.random.default_rng(2).normal(size=12)
    assert mean_difference(values, values**2, np.ones(12), seed=5) == mean_difference(values, values**2, np.ones(12), seed=5)


def test_seeds_must_share_their_windows() -> None:
    assert over_seeds([[1.0, 2.0], [3.0, 4.0]]).tolist() == [2.0, 3.0]
    with pytest.raises(ConfigError, match="same windows"):
        over_seeds([[1.0, 2.0], [3.0]])
    with pytest.raises(ConfigError, match="at least 2 windows"):
        bootstrap(lambda rows: rows.sum(-1).astype(float), 1)


@pytest.mark.parametrize(("freedom", "quantile"), [(1, 12.7062), (4, 2.7764), (7, 2.3646), (29, 2.0452), (1000, 1.9623)])
def test_students_quantile_is_that_of_the_tables(freedom: int, quantile: float) -> None:
    assert student_quantile(freedom) == pytest.approx(quantile, abs=1e-3)


def test_a_widened_interval_of_few_windows_holds_zero_as_often_as_promised() -> None:
    """Plain percentiles of 8 windows miss about 1 in 10; widened ones about 1 in 20. Both are nearly the same for many windows."""
    generator = np.random.default_rng(3)
    trials = [generator.normal(0, 1, 8) for _ in range(400)]
    wrong = [
        sum(bootstrap(lambda rows, v=values: v[rows].mean(-1), 8, resamples=2000, widened=widened).is_decided for values in trials)
        for widened in (False, True)
    ]
    assert wrong[1] < wrong[0]
    assert wrong[1] <= 32  # 5 % of 400, and three standard deviations
    assert widened_tail(10_000) == pytest.approx(0.025, abs=1e-4)


def test_drawing_in_parts_draws_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(4).normal(size=11)
    whole = mean_difference(values, values**2, np.ones(11))
    monkeypatch.setattr("salq.evaluation.paired.DRAWN_AT_ONCE", 1000)
    assert mean_difference(values, values**2, np.ones(11)) == whole
