"""How the range of a group is chosen: all of it, or learnable weight clipping (LWC).

OmniQuant (arXiv 2308.13137) section 3.2; ApiQ and SAPR use the same quantizer.
"""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from salq.quant.frozen import FrozenLinear, freeze
from salq.quant.grid import QParams, fake_quantize, group_range, qparams_from_range
from salq.quant.size import Grid
from salq.quant.spec import QuantSpec, check_uniform


class MinMax(BaseModel):
    """The full range of each group; nothing to learn."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["min_max"] = "min_max"
    grid: ClassVar[Grid] = "uniform"
    is_learnable: ClassVar[bool] = False
    has_weight: ClassVar[bool] = True

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
    init_logit: float = Field(default=4.0, ge=-10, le=10, description="Start of both logits; sigmoid(4) = 0.982 keeps 98 % of the range.")

    def check(self, spec: QuantSpec) -> None:
        """Raise ConfigError for signs: this is a uniform grid."""
        check_uniform(spec)

    def build(self, weight: Float[Tensor, "out in"], spec: QuantSpec) -> "Clipping":
        """Clipping with two learnable logits per group."""
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
