"""The reference executor of BinaryMoS: signs, and scales that every token mixes for itself, in plain torch, on any device."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from salq.kernels.linear import CHUNK_WEIGHTS, AdaptedLinear
from salq.quant.binary_mos import FrozenMoS, mixed_scales


class SignLinear(AdaptedLinear):
    """y = s_out(x) * (sign(W) (s_in(x) * x)) + scaling * (x @ lora_A.T) @ lora_B.T + bias, in the dtype of x; see `quant.binary_mos`.

    Buffers: codes uint8 [out, in], scale_out and scale_in float16 [experts, out] and [experts, in], router float16 [experts, in], and those of
    AdaptedLinear.
    """

    codes: Tensor
    scale_out: Tensor
    scale_in: Tensor
    router: Tensor

    def __init__(self, frozen: FrozenMoS, bias: Float[Tensor, " out"] | None = None) -> None:
        """The tensors of `frozen` are shared, not copied."""
        super().__init__(frozen, bias)
        self.register_buffer("codes", frozen.codes)
        self.register_buffer("scale_out", frozen.scale.T)
        self.register_buffer("scale_in", frozen.scale_in)
        self.register_buffer("router", frozen.router)

    def product(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        """One chunk of rows after the other."""
        scale_in, scale_out = mixed_scales(x, self.router.to(x.dtype), self.scale_in.to(x.dtype), self.scale_out.to(x.dtype))
        scaled, rows = x * scale_in, max(1, CHUNK_WEIGHTS // self.in_features)
        chunks = (self.codes[start : start + rows] for start in range(0, self.out_features, rows))
        return torch.cat([nn.functional.linear(scaled, 2 * codes.to(x.dtype) - 1) for codes in chunks], dim=-1) * scale_out
