"""BinaryMoS: a weight is its sign, and every token mixes its own scales of rows and columns from a few scale experts.

    g(x) = softmax(R x),   s_in = S_in^T g,   s_out = S_out^T g,   y = s_out * (sign(W) (s_in * x))          BinaryMoS (arXiv 2406.12311) sec. 3.2

R [experts, in] is the router, S_in [experts, in] and S_out [experts, out] are the experts. No matrix stands for what is applied: s_in and s_out
follow the token, so what compares weights cannot be asked for. In SAPR's partial training W is frozen, and with it every sign: the experts
and the router are what is learned. Experts start alike, at the best rank-1 approximation of |W| (released code of BinaryMoS and of SAPR); what
tells them apart is the router's random start. A weight of 0 counts as +1, because one bit has no third value.
"""

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Float16, UInt8
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from salq.core.errors import ConfigError, ShapeError
from salq.quant.adapter import low_rank
from salq.quant.frozen import FrozenLinear
from salq.quant.grid import QParams
from salq.quant.size import Grid
from salq.quant.spec import SIGN_BITS, QuantSpec

NO_WEIGHT = (
    "This matrix has no weight that all tokens share, because its scales follow the token (recipe binary-mos); choose a run of another recipe."
)


class BinaryMoS(BaseModel):
    """The sign of every weight, and scale experts that a router mixes for each token (1 bit)."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["binary_mos"] = "binary_mos"
    grid: ClassVar[Grid] = "binary_mos"
    is_learnable: ClassVar[bool] = True
    has_weight: ClassVar[bool] = False
    only_bits: ClassVar[int | None] = 1
    start: ClassVar[None] = None
    experts: int = Field(default=4, ge=1, le=64, description="Scale experts per matrix; their 16-bit scales and the router count in bits per weight.")

    def check(self, spec: QuantSpec) -> None:
        """Raise ConfigError unless `spec` is one of signs."""
        if spec.bits != SIGN_BITS or spec.symmetric:
            raise ConfigError(f"A sign per weight (BinaryMoS) is 1 bit, and no symmetric grid; got {spec.tag}, use --bits 1.")

    def build(self, weight: Float[Tensor, "out in"], spec: QuantSpec) -> "ScaleExperts":
        """Learnable experts and router. Raises ConfigError for a spec that is not one of signs, ShapeError for a weight that is not finite."""
        self.check(spec)
        return ScaleExperts(weight, spec, self.experts)


def mixed_scales(
    x: Float[Tensor, "*batch in"], router: Float[Tensor, "experts in"], scale_in: Float[Tensor, "experts in"], scale_out: Float[Tensor, "experts out"]
) -> tuple[Float[Tensor, "*batch in"], Float[Tensor, "*batch out"]]:
    """(s_in, s_out) of every token, in the dtype of x; the softmax is float32 at least."""
    gates = nn.functional.linear(x, router).to(torch.promote_types(x.dtype, torch.float32)).softmax(dim=-1).to(x.dtype)
    return gates @ scale_in, gates @ scale_out


@dataclass(frozen=True)
class FrozenMoS(FrozenLinear):
    """One matrix in signs: code 1 for +1 and 0 for -1. scale holds the experts of the outputs; there is no zero point and no dequantized weight."""

    grid: ClassVar[Grid] = "binary_mos"
    has_weight: ClassVar[bool] = False
    scale: Float16[Tensor, "out experts"]
    zero_point: UInt8[Tensor, "out 0"]
    scale_in: Float16[Tensor, "experts in"] = field(kw_only=True)
    router: Float16[Tensor, "experts in"] = field(kw_only=True)

    @property
    def qparams(self) -> QParams:
        """Raises ConfigError: there is no uniform grid."""
        raise ConfigError(NO_WEIGHT)

    def dequantize(self) -> Float[Tensor, "out in"]:
        """Raises ConfigError: no matrix stands for the codes."""
        raise ConfigError(NO_WEIGHT)


class ScaleExperts(nn.Module):
    """The experts and the router of one frozen weight; experts in square roots of weight units, the router in logits per activation."""

    signs: Tensor

    def __init__(self, weight: Float[Tensor, "out in"], spec: QuantSpec, experts: int) -> None:
        """Every expert starts at the best rank-1 approximation of |W|; the router is uniform in +-1/sqrt(in), drawn on the CPU from a fixed seed."""
        super().__init__()
        if not bool(torch.isfinite(weight).all()):
            raise ShapeError("The weight holds NaN or infinite values, which no sign can represent; the model file is damaged.")
        self.spec = spec
        self.register_buffer("signs", torch.where(weight >= 0, 1.0, -1.0).to(weight.dtype))
        generator = torch.Generator().manual_seed(experts)
        rows, value, columns = low_rank(weight.abs(), 1, generator)
        root = value.sqrt()
        self.scale_in = nn.Parameter((root * columns.abs()).repeat(experts, 1))
        self.scale_out = nn.Parameter((root * rows.abs()).T.repeat(experts, 1))
        bound = 1 / math.sqrt(weight.shape[1])
        self.router = nn.Parameter(((2 * torch.rand(experts, weight.shape[1], generator=generator) - 1) * bound).to(weight))

    def product(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        """s_out * (sign(W) (s_in * x)) for every token; differentiable in the experts and the router."""
        scale_in, scale_out = mixed_scales(x, self.router, self.scale_in, self.scale_out)
        return nn.functional.linear(x * scale_in, self.signs) * scale_out

    @torch.no_grad()
    def freeze(self, weight: Float[Tensor, "out in"]) -> FrozenMoS:
        """Signs, experts and router as they are stored: float16."""
        half = torch.float16
        empty = torch.zeros(weight.shape[0], 0, dtype=torch.uint8, device=weight.device)
        codes = (weight >= 0).to(torch.uint8)
        return FrozenMoS(
            self.spec, codes, self.scale_out.T.to(half).contiguous(), empty, scale_in=self.scale_in.to(half), router=self.router.to(half)
        )
