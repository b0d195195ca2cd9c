"""How sure one can be of a share: the exact interval of right answers among trials, without a table and without scipy."""

import math
from collections.abc import Callable

from salq.core.errors import ConfigError
from salq.evaluation.paired import LEVEL, Interval

STEPS = 60
"""Halvings of [0, 1]: the bounds are exact to 1e-18 before rounding."""


def share(right: int, trials: int) -> Interval:
    """The share right / trials with its 95 % interval by Clopper and Pearson (Biometrika 26, 1934): exact, never too narrow.

    The lower bound is the p at which `right` or more would come about with probability 2.5 %, the upper one that of `right` or fewer.
    Raises ConfigError for fewer than one trial or a count outside 0 to trials.
    """
    if trials < 1 or not 0 <= right <= trials:
        raise ConfigError(f"{right} of {trials} is not a share; count from 0 to all of at least 1 trial.")
    tail = (1 - LEVEL) / 2
    low = 0.0 if right == 0 else _solve(lambda p: at_least(right, trials, p) - tail)
    high = 1.0 if right == trials else _solve(lambda p: tail - at_most(right, trials, p))
    return Interval(right / trials, low, high)


def at_least(count: int, trials: int, p: float) -> float:
    """P(X >= count) of a binomial X."""
    return math.fsum(_mass(k, trials, p) for k in range(count, trials + 1))


def at_most(count: int, trials: int, p: float) -> float:
    """P(X <= count) of a binomial X."""
    return math.fsum(_mass(k, trials, p) for k in range(count + 1))


def _mass(k: int, trials: int, p: float) -> float:
    """P(X = k), by logarithms so that thousands of trials neither overflow nor underflow early."""
    if p in {0.0, 1.0}:
        return float(k == trials * p)
    log = math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1) + k * math.log(p) + (trials - k) * math.log1p(-p)
    return math.exp(log)


def _solve(rising: Callable[[float], float]) -> float:
    """The zero in [0, 1] of a function that grows."""
    low, high = 0.0, 1.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return (low + high) / 2
