"""Dealing out bits: which matrix gets how many, under a budget, when the cost of every width is known. Plain numbers, no torch."""

import heapq
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
    sizes = {bits: [bits * count for count in weights] for bits in WIDTHS}
    return _greedy(sizes, cost, (mean_bits - WIDTHS[0]) * sum(weights))


def allocate_within(sizes: Mapping[int, Sequence[int]], cost: Mapping[int, Sequence[float]], budget: float) -> list[int]:
    """As `allocate`, for any sizes: the widths whose sizes add up to at most `budget`.

    sizes[bits][i]: what matrix i takes at `bits`, in the unit of the budget, with scales and zero points; it grows with the width.
    Raises ConfigError for a budget below every matrix at 2 bits.
    """
    least = sum(sizes[WIDTHS[0]])
    if not budget >= least:
        raise ConfigError(f"A budget of {budget:,.0f} is less than the {least:,.0f} of every matrix at {WIDTHS[0]} bits; use more.")
    return _greedy(sizes, cost, budget - least)


def greedy_path(sizes: Mapping[int, Sequence[int]], cost: Mapping[int, Sequence[float]]) -> list[tuple[int, float]]:
    """(summed size, summed cost) after every step that `allocate_within` takes when the budget never ends, from 2 bits everywhere on."""
    size, total = sum(sizes[WIDTHS[0]]), sum(cost[WIDTHS[0]])
    found = [(size, total)]
    waiting = [_candidate(sizes, cost, index, WIDTHS[0]) for index in range(len(sizes[WIDTHS[0]]))]
    heapq.heapify(waiting)
    while waiting:
        gain, index, bits, step = heapq.heappop(waiting)
        if step == bits or gain >= 0:
            continue
        size += sizes[step][index] - sizes[bits][index]
        total += cost[step][index] - cost[bits][index]
        found.append((size, total))
        heapq.heappush(waiting, _candidate(sizes, cost, index, step))
    return found


def _candidate(sizes: Mapping[int, Sequence[int]], cost: Mapping[int, Sequence[float]], index: int, bits: int) -> tuple[float, int, int, int]:
    """(minus the gain per size, matrix, width, next width); the same width twice when there is no next one."""
    step = _next(bits)
    if step is None:
        return 0.0, index, bits, bits
    return -(cost[bits][index] - cost[step][index]) / (sizes[step][index] - sizes[bits][index]), index, bits, step


def _greedy(sizes: Mapping[int, Sequence[int]], cost: Mapping[int, Sequence[float]], left: float) -> list[int]:
    """From 2 bits everywhere, the step that takes away most cost per unit of size, as long as one fits into `left`."""
    widths = [WIDTHS[0]] * len(sizes[WIDTHS[0]])
    while True:
        best, gain = -1, 0.0
        for index, bits in enumerate(widths):
            step = _next(bits)
            if step is None or sizes[step][index] - sizes[bits][index] > left + 1e-6:
                continue
            found = (cost[bits][index] - cost[step][index]) / (sizes[step][index] - sizes[bits][index])
            if found > gain:
                best, gain = index, found
        if best < 0:
            return widths
        step = _next(widths[best])
        assert step is not None
        left -= sizes[step][best] - sizes[widths[best]][best]
        widths[best] = step


def total_cost(cost: Mapping[int, Sequence[float]], widths: Sequence[int]) -> float:
    """What an allocation costs."""
    return sum(cost[bits][index] for index, bits in enumerate(widths))


def _next(bits: int) -> int | None:
    later = [one for one in WIDTHS if one > bits]
    return later[0] if later else None
