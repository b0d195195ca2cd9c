"""The grid of one group of weights as plain numbers: what a picture of it needs. Imports no torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class GroupGrid:
    """The grid of one group and what it makes of the group's weights; in weight units.

    name: who chose it, such as `min/max` or a run's title. levels: ascending values that a code can stand for. codes[i]: the stored code of
    weight i. values[i]: what the model applies in place of weight i, the adapter's share adapter[i] included. scale and zero_point: None for
    a grid that is not uniform. keeps_low, keeps_high: the fraction of the group's own lowest and highest weight that the outermost levels
    reach; None where the group has no weight on that side. rank: of the adapter, 0 without one.
    """

    name: str
    levels: list[float]
    codes: list[int]
    values: list[float]
    adapter: list[float]
    scale: float | None
    zero_point: int | None
    keeps_low: float | None
    keeps_high: float | None
    rank: int = 0

    @property
    def low(self) -> float:
        """The lowest level."""
        return self.levels[0]

    @property
    def high(self) -> float:
        """The highest level."""
        return self.levels[-1]
