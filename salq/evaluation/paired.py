"""Two methods on the same windows: the difference, and how sure one can be of it.

Windows are the independent units (tokens of one window share a context), and both methods see the same ones, so what is resampled is the
difference of a window: what makes a window hard cancels out.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from salq.core.errors import ConfigError

RESAMPLES = 10_000
LEVEL = 0.95
FEWEST_WINDOWS = 6
"""With fewer, even a difference of the same sign in every window comes about by chance in more than 5 % of cases: 2 * 2**-5 = 6 %."""
DRAWN_AT_ONCE = 4_000_000
"""Indices of windows that exist at once (8 bytes each), whatever the number of windows."""
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """An estimate and the interval that holds it with 95 % by the percentile bootstrap (Efron and Tibshirani 1993, chapter 13)."""

    value: float
    low: float
    high: float

    @property
    def is_decided(self) -> bool:
        """Whether the interval leaves 0 out: the sign is more than noise."""
        return self.low > 0 or self.high < 0

    def to_json(self) -> dict[str, object]:
        """`{"value": ..., "interval": [low, high]}`."""
        return {"value": self.value, "interval": [self.low, self.high]}


def over_seeds(values: Sequence[Sequence[float]]) -> Floats:
    """[seeds, windows] to [windows]: the mean over seeds. Raises ConfigError when the seeds were measured on different numbers of windows."""
    if not values or len({len(row) for row in values}) != 1 or not values[0]:
        raise ConfigError(f"Paired statistics need the same windows for every seed; got {sorted({len(row) for row in values})} windows.")
    return np.asarray(values, dtype=np.float64).mean(axis=0)


def bootstrap(
    statistic: Callable[[NDArray[np.int64]], Floats], windows: int, *, seed: int = 0, resamples: int = RESAMPLES, widened: bool = False
) -> Interval:
    """The 95 % percentile interval of a statistic over windows.

    statistic: takes indices of windows [n, windows] and returns one value per row, [n]; its value on all windows in order is the estimate.
    The draws depend on `seed` alone. widened: percentiles by `widened_tail`, for few windows. Raises ConfigError for fewer than two windows.
    """
    if windows < 2:  # noqa: PLR2004 - one window has no spread
        raise ConfigError(f"An interval needs at least 2 windows; got {windows}.")
    generator, at_once = np.random.default_rng(seed), max(1, DRAWN_AT_ONCE // windows)
    counts = [min(at_once, resamples - start) for start in range(0, resamples, at_once)]
    values = np.concatenate([statistic(generator.integers(0, windows, size=(count, windows))) for count in counts])
    tail = 100 * (widened_tail(windows) if widened else (1 - LEVEL) / 2)
    low, high = np.percentile(values[np.isfinite(values)], [tail, 100 - tail]) if np.isfinite(values).any() else (np.nan, np.nan)
    return Interval(float(statistic(np.arange(windows)[None])[0]), float(low), float(high))


def widened_tail(windows: int) -> float:
    """The share to leave out at each end so that an interval over few windows is not too narrow, as plain percentiles are.

    Phi(-sqrt(n / (n - 1)) * t), t the 97.5 % quantile of Student's t with n - 1 degrees of freedom: the expanded percentile interval
    (Hesterberg, The American Statistician 69, 2015, section 4.3). 0.025 in the limit of many windows.
    """
    return math.erfc(math.sqrt(windows / (windows - 1)) * student_quantile(windows - 1) / math.sqrt(2)) / 2


def student_quantile(freedom: int) -> float:
    """The t that Student's distribution exceeds with probability 2.5 %: bisection on Simpson's rule over the density."""
    log_factor = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - math.log(freedom * math.pi) / 2

    def below(t: float) -> float:
        x = np.linspace(0.0, t, 2001)
        density = np.exp(log_factor - (freedom + 1) / 2 * np.log1p(x * x / freedom))
        return float(density[0] + density[-1] + 4 * density[1::2].sum() + 2 * density[2:-1:2].sum()) * t / 2000 / 3

    low, high = 0.0, 20.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) < LEVEL / 2 else (low, middle)
    return (low + high) / 2


def mean_difference(a: Floats, b: Floats, tokens: Floats, *, seed: int = 0, widened: bool = False) -> Interval:
    """B minus A per token: sum over windows of (b - a) / sum of tokens. a, b, tokens: per-window sums [windows]."""
    difference = b - a
    return bootstrap(lambda rows: difference[rows].sum(-1) / tokens[rows].sum(-1), len(tokens), seed=seed, widened=widened)


def degradation_removed(original: Floats, a: Floats, b: Floats, *, seed: int = 0) -> Interval:
    """Share of A's degradation that B removes: (nll_A - nll_B) / (nll_A - nll_original); 1 is all of it, below 0 is worse than A.

    The paper's measure (SAPR, arXiv 2504.13932, abstract), here on log-perplexity in place of accuracy. Arguments: summed nll per window.
    """
    return bootstrap(lambda rows: (a - b)[rows].sum(-1) / (a - original)[rows].sum(-1), len(a), seed=seed)
