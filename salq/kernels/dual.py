"""The reference executor of dual binarization: a linear layer that runs from two binaries per weight, in plain torch, on any device."""

from jaxtyping import Float
from torch import Tensor

from salq.kernels.linear import QuantLinear
from salq.quant.dual_binary import dual_levels


class DualLinear(QuantLinear):
    """y = x @ (scale * b1 + second_scale * b2).T + scaling * (x @ lora_A.T) @ lora_B.T + bias, in the dtype of x.

    Built from a FrozenDual. Buffers: codes uint8 [out, in], scale and second_scale float16 [out, groups], and those of AdaptedLinear.
    """

    grid_tensors = ("scale", "second_scale")
    second_scale: Tensor

    def dequantized(self, rows: slice) -> Float[Tensor, "rows in"]:
        """The weight of some rows, in float32."""
        return dual_levels(self.codes[rows], self.scale[rows], self.second_scale[rows], self.spec)
