"""DB-LLM's dual binarization: a weight is the sum of two binaries, each with a learnable scale per group.

    b1 = H(w - (alpha1 + alpha2) / 2),  b2 = H(-(w - alpha1 b1 - alpha2 / 2)),  w_hat = alpha1 b1 + alpha2 b2

DB-LLM (arXiv 2402.11960) section 3.2, in the form of SAPR's released code: alpha1 = max|w| and alpha2 = -max|w| / 2 at the start, and the
derivative of H is 1 (straight-through). The levels {alpha2, 0, alpha1 + alpha2, alpha1} are evenly spaced only while alpha1 = -2 alpha2, so
a trained group has no zero point and no single scale: its two scales are stored, and the code of a weight is its two binaries.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Float16, UInt8
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from salq.core.errors import ConfigError
from salq.quant.frozen import FrozenLinear
from salq.quant.grid import MIN_SCALE, QParams, group_range, grouped
from salq.quant.size import Grid
from salq.quant.spec import QuantSpec


class DualBinary(BaseModel):
    """Two binaries per weight, each with a learnable scale per group (2 bits)."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["dual_binary"] = "dual_binary"
    grid: ClassVar[Grid] = "dual_binary"
    is_learnable: ClassVar[bool] = True
    has_weight: ClassVar[bool] = True
    only_bits: ClassVar[int | None] = 2
    start: ClassVar[None] = None

    def check(self, spec: QuantSpec) -> None:
        """Raise ConfigError unless `spec` can be two binaries."""
        if spec.bits != 2 or spec.symmetric:  # noqa: PLR2004 - two binaries
            raise ConfigError(f"Dual binarization has two binaries per weight, so 2 bits and no symmetric grid; got {spec.tag}, use --bits 2.")

    def build(self, weight: Float[Tensor, "out in"], spec: QuantSpec) -> "DualScales":
        """Two learnable scales per group. Raises ConfigError for a grid that is not one of two bits."""
        self.check(spec)
        return DualScales(weight, spec)


@dataclass(frozen=True)
class FrozenDual(FrozenLinear):
    """One matrix in two binaries: code = 2 * b1 + b2, weight = scale * b1 + second_scale * b2; there is no zero point."""

    grid: ClassVar[Grid] = "dual_binary"
    zero_point: UInt8[Tensor, "out 0"]
    second_scale: Float16[Tensor, "out groups"] = field(kw_only=True)

    @property
    def qparams(self) -> QParams:
        """Raises ConfigError: this grid has no zero point."""
        raise ConfigError("This matrix is two binaries (recipe db-llm), which has no uniform grid; choose a run of another recipe for this.")

    def dequantize(self) -> Float[Tensor, "out in"]:
        """The weight that the codes stand for, without the adapter, in float32."""
        return dual_levels(self.codes, self.scale, self.second_scale, self.spec)


def dual_levels(
    codes: UInt8[Tensor, "out in"], scale: Float[Tensor, "out groups"], second_scale: Float[Tensor, "out groups"], spec: QuantSpec
) -> Float[Tensor, "out in"]:
    """scale * b1 + second_scale * b2 of the codes 2 * b1 + b2, in float32."""
    groups = grouped(codes.float(), spec)
    first = (groups >= 2).float()  # noqa: PLR2004 - the upper of two bits
    second = groups - 2 * first
    return (first * scale.float().unsqueeze(-1) + second * second_scale.float().unsqueeze(-1)).reshape(codes.shape)


class DualScales(nn.Module):
    """The two scales of every group of one frozen weight, learnable in units of the weight."""

    def __init__(self, weight: Float[Tensor, "out in"], spec: QuantSpec) -> None:
        """alpha1 = max|w|, alpha2 = -max|w| / 2 of each group: the evenly spaced levels -s, 0, s, 2s with s = max|w| / 2."""
        super().__init__()
        self.spec = spec
        low, high = group_range(weight, spec)
        step = (torch.maximum(low.abs(), high.abs()) / 2).clamp(min=MIN_SCALE)
        self.alpha1 = nn.Parameter(2 * step)
        self.alpha2 = nn.Parameter(-step)

    def fake_quantize(self, weight: Float[Tensor, "out in"]) -> Float[Tensor, "out in"]:
        """The two binaries' sum, with the straight-through gradient to both scales."""
        alpha1, alpha2 = self.alpha1.unsqueeze(-1), self.alpha2.unsqueeze(-1)
        first, second = _binaries(grouped(weight, self.spec), alpha1, alpha2)
        return (alpha1 * first + alpha2 * second).reshape(weight.shape)

    @torch.no_grad()
    def freeze(self, weight: Float[Tensor, "out in"]) -> FrozenDual:
        """Decide the binaries with the scales rounded to float16, as they are stored."""
        alpha1, alpha2 = self.alpha1.half(), self.alpha2.half()
        first, second = _binaries(grouped(weight.float(), self.spec), alpha1.float().unsqueeze(-1), alpha2.float().unsqueeze(-1))
        codes = (2 * first + second).to(torch.uint8).reshape(weight.shape)
        empty = torch.zeros(weight.shape[0], 0, dtype=torch.uint8, device=weight.device)
        return FrozenDual(self.spec, codes, alpha1, empty, second_scale=alpha2)


def _binaries(groups: Tensor, alpha1: Tensor, alpha2: Tensor) -> tuple[Tensor, Tensor]:
    first = _step(groups - (alpha1 + alpha2) / 2)
    return first, _step(-(groups - alpha1 * first - alpha2 / 2))


class _Heaviside(torch.autograd.Function):
    """1 for x > 0, else 0; the derivative is 1 everywhere (straight-through)."""

    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(_: Any, *grads: Tensor) -> Tensor:
        return grads[0]


def _step(x: Tensor) -> Tensor:
    result: Tensor = _Heaviside.apply(x)  # type: ignore[no-untyped-call]
    return result
