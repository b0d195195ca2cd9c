"""How the range of a group is chosen: all of it, or learnable weight clipping (LWC).

OmniQuant (arXiv 2308.13137) section 3.2; ApiQ and SAPR use the same quantizer.
"""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from salq.quant.frozen import FrozenLinear, freeze
from salq.quant.grid import QParams, fake_quantize, group_range, grouped, qparams_from_range
from salq.quant.size import Grid
from salq.quant.spec import QuantSpec, check_uniform

MOST = 0.9997
FRACTIONS = (MOST, *(round(0.95 - 0.05 * step, 2) for step in range(14)))
"""Of a group's range that the search for a start tries, for both ends at once; then each end alone is moved by NUDGES. A logit of 8 is the most."""
NUDGES = (0.8, 0.9, 1.1, 1.2)


class MinMax(BaseModel):
    """The full range of each group; nothing to learn."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["min_max"] = "min_max"
    grid: ClassVar[Grid] = "uniform"
    is_learnable: ClassVar[bool] = False
    has_weight: ClassVar[bool] = True
    only_bits: ClassVar[int | None] = None
    start: ClassVar[None] = None

    def check(self, spec: QuantSpec) -> None:
        """Raise ConfigError for signs: this is a uniform grid."""
        check_uniform(spec)

    def build(self, weight: Float[Tensor, "out in"], spec: QuantSpec) -> "Clipping":
        """Clipping without parameters."""
        return Clipping(weight, spec, init_logit=None)


class LWC(BaseModel):
    """Learnable weight clipping: each group's range is scaled by sigmoid(upper_logit) and sigmoid(lower_logit)."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["lwc"] = "lwc"
    grid: ClassVar[Grid] = "uniform"
    is_learnable: ClassVar[bool] = True
    has_weight: ClassVar[bool] = True
    only_bits: ClassVar[int | None] = None
    init_logit: float = Field(default=4.0, ge=-10, le=10, description="Start of both logits; sigmoid(4) = 0.982 keeps 98 % of the range.")
    start: Literal["error", "output"] | None = Field(
        default=None,
        description="error: each group's logits start where rounding changes its weights least, found by search; output: weighted by how strong "
        "their inputs are; none: at init_logit.",
    )

    def check(self, spec: QuantSpec) -> None:
        """Raise ConfigError for signs: this is a uniform grid."""
        check_uniform(spec)

    def build(self, weight: Float[Tensor, "out in"], spec: QuantSpec) -> "Clipping":
        """Clipping with two learnable logits per group, at `init_logit`."""
        return Clipping(weight, spec, init_logit=self.init_logit)


class Clipping(nn.Module):
    """Range of every group of one frozen weight, and the grid over it.

    high = sigmoid(upper_logit) * max(group),  low = sigmoid(lower_logit) * min(group)      OmniQuant eq. 2
    """

    low: Tensor
    high: Tensor

    def __init__(self, weight: Float[Tensor, "out in"], spec: QuantSpec, init_logit: float | None) -> None:
        """init_logit None: the plain range, without parameters."""
        super().__init__()
        self.spec = spec
        low, high = group_range(weight, spec)
        self.register_buffer("low", low)
        self.register_buffer("high", high)
        self.upper_logit = nn.Parameter(torch.full_like(high, init_logit)) if init_logit is not None else None
        self.lower_logit = nn.Parameter(torch.full_like(low, init_logit)) if init_logit is not None else None

    @torch.no_grad()
    def start_at_least_error(self, weight: Float[Tensor, "out in"], energy: Float[Tensor, " in"] | None = None) -> None:
        """Set every group's logits to where sum e (w_hat - w)^2 over the group is smallest among the ranges that are tried.

        energy: e, the mean square of each input, with which the sum is the output's error as far as inputs are uncorrelated; 1 if not given.

        At 2 bits that is about 0.65 of the range of 64 normal weights. Logits of 4 are 3.4 away from it: further than a short
        calibration moves them at the published learning rate.
        """
        assert self.upper_logit is not None
        assert self.lower_logit is not None
        lower, upper = torch.full_like(self.low, MOST), torch.full_like(self.high, MOST)
        least = self._error(weight, energy, lower, upper)

        def consider(new_lower: Tensor, new_upper: Tensor) -> None:
            error = self._error(weight, energy, new_lower, new_upper)
            better = error < least
            least[better], lower[better], upper[better] = error[better], new_lower[better], new_upper[better]

        for fraction in FRACTIONS[1:]:
            consider(torch.full_like(lower, fraction), torch.full_like(upper, fraction))
        for nudge in NUDGES:
            consider((lower * nudge).clamp(max=MOST), upper.clone())
        for nudge in NUDGES:
            consider(lower.clone(), (upper * nudge).clamp(max=MOST))
        self.lower_logit.copy_(lower.logit())
        self.upper_logit.copy_(upper.logit())

    def _error(self, weight: Tensor, energy: Tensor | None, lower: Tensor, upper: Tensor) -> Float[Tensor, "out groups"]:
        """Squared error of every group when this much of its range is kept."""
        rounded = fake_quantize(weight, qparams_from_range(self.low * lower, self.high * upper, self.spec), self.spec)
        squares = (rounded - weight).square_()
        return grouped(squares if energy is None else squares.mul_(energy), self.spec).sum(dim=-1)

    def qparams(self) -> QParams:
        """The grid over the clipped range, differentiable in the logits."""
        low, high = self.low, self.high
        if self.upper_logit is not None and self.lower_logit is not None:
            low, high = low * self.lower_logit.sigmoid(), high * self.upper_logit.sigmoid()
        return qparams_from_range(low, high, self.spec)

    def fake_quantize(self, weight: Float[Tensor, "out in"]) -> Float[Tensor, "out in"]:
        """`weight` on this grid, with the straight-through gradient to the logits."""
        return fake_quantize(weight, self.qparams(), self.spec)

    def freeze(self, weight: Float[Tensor, "out in"]) -> FrozenLinear:
        """Decide the codes of `weight`."""
        return freeze(weight, self.qparams(), self.spec)
