"""The Triton executor: a linear layer that runs from packed words on a CUDA GPU, adapters included. `linear.QuantLinear` is its specification.

Few rows of x (decoding): two launches, the packed codes are read once, nothing is dequantized to memory. Many rows (a prompt): the weight is
dequantized piece by piece into one buffer and multiplied by cuBLAS; there the weights are bit for bit those of the specification.

Agreement with a float64 product, as relative Frobenius error: 1e-3 in float16 and 8e-3 in bfloat16 (rounding of the result itself: 3e-4 and 2e-3),
5e-4 in float32 where one channel of x is 50 times the others (1e-5 without it). Results are equal from run to run.
"""

import dataclasses
import importlib.util

import torch
from jaxtyping import Float
from torch import Tensor, nn

from salq.core import settings
from salq.kernels.triton_configs import MAX_SMALL_BATCH, KernelConfig, config_for
from salq.kernels.triton_launch import Packed, Scratch, gemv, matmul, padded_rows
from salq.kernels.triton_layout import WordLayout, interleave_rows, pack_words, why_not
from salq.quant.frozen import FrozenLinear

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
MIN_CAPABILITY = (8, 0)
"""Oldest GPU: Ampere. Triton has dropped Turing (sm_75) in version 3.3."""


def refusal(frozen: FrozenLinear, device: torch.device, dtype: torch.dtype) -> str | None:
    """One sentence why this executor cannot run the matrix on `device` with x in `dtype`, or None."""
    return (
        why_not(frozen.spec.bits, frozen.codes.shape[1], frozen.spec.group_size)
        or (None if dtype in DTYPES else f"The Triton kernels take float16, bfloat16 and float32; got {str(dtype).removeprefix('torch.')}.")
        or _no_gpu(device)
        or _no_triton()
    )


def _no_gpu(device: torch.device) -> str | None:
    if device.type != "cuda":
        return f"The Triton kernels need a CUDA GPU; the device is {device}."
    if torch.version.hip is not None:
        return "The Triton kernels are tested on CUDA only; this torch is built for ROCm."
    if not torch.cuda.is_available():
        return "The Triton kernels need a CUDA GPU; none answers here."
    major, minor = torch.cuda.get_device_capability(device)
    if (major, minor) < MIN_CAPABILITY:
        return f"The Triton kernels need a GPU of compute capability 8.0 (Ampere) or newer; {torch.cuda.get_device_name(device)} has {major}.{minor}."
    return None


def _no_triton() -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "The triton package is not installed (pip install triton; it exists for Linux)."
    if settings.c_compiler() is None:
        return "Triton needs a C compiler to start a kernel; install gcc or clang, or name one in CC."
    return None


class TritonLinear(nn.Module):
    """y = x @ dequantize(codes).T + scaling * (x @ lora_A.T) @ lora_B.T + bias, in the dtype of x, from packed codes.

    Buffers: words int32 [rows, units, words] and, at 3 bits, high int16 of the same shape; scale float16 and zero_point uint8
    [blocks, groups, rows of a block] (no zero_point when all are equal); lora_A, lora_B, bias as given. `triton_layout.py` states the bytes.
    """

    words: Tensor
    high: Tensor | None
    scale: Tensor
    zero_point: Tensor | None
    lora_A: Tensor | None
    lora_B: Tensor | None
    bias: Tensor | None

    def __init__(self, frozen: FrozenLinear, bias: Float[Tensor, " out"] | None = None, config: KernelConfig | None = None) -> None:
        """Packs the codes on the device where they are. Raises ShapeError for bits or a group size without a word layout.

        `config` is for benchmarks; without one the shipped setting is taken.
        """
        super().__init__()
        self.spec, self.scaling = frozen.spec, frozen.scaling
        self.out_features, self.in_features = frozen.codes.shape
        layout = WordLayout.of(frozen.spec.bits, (self.out_features, self.in_features), frozen.spec.group_size, rows=1)
        self.config = config or config_for(layout.units)
        self.layout = dataclasses.replace(layout, rows=self.config.rows)
        words, high = pack_words(frozen.codes, self.layout)
        first = int(frozen.zero_point.flatten()[0])
        self.zero = first if bool((frozen.zero_point == first).all()) else -1
        zero_point = None if self.zero >= 0 else interleave_rows(frozen.zero_point, self.layout)
        buffers = {"words": words, "high": high, "scale": interleave_rows(frozen.scale, self.layout), "zero_point": zero_point}
        adapter = {name: None if tensor is None else tensor.contiguous() for name, tensor in (("lora_A", frozen.lora_A), ("lora_B", frozen.lora_B))}
        for name, tensor in {**buffers, **adapter, "bias": None if bias is None else bias.detach().contiguous()}.items():
            self.register_buffer(name, tensor)

    @property
    def packed(self) -> Packed:
        """The buffers as the kernels take them."""
        grid = (self.words, self.high, self.scale, self.zero_point, self.zero)
        return Packed(self.layout, self.config, *grid, self.lora_A, self.lora_B, self.scaling, self.bias)

    @torch.no_grad()
    def forward(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        """The quantized linear on `x` (float16, bfloat16 or float32). For running a model: no gradient goes through it."""
        flat = x.reshape(-1, self.in_features).contiguous()
        out = torch.empty(len(flat), self.out_features, dtype=x.dtype, device=x.device)
        with torch.cuda.device_of(flat):  # triton launches on the current device
            if 0 < len(flat) <= MAX_SMALL_BATCH:
                gemv(self.packed, flat, out, Scratch.empty(self.packed, padded_rows(len(flat)), x.device))
            elif len(flat):
                matmul(self.packed, flat, out)
        return out.reshape(*x.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        """Shape and grid, for `print(model)`."""
        return f"in_features={self.in_features}, out_features={self.out_features}, spec={self.spec.tag}, rank={self.packed.rank}"
