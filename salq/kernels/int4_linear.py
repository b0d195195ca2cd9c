"""A second CPU executor: torch's own 4-bit product, for machines without onnxruntime. Scales and activations are rounded to bfloat16.

`torch.ops.aten._weight_int4pack_mm_for_cpu` multiplies by (code - 8) * scale + offset. Codes of 2 and 3 bits run in 4 bits, moved so that their
middle is 8: the offset (middle - zero_point) * scale then stays small, and so does what bfloat16 rounds off it. Anything but bfloat16 activations
would run in a scalar loop, seventeen times slower.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from salq.kernels.linear import AdaptedLinear
from salq.quant.frozen import FrozenLinear
from salq.quant.spec import QuantSpec

GROUPS = (32, 64, 128, 256)
"""Group sizes of torch's kernel."""

ROWS = 16
"""It wants a multiple of this many outputs."""

MIDDLE = 8
"""The code that stands for the offset alone."""


def refusal(frozen: FrozenLinear, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why this executor cannot run `frozen`; None when it can."""
    if device.type != "cpu":
        return f"it works on the CPU, and the model is on {device}"
    if dtype not in {torch.float32, torch.bfloat16}:
        return f"it takes float32 or bfloat16 activations, and the model computes in {str(dtype).removeprefix('torch.')}"
    if frozen.spec.bits > 4:
        return f"it holds codes of at most 4 bits, not {frozen.spec.bits}"
    out_features, in_features = frozen.codes.shape
    group = in_features // frozen.scale.shape[1]
    if group not in GROUPS:
        return f"group size {group} is none of {', '.join(map(str, GROUPS))}"
    return f"{out_features} outputs are not a multiple of {ROWS}" if out_features % ROWS else None


def describe(spec: QuantSpec) -> str:
    """What runs, in words."""
    widened = "" if spec.bits == 4 else " held in 4"
    return f"torch int4: {spec.bits}-bit codes{widened} on the CPU, activations and scales in bfloat16"


class Int4Linear(AdaptedLinear):
    """y = x @ dequantize(codes).T + scaling * (x @ lora_A.T) @ lora_B.T + bias, in the dtype of x.

    Buffers: qweight uint8 [out, in / 2] in torch's order, grid bfloat16 [groups, out, 2] (scale, offset), and those of AdaptedLinear.
    """

    qweight: Tensor
    grid: Tensor

    def __init__(self, frozen: FrozenLinear, bias: Float[Tensor, " out"] | None = None) -> None:
        """Codes are packed anew; the adapter is shared."""
        super().__init__(frozen, bias)
        self.group_size = self.in_features // frozen.scale.shape[1]
        scale = frozen.scale.float()
        middle = 2 ** (frozen.spec.bits - 1)
        offset = (middle - frozen.zero_point.float()) * scale
        self.register_buffer("qweight", torch.ops.aten._convert_weight_to_int4pack_for_cpu(frozen.codes.int() + (MIDDLE - middle), 1))
        self.register_buffer("grid", torch.stack([scale, offset], dim=-1).transpose(0, 1).contiguous().bfloat16())

    def product(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        """torch's kernel on bfloat16 rows."""
        rows = x.reshape(-1, self.in_features).bfloat16()
        output: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(rows, self.qweight, self.group_size, self.grid)
        return output.to(x.dtype).reshape(*x.shape[:-1], self.out_features)
