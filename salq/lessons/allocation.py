"""Dealing out bits: which matrix gets how many, under a budget, when the cost of every width is known. Plain numbers, no torch."""

from collections.abc import Mapping, Sequence

from salq.core.errors import ConfigError

WIDTHS = (2, 3, 4, 8)
"""Widths that a matrix can be given, as `QuantSpec` has them."""


def allocate(weights: Sequence[int], cost: Mapping[int, Sequence[float]], mean_bits: float) -> list[int]:
    """Width of every matrix such that the mean width of a weight is at most `mean_bits`.

    weights[i]: size of matrix i; cost[bits][i]: what rounding it to `bits` costs. Marginal analysis (Fox 1966, "Discrete optimization via
    marginal analysis"): everybody starts at 2 bits; again and again the step to a next width that takes away most cost per added bit is
    taken, while it fits. Optimal for convex costs up to the last step that does not fit. Ties: the lower index. Raises ConfigError for a
    budget below 2 bits.
    """
    if not mean_bits >= WIDTHS[0]:
        raise ConfigError(f"A budget of {mean_bits} bits per weight is less than every matrix at {WIDTHS[0]} bits; use 2 or more.")
    widths = [WIDTHS[0]] * len(weights)
    left = (mean_bits - WIDTHS[0]) * sum(weights)
    while True:
        best, gain = -1, 0.0
        for index, bits in enumerate(widths):
            step = _next(bits)
            if step is None or (step - bits) * weights[index] > left + 1e-6:
                continue
            found = (cost[bits][index] - cost[step][index]) / ((step - bits) * weights[index])
            if found > gain:
                best, gain = index, found
        if best < 0:
            return widths
        step = _next(widths[best])
        assert step is not None
        left -= (step - widths[best]) * weights[best]
        widths[best] = step


def total_cost(cost: Mapping[int, Sequence[float]], widths: Sequence[int]) -> float:
    """What an allocation costs."""
    return sum(cost[bits][index] for index, bits in enumerate(widths))


def _next(bits: int) -> int | None:
    later = [one for one in WIDTHS if one > bits]
    return later[0] if later else None
