"""The reference executor: a linear layer that runs from codes, in plain torch, on any device.

It is the specification that faster executors must agree with. Codes are one byte each until they are packed, and the weight is dequantized
row chunk by row chunk for every call, so memory stays at one byte per weight and speed is not the point. `AdaptedLinear` is what all torch executors
share: the adapter and the bias around their product.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from salq.quant.frozen import FrozenLinear

CHUNK_WEIGHTS = 1 << 20
"""Weights dequantized at once: 4 MB in float32, which stays in a core's cache."""


class AdaptedLinear(nn.Module):
    """y = product(x) + scaling * (x @ lora_A.T) @ lora_B.T + bias, in the dtype of x; a subclass brings `product`.

    Buffers: lora_A [rank, in] and lora_B [out, rank], shared with `frozen`, and bias [out]; each None where there is none.
    """

    lora_A: Tensor | None
    lora_B: Tensor | None
    bias: Tensor | None

    def __init__(self, frozen: FrozenLinear, bias: Float[Tensor, " out"] | None = None) -> None:
        """The tensors of `frozen` are shared, not copied."""
        super().__init__()
        self.spec, self.grid_kind, self.scaling = frozen.spec, frozen.grid, frozen.scaling
        self.out_features, self.in_features = frozen.codes.shape
        for name in ("lora_A", "lora_B"):
            self.register_buffer(name, getattr(frozen, name))
        self.register_buffer("bias", None if bias is None else bias.detach())

    def forward(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        """The quantized linear on `x`."""
        output = self.product(x)
        if self.lora_A is not None and self.lora_B is not None:
            output = output + nn.functional.linear(nn.functional.linear(x, self.lora_A.to(x.dtype)), self.lora_B.to(x.dtype)) * self.scaling
        return output if self.bias is None else output + self.bias.to(x.dtype)

    def product(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        """x @ quantized weight, without adapter and bias."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        """Shape and grid, for `print(model)`."""
        rank = 0 if self.lora_A is None else len(self.lora_A)
        kind = "" if self.grid_kind == "uniform" else f", {self.grid_kind}"
        return f"in_features={self.in_features}, out_features={self.out_features}, spec={self.spec.tag}{kind}, rank={rank}"


class QuantLinear(AdaptedLinear):
    """y = x @ dequantize(codes).T + scaling * (x @ lora_A.T) @ lora_B.T + bias, in the dtype of x.

    Buffers: codes uint8 [out, in], scale float16 [out, groups], zero_point uint8 [out, groups], and those of AdaptedLinear.
    """

    grid_tensors = ("scale", "zero_point")
    codes: Tensor
    scale: Tensor
    zero_point: Tensor

    def __init__(self, frozen: FrozenLinear, bias: Float[Tensor, " out"] | None = None) -> None:
        """The tensors of `frozen` are shared, not copied."""
        super().__init__(frozen, bias)
        for name in ("codes", *self.grid_tensors):
            self.register_buffer(name, getattr(frozen, name))

    def product(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        """One chunk of rows after the other."""
        rows = max(1, CHUNK_WEIGHTS // self.in_features)
        chunks = (slice(start, start + rows) for start in range(0, self.out_features, rows))
        return torch.cat([nn.functional.linear(x, self.dequantized(chunk).to(x.dtype)) for chunk in chunks], dim=-1)

    def dequantized(self, rows: slice) -> Float[Tensor, "rows in"]:
        """The weight of some rows; the arithmetic is float32 as in `quant.grid.dequantize`."""
        codes = self.codes[rows]
        groups = codes.reshape(len(codes), self.scale.shape[1], -1).float()
        return groups.sub_(self.zero_point[rows, :, None].float()).mul_(self.scale[rows, :, None].float()).reshape(codes.shape)
