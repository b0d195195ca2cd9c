"""A finished quantized matrix: its codes, its grid and its adapter. What calibration yields and every executor runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Float16, UInt8
from torch import Tensor

from salq.quant.grid import QParams, dequantize, min_max_qparams, quantize
from salq.quant.size import Grid
from salq.quant.spec import QuantSpec


@dataclass(frozen=True)
class FrozenLinear:
    """One matrix in codes. `bias` is the model's own, unquantized; adapters are None when the recipe has none.

    `grid` says how codes become weights; this class is the uniform one, (code - zero_point) * scale. What can only read that one
    (a packed format, a kernel) asks for `grid` first.
    """

    grid: ClassVar[Grid] = "uniform"
    has_weight: ClassVar[bool] = True
    """Whether one matrix stands for what is applied to every token; where none does, asking for it raises ConfigError."""
    spec: QuantSpec
    codes: UInt8[Tensor, "out in"]
    scale: Float16[Tensor, "out groups"]
    zero_point: UInt8[Tensor, "out groups"]
    lora_A: Float16[Tensor, "rank in"] | None = None
    lora_B: Float16[Tensor, "out rank"] | None = None
    scaling: float = 1.0

    @property
    def qparams(self) -> QParams:
        """The grid in float32."""
        return QParams(self.scale.float(), self.zero_point.float())

    @property
    def rank(self) -> int:
        """Rank of the adapter, 0 without one."""
        return 0 if self.lora_A is None else self.lora_A.shape[0]

    def dequantize(self) -> Float[Tensor, "out in"]:
        """The weight that the codes stand for, without the adapter, in float32."""
        return dequantize(self.codes, self.qparams, self.spec)

    def effective_weight(self) -> Float[Tensor, "out in"]:
        """The weight that the model effectively applies: codes plus scaling * lora_B @ lora_A, in float32."""
        weight = self.dequantize()
        if self.lora_A is not None and self.lora_B is not None:
            weight = weight + self.scaling * self.lora_B.float() @ self.lora_A.float()
        return weight

    def to(self, device: torch.device) -> "FrozenLinear":
        """The same matrix on another device."""
        moved: dict[str, Any] = {name: tensor.to(device) for name, tensor in self._own_tensors().items()}
        return replace(self, **moved)

    def tensors(self) -> dict[str, Tensor]:
        """Named tensors for a safetensors file; `from_tensors` with the same spec and scaling is the inverse."""
        return {name: tensor.contiguous().cpu() for name, tensor in self._own_tensors().items()}

    @classmethod
    def from_tensors(cls, spec: QuantSpec, tensors: Mapping[str, Tensor], scaling: float) -> "FrozenLinear":
        """Inverse of `tensors`. Raises TypeError when one is missing."""
        named: dict[str, Any] = {field.name: tensors[field.name] for field in fields(cls) if field.name in tensors}
        return cls(spec=spec, scaling=scaling, **named)

    def _own_tensors(self) -> dict[str, Tensor]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}


def freeze(weight: Float[Tensor, "out in"], qparams: QParams, spec: QuantSpec) -> FrozenLinear:
    """Decide the codes, once. The scale is rounded to float16, as it is stored, before the codes are taken with it."""
    stored = QParams(qparams.scale.detach().to(torch.float16), qparams.zero_point.detach())
    codes = quantize(weight.detach(), QParams(stored.scale.float(), stored.zero_point), spec)
    return FrozenLinear(spec, codes, stored.scale, stored.zero_point.to(torch.uint8))


def rtn(weight: Float[Tensor, "out in"], spec: QuantSpec) -> FrozenLinear:
    """Rounding to nearest on the full range of each group: the baseline that needs no data."""
    return freeze(weight, min_max_qparams(weight, spec), spec)


def merged(linears: Sequence[FrozenLinear]) -> FrozenLinear:
    """Linears of one grid and one input as a single one, their outputs side by side.

    The adapters become lora_A of all ranks one below the other and a block-diagonal lora_B, in float16 with each `scaling` in it when they differ.
    """
    first = linears[0]
    if len(linears) == 1:
        return first
    codes, scale, zero_point = (torch.cat([getattr(linear, name) for linear in linears]) for name in ("codes", "scale", "zero_point"))
    adapters = [linear for linear in linears if linear.rank]
    if not adapters:
        return FrozenLinear(first.spec, codes, scale, zero_point)
    scaling = adapters[0].scaling
    downs, ups = [], []
    for linear in linears:
        lora_A, lora_B = linear.lora_A, linear.lora_B
        downs.append(codes.new_zeros(0, codes.shape[1], dtype=torch.float16) if lora_A is None else lora_A)
        ups.append(codes.new_zeros(len(linear.codes), 0, dtype=torch.float16) if lora_B is None else lora_B * (linear.scaling / scaling))
    return FrozenLinear(first.spec, codes, scale, zero_point, torch.cat(downs), torch.block_diag(*ups).to(torch.float16), scaling)
