"""The executor of dual binarization: a linear layer that runs from two binaries per weight, in plain torch, on any device."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from salq.kernels.linear import CHUNK_WEIGHTS
from salq.quant.dual_binary import FrozenDual, dual_levels


class DualLinear(nn.Module):
    """y = x @ (scale * b1 + second_scale * b2).T + scaling * (x @ lora_A.T) @ lora_B.T + bias, in the dtype of x.

    Buffers: codes uint8 [out, in], scale and second_scale float16 [out, groups], lora_A [rank, in], lora_B [out, rank]. The weight is
    dequantized row chunk by row chunk for every call, as in `QuantLinear`.
    """

    codes: Tensor
    scale: Tensor
    second_scale: Tensor
    lora_A: Tensor | None
    lora_B: Tensor | None
    bias: Tensor | None

    def __init__(self, frozen: FrozenDual, bias: Float[Tensor, " out"] | None = None) -> None:
        """The tensors of `frozen` are shared, not copied."""
        super().__init__()
        self.spec, self.scaling = frozen.spec, frozen.scaling
        self.out_features, self.in_features = frozen.codes.shape
        for name in ("codes", "scale", "second_scale", "lora_A", "lora_B"):
            self.register_buffer(name, getattr(frozen, name))
        self.register_buffer("bias", None if bias is None else bias.detach())

    def forward(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        """The quantized linear on `x`."""
        rows = max(1, CHUNK_WEIGHTS // self.in_features)
        output = torch.cat([nn.functional.linear(x, self._rows(start, start + rows, x.dtype)) for start in range(0, self.out_features, rows)], dim=-1)
        if self.lora_A is not None and self.lora_B is not None:
            output = output + nn.functional.linear(nn.functional.linear(x, self.lora_A.to(x.dtype)), self.lora_B.to(x.dtype)) * self.scaling
        return output if self.bias is None else output + self.bias.to(x.dtype)

    def _rows(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        return dual_levels(self.codes[start:stop], self.scale[start:stop], self.second_scale[start:stop], self.spec).to(dtype)

    def extra_repr(self) -> str:
        """Shape and grid, for `print(model)`."""
        rank = 0 if self.lora_A is None else len(self.lora_A)
        return f"in_features={self.in_features}, out_features={self.out_features}, spec={self.spec.tag}, dual binary, rank={rank}"
