// What the later lessons compute besides codes: products, singular values, the deal of bits, distributions. Float64 throughout.

/** Repeatable pseudo-random numbers: uniform() in [0, 1) and normal() with variance 1 (mulberry32, Box-Muller). */
export function random(seed) {
  let state = seed >>> 0;
  const uniform = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
  const normal = () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
  return { uniform, normal };
}

/** rows x columns from a function of (row, column). */
export const matrix = (rows, columns, of) => Array.from({ length: rows }, (_, i) => Array.from({ length: columns }, (_, j) => of(i, j)));

/** a @ b for lists of rows. */
export function product(a, b) {
  return a.map((row) => b[0].map((_, j) => row.reduce((sum, value, k) => sum + value * b[k][j], 0)));
}

/** Singular values of a matrix, descending: square roots of the eigenvalues of A A^T by Jacobi rotations. For small matrices. */
export function singularValues(a) {
  const gram = a.map((one) => a.map((other) => one.reduce((sum, value, k) => sum + value * other[k], 0))), n = gram.length;
  for (let sweep = 0; sweep < 30; sweep += 1) {
    let off = 0;
    for (let p = 0; p < n; p += 1) for (let q = p + 1; q < n; q += 1) off += gram[p][q] ** 2;
    if (off < 1e-22) break;
    for (let p = 0; p < n; p += 1) {
      for (let q = p + 1; q < n; q += 1) {
        if (Math.abs(gram[p][q]) < 1e-300) continue;
        const theta = (gram[q][q] - gram[p][p]) / (2 * gram[p][q]);
        const t = (theta < 0 ? -1 : 1) / (Math.abs(theta) + Math.hypot(theta, 1)), c = 1 / Math.hypot(t, 1), s = t * c;
        for (let k = 0; k < n; k += 1) {
          const kp = gram[k][p], kq = gram[k][q];
          gram[k][p] = c * kp - s * kq;
          gram[k][q] = s * kp + c * kq;
        }
        for (let k = 0; k < n; k += 1) {
          const pk = gram[p][k], qk = gram[q][k];
          gram[p][k] = c * pk - s * qk;
          gram[q][k] = s * pk + c * qk;
        }
      }
    }
  }
  return gram.map((row, i) => Math.sqrt(Math.max(row[i], 0))).sort((one, other) => other - one);
}

/** Share of the norm that is left when the first `rank` singular values are taken away, for every rank from 0 (Eckart and Young 1936). */
export function leftOver(values) {
  const tails = [0];
  for (let i = values.length - 1; i >= 0; i -= 1) tails.unshift(tails[0] + values[i] ** 2);
  return tails.map((tail) => Math.sqrt(tail / tails[0]));
}

export const WIDTHS = [2, 3, 4, 8];

/** salq.lessons.allocation.allocate: the step that takes away most cost per bit, while it fits. cost[bits][i]. */
export function allocate(weights, cost, meanBits) {
  const at = weights.map(() => 0), prices = [], gains = [];
  let left = meanBits - WIDTHS[0], total = 0;
  for (const one of weights) total += one;
  left *= total;
  const price = (i) => {
    const step = WIDTHS[at[i] + 1], bits = WIDTHS[at[i]];
    prices[i] = step === undefined ? Infinity : (step - bits) * weights[i];
    gains[i] = step === undefined ? 0 : (cost[bits][i] - cost[step][i]) / prices[i];
  };
  weights.forEach((_, i) => price(i));
  for (;;) {
    let best = -1, gain = 0;
    for (let i = 0; i < gains.length; i += 1) {
      if (gains[i] > gain && prices[i] <= left + 1e-6) [best, gain] = [i, gains[i]];
    }
    if (best < 0) return at.map((one) => WIDTHS[one]);
    left -= prices[best];
    at[best] += 1;
    price(best);
  }
}

/** The cheapest deal of all: every combination of widths is tried, so only for a handful of parts. */
export function cheapest(weights, cost, meanBits) {
  const room = (meanBits + 1e-9) * weights.reduce((sum, one) => sum + one, 0), chosen = weights.map(() => WIDTHS[0]);
  let best = null, lowest = Infinity;
  const deal = (i, spent, paid) => {
    if (spent > room || paid >= lowest) return;
    if (i === weights.length) [best, lowest] = [chosen.slice(), paid];
    else for (const bits of WIDTHS) deal(i + 1, spent + bits * weights[i], paid + cost[(chosen[i] = bits)][i]);
  };
  deal(0, 0, 0);
  return best;
}

/** Mean width of a weight. */
export function meanBits(weights, widths) {
  const total = weights.reduce((sum, one) => sum + one, 0);
  return weights.reduce((sum, one, i) => sum + one * widths[i], 0) / total;
}

/** What an allocation costs. */
export const totalCost = (cost, widths) => widths.reduce((sum, bits, i) => sum + cost[bits][i], 0);

/** Probabilities from logits. */
export function softmax(logits) {
  const most = Math.max(...logits), powers = logits.map((one) => Math.exp(one - most)), sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((one) => one / sum);
}

/** KL(p || q) in nats. */
export const kl = (p, q) => p.reduce((sum, one, i) => (one > 0 ? sum + one * Math.log(one / q[i]) : sum), 0);
