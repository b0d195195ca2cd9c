"""Shipped settings of the Triton kernels per class of matrix. There is no tuning at run time: a first token costs one compilation, not a search."""

from pydantic import BaseModel, ConfigDict, Field

MAX_SMALL_BATCH = 8
"""Rows of x up to which the packed kernel runs; above it the weight is dequantized for cuBLAS."""

DEQUANTIZED_BYTES = 16 << 20
"""Largest piece of a weight that is dequantized at once: cuBLAS then reads it from the second-level cache of an A100 or H100 (40 and 50 MB)."""


class KernelConfig(BaseModel):
    """How `gemv_kernel` is cut for one class of matrix."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int = Field(default=4, description="Rows of the matrix per program; their scales are interleaved when the matrix is packed.")
    warps: int = Field(default=2, description="Warps per program; each takes 32 units of a row at once.")
    overlap: bool = Field(
        default=False,
        description="Start the main kernel while the one before it still runs (programmatic dependent launch, compute capability 9.0 and newer).",
    )

    @property
    def units(self) -> int:
        """Units of a tile."""
        return 32 * self.warps

    def program_rows(self, block_m: int) -> int:
        """Rows of the matrix of one program: fewer for more rows of x, whose sums need registers (4 sums per row, row of x and thread)."""
        return max(1, self.rows * 2 // max(2, block_m))


def config_for(units: int) -> KernelConfig:
    """The setting for rows of `units` units.

    Warps so that one to three tiles cover a row: all loads of a short row are on their way at once. Not tuned on a GPU yet: chosen by the registers
    of the compiled kernels, and so that the programs of a 4096 x 4096 matrix are one wave on 132 multiprocessors. `benchmarks/kernels.py --sweep`
    tries others.
    """
    return KernelConfig(warps=1 if units <= 32 else 2 if units <= 128 else 4)


def block_m(m: int) -> int:
    """Rows of x of one program: 1, 2 or 4; 5 to 8 rows take two programs, whose second reading of the words is served by the cache."""
    return 1 if m == 1 else 2 if m == 2 else 4


def register_limit(bits: int, block_m: int) -> int | None:
    """Registers of a thread of `gemv_kernel`, where the compiler's own choice is bad: on sm_80 and sm_89 it stops at 96 and spills one or two."""
    return {2: 128, 4: 104}.get(bits) if block_m == 1 else None
