"""How much a quantized model weighs, counted down to scales, zero points and adapters. Plain integers, no tensors."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from salq.quant.spec import QuantSpec

Grid = Literal["uniform", "dual_binary", "binary_mos"]
"""How codes become weights: (code - zero_point) * scale; two binaries with a scale each; a sign, with scales that follow the token."""
SCALE_BITS = 16
ADAPTER_BITS = 16
REST_BITS = 16
"""Width at which everything that is not quantized (embeddings, norms, head) is counted, as checkpoints store it."""
MB = 1e6

PLANES: dict[int, tuple[int, ...]] = {1: (1,), 2: (2,), 3: (2, 1), 4: (4,), 8: (8,)}
"""Widths in bits of the planes that codes are stored in, low bits first: each divides a byte, so no code straddles two."""


@dataclass(frozen=True)
class SizeReport:
    """Size in the packed format (codes of exactly `bits` bits), given twice: quantized matrices alone, and the whole model.

    bits_per_weight: stored bits per quantized weight; model_bits_per_weight: stored bits per parameter of the model.
    size_mb and model_size_mb are in units of 10**6 bytes. The parts say where the bits of the quantized matrices go.
    """

    bits_per_weight: float
    size_mb: float
    model_bits_per_weight: float
    model_size_mb: float
    codes_mb: float
    scales_mb: float
    zero_points_mb: float
    adapters_mb: float


def row_bytes(count: int, width: int) -> int:
    """Bytes that `count` fields of `width` bits take, a part of a byte counted whole."""
    return -(-count * width // 8)


def packed_bytes(rows: int, count: int, bits: int) -> int:
    """Bytes of `rows` rows of `count` codes in all planes; every row starts at a byte."""
    return rows * sum(row_bytes(count, width) for width in PLANES[bits])


def matrix_bits(spec: QuantSpec, out_features: int, in_features: int, rank: int = 0, grid: Grid = "uniform", experts: int = 0) -> dict[str, int]:
    """Stored bits of one matrix by part: codes, scales, zero_points (packed in `bits` bits; none when symmetric), adapters.

    grid: "dual_binary" has two scales per group and no zero point; "binary_mos" has a scale per row and per column for each of `experts`, and a
    router of as many columns, which counts as scales. These are the sizes of the tensors in a file, to the byte
    (salq/packing/FORMAT.md).
    """
    groups = out_features * spec.groups(in_features)
    n_scales = {"uniform": groups, "dual_binary": 2 * groups, "binary_mos": experts * (out_features + 2 * in_features)}
    return {
        "codes": 8 * packed_bytes(out_features, in_features, spec.bits),
        "scales": SCALE_BITS * n_scales[grid],
        "zero_points": 0 if spec.symmetric or grid != "uniform" else 8 * packed_bytes(1, groups, spec.bits),
        "adapters": ADAPTER_BITS * rank * (out_features + in_features),
    }


def size_report(
    spec: QuantSpec | Mapping[str, QuantSpec],
    shapes: Mapping[str, tuple[int, int]],
    parameters: int,
    rank: int = 0,
    grid: Grid = "uniform",
    experts: int = 0,
) -> SizeReport:
    """Size of a model whose matrices `shapes` ({name: (out, in)}) are quantized to `spec`; `parameters` counts the whole model.

    spec: one grid for all matrices, or {name: its grid} for mixed bits.
    """
    parts = {"codes": 0, "scales": 0, "zero_points": 0, "adapters": 0}
    for name, (out_features, in_features) in shapes.items():
        own = spec if isinstance(spec, QuantSpec) else spec[name]
        for part, bits in matrix_bits(own, out_features, in_features, rank, grid, experts).items():
            parts[part] += bits
    weights = sum(out_features * in_features for out_features, in_features in shapes.values())
    total = sum(parts.values())
    model_total = total + REST_BITS * (parameters - weights)
    return SizeReport(
        bits_per_weight=total / weights,
        size_mb=total / 8 / MB,
        model_bits_per_weight=model_total / parameters,
        model_size_mb=model_total / 8 / MB,
        **{f"{part}_mb": bits / 8 / MB for part, bits in parts.items()},
    )
