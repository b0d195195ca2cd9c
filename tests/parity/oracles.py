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


def compensated_codes(weight: Matrix, scale: Matrix, zero: Matrix, bits: int, moment: Matrix, damping: float) -> NDArray[np.int64]:
    """Codes of GPTQ by its eq. 2 and 3, one weight matrix column after the other and the inverse Hessian reduced after each.

    scale, zero: of every weight, [out, in]. Columns go in descending order of the moment's diagonal.
    """
    n_out, n_in = weight.shape
    hessian = moment + damping * np.mean(np.diag(moment)) * np.eye(n_in)
    inverse, rest = np.linalg.inv(hessian), weight.copy()
    codes = np.zeros((n_out, n_in), dtype=np.int64)
    left = sorted(range(n_in), key=lambda column: (-moment[column, column], column))
    while left:
        j = left.pop(0)
        for row in range(n_out):
            codes[row, j] = min(max(round(rest[row, j] / scale[row, j]) + zero[row, j], 0), 2**bits - 1)
            error = rest[row, j] - (codes[row, j] - zero[row, j]) * scale[row, j]
            for k in left:
                rest[row, k] -= error / inverse[j, j] * inverse[j, k]
        inverse = inverse - np.outer(inverse[:, j], inverse[j, :]) / inverse[j, j]
    return codes


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


def released_zero_point(values: Sequence[float], bits: int, upper: float, lower: float) -> int:
    """The zero point of ApiQ's and SAPR's released code: the range is not widened to hold 0, so the code of 0.0 may lie outside the codes."""
    high, low = sigmoid(upper) * max(values), sigmoid(lower) * min(values)
    return round(-low / max((high - low) / (2**bits - 1), 1e-5))


def clipping_gradient(
    values: Sequence[float], bits: int, upper: float, lower: float, coefficients: Sequence[float], *, symmetric: bool
) -> tuple[float, float]:
    """d sum_i c_i w_hat_i / d (upper, lower) with the straight-through estimator, written out.

    w_hat = s (clamp(round(w / s) + z, 0, top) - z), round' = 1, z without a gradient:
    d w_hat / d s = (q - z) - w / s where nothing is clamped, and q - z where it is.
    """
    codes, scale, zero = affine_group(values, bits, symmetric=symmetric, upper=upper, lower=lower)
    top = 2**bits - 1
    by_scale = 0.0
    for value, code, coefficient in zip(values, codes, coefficients, strict=True):
        is_inside = 0 <= round(value / scale) + zero <= top
        by_scale += coefficient * (code - zero - (value / scale if is_inside else 0.0))
    slope_upper, slope_lower = (sigmoid(logit) * (1 - sigmoid(logit)) for logit in (upper, lower))
    high, low = sigmoid(upper) * max(values), sigmoid(lower) * min(values)
    if symmetric:
        half = 2 ** (bits - 1) - 1
        is_upper = abs(high) > abs(low)
        by_upper = math.copysign(1, high) * max(values) * slope_upper / half if is_upper else 0.0
        by_lower = 0.0 if is_upper else math.copysign(1, low) * min(values) * slope_lower / half
    else:
        by_upper = max(values) * slope_upper / top if high > 0 else 0.0
        by_lower = -min(values) * slope_lower / top if low < 0 else 0.0
    return by_scale * by_upper, by_scale * by_lower


def dual_binary(values: Sequence[float], alpha1: float, alpha2: float) -> tuple[list[tuple[int, int]], list[float]]:
    """DB-LLM's two binaries and the weights that they stand for."""
    binaries, weights = [], []
    for value in values:
        first = 1 if value - (alpha1 + alpha2) / 2 > 0 else 0
        second = 1 if -(value - alpha1 * first - alpha2 / 2) > 0 else 0
        binaries.append((first, second))
        weights.append(alpha1 * first + alpha2 * second)
    return binaries, weights


def dual_binary_gradient(values: Sequence[float], alpha1: float, alpha2: float, coefficients: Sequence[float]) -> tuple[float, float]:
    """d sum_i c_i w_hat_i / d (alpha1, alpha2) with H' = 1, by the chain rule on b1 and b2."""
    by_first = by_second = 0.0
    binaries, _ = dual_binary(values, alpha1, alpha2)
    for (first, second), coefficient in zip(binaries, coefficients, strict=True):
        first_by_1 = first_by_2 = -1 / 2
        second_by_1 = first + alpha1 * first_by_1
        second_by_2 = alpha1 * first_by_2 + 1 / 2
        by_first += coefficient * (first + alpha1 * first_by_1 + alpha2 * second_by_1)
        by_second += coefficient * (alpha1 * first_by_2 + second + alpha2 * second_by_2)
    return by_first, by_second


def sliced_wasserstein(student: Matrix, full: Matrix, directions: Matrix) -> float:
    """W1 between the rows of two [tokens, hidden] matrices along every column of `directions`, averaged over columns."""
    distances = []
    for column in range(directions.shape[1]):
        direction = directions[:, column] / math.sqrt(sum(x * x for x in directions[:, column]))
        ours = sorted(sum(a * b for a, b in zip(row, direction, strict=True)) for row in student)
        theirs = sorted(sum(a * b for a, b in zip(row, direction, strict=True)) for row in full)
        distances.append(sum(abs(a - b) for a, b in zip(ours, theirs, strict=True)) / len(ours))
    return sum(distances) / len(distances)


def linear_loss(inputs: Matrix, inputs_quantized: Matrix, weight: Matrix, quantized: Matrix) -> float:
    """ApiQ-lw: mean of (X W - X_q W_hat)^2, plus mean of (X_q W - X_q W_hat)^2 for the target on quantized inputs; weights are [out, in]."""
    student = inputs_quantized @ quantized.T
    return float(((inputs @ weight.T - student) ** 2).mean() + ((inputs_quantized @ weight.T - student) ** 2).mean())


def cut_saliency(saliency: Mapping[str, Matrix], quantile: float | None, *, by_mean: bool) -> dict[str, Matrix]:
    """Every matrix cut at its own quantile (the smallest value that at least that share does not exceed), then divided by the mean of all."""
    cut = dict(saliency)
    if quantile is not None:
        for name, matrix in saliency.items():
            ordered = sorted(matrix.flatten().tolist())
            cut[name] = np.minimum(matrix, ordered[math.ceil(quantile * len(ordered)) - 1])
    if by_mean:
        everything = np.concatenate([matrix.flatten() for matrix in cut.values()])
        cut = {name: matrix / everything.mean() for name, matrix in cut.items()}
    return cut


def binary_mos(x: Sequence[float], weight: Matrix, router: Matrix, scale_in: Matrix, scale_out: Matrix) -> list[float]:
    """y_o = s_out_o sum_i sign(W_oi) s_in_i x_i of one token, with s = sum_e g_e S_e and g = softmax(R x): BinaryMoS section 3.2, term by term."""
    logits = [math.fsum(float(row[i]) * x[i] for i in range(len(x))) for row in router]
    shares = [math.exp(logit - max(logits)) for logit in logits]
    gates = [share / math.fsum(shares) for share in shares]
    mixed_in = [math.fsum(gate * float(scale_in[e, i]) for e, gate in enumerate(gates)) for i in range(len(x))]
    outputs = []
    for o in range(len(weight)):
        mixed_out = math.fsum(gate * float(scale_out[e, o]) for e, gate in enumerate(gates))
        outputs.append(mixed_out * math.fsum((1.0 if weight[o, i] >= 0 else -1.0) * mixed_in[i] * x[i] for i in range(len(x))))
    return outputs
