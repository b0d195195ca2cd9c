"""The reference executor: a linear layer that runs from codes, in plain torch, on any device.

It is the specification that faster executors must agree with. Codes are one byte each until they are packed, and the weight is dequantized
row chunk by row chunk for every call, so memory stays at one byte per weight and speed is not the point.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from salq.quant.frozen import FrozenLinear

CHUNK_WEIGHTS = 1 << 20
"""Weights dequantized at once: 4 MB in float32, which stays in a core's cache."""


class QuantLinear(nn.Module):
    """y = x @ dequantize(codes).T + scaling * (x @ lora_A.T) @ lora_B.T + bias, in the dtype of x.

    Buffers: codes uint8 [out, in], scale float16 [out, groups], zero_point uint8 [out, groups], lora_A [rank, in], lora_B [out, rank].
    """

    codes: Tensor
    scale: Tensor
    zero_point: Tensor
    lora_A: Tensor | None
    lora_B: Tensor | None
    bias: Tensor | None

    def __init__(self, frozen: FrozenLinear, bias: Float[Tensor, " out"] | None = None) -> None:
        """The tensors of `frozen` are shared, not copied."""
        super().__init__()
        self.spec, self.scaling = frozen.spec, frozen.scaling
        self.out_features, self.in_features = frozen.codes.shape
        for name in ("codes", "scale", "zero_point", "lora_A", "lora_B"):
            self.register_buffer(name, getattr(frozen, name))
        self.register_buffer("bias", None if bias is None else bias.detach())

    def forward(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        """The quantized linear on `x`."""
        rows = max(1, CHUNK_WEIGHTS // self.in_features)
        output = torch.cat([nn.functional.linear(x, self._rows(start, rows, x.dtype)) for start in range(0, self.out_features, rows)], dim=-1)
        if self.lora_A is not None and self.lora_B is not None:
            output = output + nn.functional.linear(nn.functional.linear(x, self.lora_A.to(x.dtype)), self.lora_B.to(x.dtype)) * self.scaling
        return output if self.bias is None else output + self.bias.to(x.dtype)

    def _rows(self, start: int, rows: int, dtype: torch.dtype) -> Tensor:
        """Dequantized rows [start, start + rows), in `dtype`; the arithmetic is float32 as in `quant.grid.dequantize`."""
        codes = self.codes[start : start + rows]
        groups = codes.reshape(len(codes), self.scale.shape[1], -1).float()
        zero, scale = self.zero_point[start : start + rows, :, None].float(), self.scale[start : start + rows, :, None].float()
        return groups.sub_(zero).mul_(scale).reshape(codes.shape).to(dtype)

    def extra_repr(self) -> str:
        """Shape and grid, for `print(model)`."""
        rank = 0 if self.lora_A is None else len(self.lora_A)
        return f"in_features={self.in_features}, out_features={self.out_features}, spec={self.spec.tag}, rank={rank}"
