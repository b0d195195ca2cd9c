"""The group-wise uniform affine grid: weights to codes and back.

Everything else (error, size, packed words, the running model) is derived from the codes made here; nothing re-derives codes from a
dequantized weight. Equations: OmniQuant (arXiv 2308.13137) eq. 2, ApiQ (arXiv 2402.05147) section 3.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from salq.core.errors import ShapeError
from salq.quant.spec import QuantSpec, check_uniform

MIN_SCALE = 2.0**-17
"""Smallest scale (7.6e-6). The released code clamps at 1e-5; a power of two, exact in float16, keeps the stored scale equal to the used one."""


class QParams(NamedTuple):
    """`scale` > 0 in weight units and `zero_point`, an integer in [0, max_code] kept as a float; both [out, groups]."""

    scale: Float[Tensor, "out groups"]
    zero_point: Float[Tensor, "out groups"]


def grouped(weight: Float[Tensor, "out in"], spec: QuantSpec) -> Float[Tensor, "out groups group"]:
    """View a weight group by group. Raises ShapeError when the group size does not divide `in`."""
    out_features, in_features = weight.shape
    size = spec.group_size or in_features
    if in_features % size:
        raise ShapeError(f"in_features {in_features} is not a multiple of group size {size}.")
    return weight.reshape(out_features, in_features // size, size)


def group_range(weight: Float[Tensor, "out in"], spec: QuantSpec) -> tuple[Float[Tensor, "out groups"], Float[Tensor, "out groups"]]:
    """(min, max) of every group in float32. Raises ShapeError for NaN or infinite weights: they have no code."""
    groups = grouped(weight.float(), spec)
    low, high = groups.amin(dim=-1), groups.amax(dim=-1)
    if not bool(torch.isfinite(low).all() & torch.isfinite(high).all()):
        raise ShapeError("The weight holds NaN or infinite values, which no grid can represent; the model file is damaged.")
    return low, high


def qparams_from_range(low: Float[Tensor, "out groups"], high: Float[Tensor, "out groups"], spec: QuantSpec) -> QParams:
    """Scale and zero point that cover [low, high].

    asymmetric: scale = (high - low) / max_code, zero_point = round(-low / scale)
    symmetric:  scale = max(|low|, |high|) / (2**(bits-1) - 1), zero_point = 2**(bits-1) - 1 (level max_code is never reached)

    The asymmetric range is widened to hold 0, so that 0 <= zero_point <= max_code always and 0.0 has a code (GPTQ does this). The released
    ApiQ code only clamps the zero point to +-1e4, which packed zero points cannot hold. A group of equal weights gets MIN_SCALE or the
    range from 0 to its value. Differentiable in low and high through `scale`; the zero point is rounded without a gradient, as released.
    Raises ConfigError for 1 bit.
    """
    check_uniform(spec)
    if spec.symmetric:
        half = 2 ** (spec.bits - 1) - 1
        scale = (torch.maximum(low.abs(), high.abs()) / half).clamp(min=MIN_SCALE)
        return QParams(scale, torch.full_like(scale, float(half)))
    low, high = low.clamp(max=0.0), high.clamp(min=0.0)
    scale = ((high - low) / spec.max_code).clamp(min=MIN_SCALE)
    zero_point = (-low / scale).detach().round().clamp(0, spec.max_code)
    return QParams(scale, zero_point)


def min_max_qparams(weight: Float[Tensor, "out in"], spec: QuantSpec) -> QParams:
    """The grid over each group's full range: rounding to nearest (RTN) without clipping."""
    return qparams_from_range(*group_range(weight, spec), spec)


def quantize(weight: Float[Tensor, "out in"], qparams: QParams, spec: QuantSpec) -> UInt8[Tensor, "out in"]:
    """Nearest code of every weight, group by group.

    codes = clamp(round(weight / scale) + zero_point, 0, max_code)      OmniQuant eq. 2

    Ties round to even. Computed in float32 for any weight dtype.
    """
    groups = grouped(weight.float(), spec)
    codes = (groups / qparams.scale.unsqueeze(-1)).round_() + qparams.zero_point.unsqueeze(-1)
    return codes.clamp_(0, spec.max_code).to(torch.uint8).reshape(weight.shape)


def dequantize(codes: UInt8[Tensor, "out in"], qparams: QParams, spec: QuantSpec) -> Float[Tensor, "out in"]:
    """(codes - zero_point) * scale, in float32."""
    groups = grouped(codes.float(), spec)
    return ((groups - qparams.zero_point.unsqueeze(-1)) * qparams.scale.unsqueeze(-1)).reshape(codes.shape)


class _FakeQuantize(torch.autograd.Function):
    """quantize then dequantize; the straight-through gradient with respect to the weight and the scale.

    With t = w / s inside the clip range:  d w_hat / d s = (q - z) - t   (LSQ, arXiv 1902.08153 eq. 3),  d w_hat / d w = 1
    and outside it:                        d w_hat / d s = (q - z),                                     d w_hat / d w = 0.
    One saved tensor per input that wants a gradient, instead of the six that autograd would keep.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, scale: Tensor, zero_point: Tensor, max_code: int) -> Tensor:
        ratio, zero = weight / scale.unsqueeze(-1), zero_point.unsqueeze(-1)
        unclamped = ratio.round().add_(zero)
        level = unclamped.clamp(0, max_code)
        inside = unclamped.eq_(level)  # 1 or 0, in place: this runs in every step of a calibration and is bound by memory
        level.sub_(zero)
        by_scale = torch.addcmul(level, ratio, inside, value=-1) if ctx.needs_input_grad[1] else None
        ctx.save_for_backward(inside.bool() if ctx.needs_input_grad[0] else None, by_scale)
        return level.mul_(scale.unsqueeze(-1))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        inside, by_scale = ctx.saved_tensors
        grad_weight = grads[0] * inside if inside is not None else None
        grad_scale = (grads[0] * by_scale).sum(-1) if by_scale is not None else None
        return grad_weight, grad_scale, None, None


def fake_quantize(weight: Float[Tensor, "out in"], qparams: QParams, spec: QuantSpec) -> Float[Tensor, "out in"]:
    """`dequantize(quantize(weight))`, bit for bit, with the straight-through gradient to weight and scale. Computed in the weight's dtype."""
    groups = grouped(weight, spec)
    result: Tensor = _FakeQuantize.apply(groups, qparams.scale, qparams.zero_point, spec.max_code)  # type: ignore[no-untyped-call]
    return result.reshape(weight.shape)
