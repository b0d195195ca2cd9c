// The arithmetic of salq.quant in the browser, bit for bit: float32 where salq has float32, float16 for stored scales, ties to even.
// tests/browser/test_lessons.py compares codes, scales, zero points and errors with salq.quant on random groups.

export const MIN_SCALE = 2 ** -17;
const f32 = Math.fround;

/** Nearest integer, ties to even, as torch.round. */
export function nearest(value) {
  const below = Math.floor(value), rest = value - below;
  if (rest !== 0.5) return Math.round(value);
  return below % 2 === 0 ? below : below + 1;
}

/** Nearest float16 (ties to even), as a stored scale is. */
export function half(value) {
  const size = Math.abs(value);
  if (size === 0 || !Number.isFinite(value)) return value;
  if (size >= 65520) return Math.sign(value) * Infinity;
  let exponent = Math.floor(Math.log2(size));
  if (2 ** exponent > size) exponent -= 1;
  if (2 ** (exponent + 1) <= size) exponent += 1;
  const step = 2 ** (Math.max(exponent, -14) - 10);
  return Math.sign(value) * nearest(size / step) * step;
}

/** Largest code. */
export const maxCode = (bits) => 2 ** bits - 1;

/** {low, high} of a group in float32. */
export function range(weights) {
  let low = Infinity, high = -Infinity;
  for (const one of weights) {
    const value = f32(one);
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return { low, high };
}

/** {scale, zero} that cover [low, high]: salq.quant.grid.qparams_from_range; the scale is not rounded to float16 yet. */
export function qparams(low, high, { bits, symmetric = false }) {
  if (symmetric) {
    const steps = 2 ** (bits - 1) - 1;
    return { scale: Math.max(f32(Math.max(Math.abs(low), Math.abs(high)) / steps), MIN_SCALE), zero: steps };
  }
  const bottom = Math.min(low, 0), top = Math.max(high, 0), most = maxCode(bits);
  const scale = Math.max(f32(f32(top - bottom) / most), MIN_SCALE);
  const zero = Math.min(Math.max(nearest(f32(-bottom / scale)), 0), most);
  return { scale, zero };
}

/**
 * One group in codes, as salq.quant.frozen.freeze decides them, with its range scaled by `lower` and `upper` (learnable clipping has
 * sigmoid(logit) there). Returns codes, the stored scale, the zero point, what the codes stand for, and which weights were cut off.
 */
export function quantizeGroup(weights, spec, lower = 1, upper = 1) {
  const full = range(weights);
  const low = f32(full.low * f32(lower)), high = f32(full.high * f32(upper));
  const grid = qparams(low, high, spec), scale = half(grid.scale), zero = grid.zero, most = maxCode(spec.bits);
  const codes = [], values = [], clipped = [];
  for (const one of weights) {
    const wanted = nearest(f32(f32(one) / scale)) + zero, code = Math.min(Math.max(wanted, 0), most);
    codes.push(code);
    values.push(f32((code - zero) * scale));
    clipped.push(code !== wanted);
  }
  return { codes, values, clipped, scale, zero, low, high, exact: grid.scale };
}

/** The values that a weight can take, ascending. */
export function levels({ scale, zero }, bits) {
  return Array.from({ length: 2 ** bits }, (_, code) => f32((code - zero) * scale));
}

/** Sums of squared moves: of weights that were cut off, of all others, and both; in float64. */
export function moved(weights, group) {
  let cut = 0, rounding = 0;
  weights.forEach((one, i) => {
    const square = (f32(one) - group.values[i]) ** 2;
    if (group.clipped[i]) cut += square;
    else rounding += square;
  });
  return { cut, rounding, total: cut + rounding };
}

/** The share of the range, from 0.3 to 1 in steps of 0.01 on both sides, whose sum of squared moves is smallest. */
export function bestClip(weights, spec) {
  let best = { share: 1, total: Infinity };
  for (let percent = 100; percent >= 30; percent -= 1) {
    const share = percent / 100, { total } = moved(weights, quantizeGroup(weights, spec, share, share));
    if (total < best.total) best = { share, total };
  }
  return best;
}

/** A row in consecutive groups of `size`: each as quantizeGroup gives it, with start and its sum of squared moves. */
export function quantizeRow(weights, size, spec) {
  const groups = [];
  for (let start = 0; start < weights.length; start += size) {
    const part = weights.slice(start, start + size), group = quantizeGroup(part, spec);
    groups.push({ ...group, start, error: moved(part, group).total });
  }
  return groups;
}

/** Stored bits per weight: the code, and its share of a 16-bit scale and a zero point; salq.quant.size counts the same. */
export function bitsPerWeight({ bits, symmetric = false }, size) {
  return bits + (16 + (symmetric ? 0 : bits)) / size;
}

/** |w - w_hat| / |w|. */
export function relativeError(weights, values) {
  let above = 0, below = 0;
  weights.forEach((one, i) => {
    above += (f32(one) - values[i]) ** 2;
    below += f32(one) ** 2;
  });
  return Math.sqrt(above / below);
}
