"""Starts the Triton kernels on a packed matrix: sizes, scratch memory and grids. triton itself is imported at the first launch."""

from dataclasses import dataclass
from types import ModuleType

import torch
from jaxtyping import Float, Int16, Int32, Shaped, UInt8
from torch import Tensor

from salq.kernels.triton_configs import DEQUANTIZED_BYTES, KernelConfig, block_m, register_limit
from salq.kernels.triton_layout import WordLayout

BLOCK_K = 4096
"""Inputs that a program of the adapter reads at once: one round trip to memory for most rows."""

PREPARE_WARPS = 4

ONE = 0x3F800000
"""Bits of 1.0 in float32; `triton_kernels.magic` says why it is an argument."""

OPTIONS = {"enable_fp_fusion": True}
"""Of every compilation. Multiply and add as one FFMA: said explicitly, because the default of triton changes after 3.9."""


@dataclass(frozen=True)
class Packed:
    """A matrix as the kernels read it; the picture is in `triton_layout.py`. `zero`: the zero point of every group, or -1: read `zero_point`."""

    layout: WordLayout
    config: KernelConfig
    words: Int32[Tensor, "rows units words"]
    high: Int16[Tensor, "rows units words"] | None
    scale: Float[Tensor, "blocks groups block_rows"]
    zero_point: UInt8[Tensor, "blocks groups block_rows"] | None
    zero: int
    lora_A: Float[Tensor, "rank in"] | None
    lora_B: Float[Tensor, "out rank"] | None
    scaling: float
    bias: Float[Tensor, " out"] | None

    @property
    def rank(self) -> int:
        """Rank of the adapter, 0 without one."""
        return 0 if self.lora_A is None else self.lora_A.shape[0]

    @property
    def rank_block(self) -> int:
        """`rank` rounded up to a power of two, at least 4; 0 without an adapter."""
        return max(4, 1 << (self.rank - 1).bit_length()) if self.rank else 0

    @property
    def tiles(self) -> int:
        """Tiles of a row."""
        return -(-self.layout.units // self.config.units)


def kernels() -> ModuleType:
    """The module of the kernels; raises ImportError where triton is absent."""
    from salq.kernels import triton_kernels  # the only import of triton; `refusal` has asked before

    return triton_kernels


@dataclass(frozen=True)
class Scratch:
    """What `prepare_kernel` makes of x for `rows` rows, in one float32 allocation: x' by tile, sums and biases by unit, and t of the adapter."""

    prepared: Float[Tensor, "rows inputs"]
    sums: Float[Tensor, "rows units"]
    biases: Float[Tensor, "rows units"]
    t: Float[Tensor, "rows rank_block"]

    @classmethod
    def empty(cls, packed: Packed, rows: int, device: torch.device) -> "Scratch":
        """Uninitialized. From torch's caching allocator: the same memory call after call, and right under streams and graph capture."""
        units = packed.tiles * packed.config.units
        sizes = [units * packed.layout.words * packed.layout.fields, units, units, packed.rank_block]  # each a multiple of 16 bytes
        pieces = torch.empty(rows * sum(sizes), dtype=torch.float32, device=device).split([rows * size for size in sizes])
        return cls(*(piece.reshape(rows, size) for piece, size in zip(pieces, sizes, strict=True)))


def gemv(packed: Packed, x: Float[Tensor, "m in"], out: Float[Tensor, "m out"], scratch: Scratch) -> None:
    """out = x @ dequantize(codes).T + scaling * (x @ lora_A.T) @ lora_B.T + bias, for few rows of x, in two launches.

    `scratch` has `padded_rows(m)` rows.
    """
    module, layout, config, m = kernels(), packed.layout, packed.config, len(x)
    size, program_rows = block_m(m), config.program_rows(block_m(m))
    shared = {
        "BITS": layout.bits,
        "WORDS": layout.words,
        "UNITS": config.units,
        "BLOCK_M": size,
        "ZERO": packed.zero,
        "RANK_BLOCK": packed.rank_block,
    }
    made = (scratch.prepared, scratch.sums, scratch.biases, scratch.t)
    module.prepare_kernel[(packed.tiles + packed.rank_block, len(scratch.t))](
        x, _or(packed.lora_A, x), *made, m, layout.in_features, layout.units, packed.rank, packed.scaling,
        **shared, BLOCK_K=BLOCK_K, OVERLAP=config.overlap, num_warps=PREPARE_WARPS, **OPTIONS,
    )  # fmt: skip
    module.gemv_kernel[(layout.blocks * config.rows // program_rows, len(scratch.t) // size)](
        *_matrix(packed), *made, _or(packed.lora_B, x), _or(packed.bias, x), out, m, layout.out_features, layout.units, packed.rank, ONE,
        **shared, UNITS_PER_GROUP=layout.units_per_group, BLOCK_ROWS=config.rows, ROWS=program_rows, HAS_BIAS=packed.bias is not None,
        OVERLAP=config.overlap, num_warps=config.warps, launch_pdl=config.overlap, maxnreg=register_limit(layout.bits, size), **OPTIONS,
    )  # fmt: skip


def padded_rows(m: int) -> int:
    """Rows of scratch that `gemv` needs for m rows of x: whole m blocks."""
    return -(-m // block_m(m)) * block_m(m)


def dequantize_rows(packed: Packed, first: int, out: Float[Tensor, "rows in"]) -> None:
    """Rows [first, first + len(out)) of the weight into `out`, in its dtype; `first` is a multiple of `packed.config.rows`."""
    layout, config = packed.layout, packed.config
    grid = (-(-len(out) // config.rows), packed.tiles)
    kernels().dequantize_kernel[grid](
        *_matrix(packed), out, first // config.rows, layout.in_features, layout.units, len(out), ONE,
        BITS=layout.bits, WORDS=layout.words, UNITS_PER_GROUP=layout.units_per_group, ROWS=config.rows, UNITS=config.units, ZERO=packed.zero,
        PADDED=layout.padded,        num_warps=config.warps, **OPTIONS,
    )  # fmt: skip


def matmul(packed: Packed, x: Float[Tensor, "m in"], out: Float[Tensor, "m out"]) -> None:
    """The same product for many rows of x: pieces of the weight go through one buffer, and torch (cuBLAS) multiplies."""
    layout, step = packed.layout, packed.config.rows
    rows = min(layout.out_features, max(step, DEQUANTIZED_BYTES // (layout.in_features * x.element_size()) // step * step))
    buffer = torch.empty(rows, layout.in_features, dtype=x.dtype, device=x.device)
    for first in range(0, layout.out_features, rows):
        piece = buffer[: min(rows, layout.out_features - first)]
        dequantize_rows(packed, first, piece)
        out[:, first : first + rows] = x @ piece.T
    if packed.lora_A is not None and packed.lora_B is not None:
        out.addmm_(x @ packed.lora_A.to(x.dtype).T, packed.lora_B.to(x.dtype).T, alpha=packed.scaling)
    if packed.bias is not None:
        out += packed.bias.to(x.dtype)


def _matrix(packed: Packed) -> tuple[Shaped[Tensor, "..."], ...]:
    """Pointers to the matrix; what a width or a grid does not have is stood in for by a tensor that the kernel never reads."""
    return packed.words, _or(packed.high, packed.words), packed.scale, _or(packed.zero_point, packed.words)


def _or(tensor: Tensor | None, unread: Tensor) -> Tensor:
    return unread if tensor is None else tensor
