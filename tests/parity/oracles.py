"""Slow float64 transcriptions of the papers' equations, written from the equations alone: loops, no salq code."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


def sigmoid(x: float) -> float:
    """1 / (1 + e^-x)"""
    return 1 / (1 + math.exp(-x))


def affine_group(values: Sequence[float], bits: int, *, symmetric: bool, upper: float, lower: float) -> tuple[list[int], float, int]:
    """Codes, scale and zero point of one group, OmniQuant eq. 2, with the range widened to hold 0."""
    top = 2**bits - 1
    high, low = sigmoid(upper) * max(values), sigmoid(lower) * min(values)
    if symmetric:
        half = 2 ** (bits - 1) - 1
        scale, zero = max(abs(high), abs(low)) / half, half
    else:
        high, low = max(high, 0.0), min(low, 0.0)
        scale = (high - low) / top
        zero = min(max(round(-low / scale), 0), top)
    codes = [min(max(round(value / scale) + zero, 0), top) for value in values]
    return codes, scale, zero


def clipped_weight(values: Sequence[float], bits: int, upper: float, lower: float, *, frozen_at: tuple[float, float]) -> list[float]:
    """The straight-through surrogate of the fake-quantized group, for finite differences.

    round(w / s) is replaced by w / s plus its rounding residue at `frozen_at`, and the zero point and the clip decisions stay as they
    are there: exactly what the straight-through estimator differentiates.
    """
    codes, scale0, zero = affine_group(values, bits, symmetric=False, upper=frozen_at[0], lower=frozen_at[1])
    top = 2**bits - 1
    high, low = max(sigmoid(upper) * max(values), 0.0), min(sigmoid(lower) * min(values), 0.0)
    scale = (high - low) / top
    result = []
    for value, code in zip(values, codes, strict=True):
        raw = round(value / scale0) + zero
        level = code - zero if not 0 <= raw <= top else value / scale + (round(value / scale0) - value / scale0)
        result.append(scale * level)
    return result


def block_loss(full: Matrix, on_quantized: Matrix, student: Matrix) -> float:
    """MSE(y_fp, y_q) + MSE(y_fp2, y_q) over all elements of [n, seq, hidden]."""
    first = second = 0.0
    for index in np.ndindex(full.shape):
        first += (full[index] - student[index]) ** 2
        second += (on_quantized[index] - student[index]) ** 2
    return (first + second) / full.size


def regularizer(
    weights: Mapping[str, Matrix],
    quantized: Mapping[str, Matrix],
    saliency: Mapping[str, Matrix] | None,
    adapters: Mapping[str, tuple[Matrix, Matrix, float]] | None,
) -> float:
    """sum over matrices of sum_ij G_ij (W_eff - W)_ij^2; adapters {name: (A, B, scaling)} make W_eff = Q(W) + scaling B A."""
    total = 0.0
    for name, weight in weights.items():
        effective = quantized[name]
        if adapters is not None:
            a, b, scaling = adapters[name]
            effective = effective + scaling * (b @ a)
        for index in np.ndindex(weight.shape):
            importance = 1.0 if saliency is None else saliency[name][index]
            total += importance * (effective[index] - weight[index]) ** 2
    return total
