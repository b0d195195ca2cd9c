// Lesson 4: errors travel. Relative error of the hidden state after every block, with one block kept in full precision.

import { el, line, percent, scale, ticks } from "./draw.js";
import { matrix, product, random } from "./linear.js";
import { quantizeGroup } from "./quant.js";

const source = random(41), BLOCKS = 10, WIDE = 16, TOKENS = 12;
const STACK = Array.from({ length: BLOCKS }, () => ({
  read: matrix(WIDE, WIDE, () => source.normal() / 4), write: matrix(WIDE, WIDE, () => source.normal() / 7),
}));
const START = matrix(WIDE, TOKENS, () => source.normal());

const rounded = (weight, bits) => weight.map((row) => quantizeGroup(row, { bits }).values);
const run = (block, hidden) => {
  const added = product(block.write, product(block.read, hidden).map((row) => row.map(Math.tanh)));
  return hidden.map((row, i) => row.map((one, j) => one + added[i][j]));
};
/** Mean over tokens of |h_hat - h| / |h|, as salq.lessons.travel.relative_error. */
export function apart(changed, original) {
  let sum = 0;
  for (let token = 0; token < original[0].length; token += 1) {
    let above = 0, below = 0;
    original.forEach((row, i) => {
      above += (changed[i][token] - row[token]) ** 2;
      below += row[token] ** 2;
    });
    sum += Math.sqrt(above / below);
  }
  return sum / original[0].length;
}

const known = {};
function toy(bits) {
  if (known[bits]) return known[bits];
  const changed = STACK.map((block) => ({ read: rounded(block.read, bits), write: rounded(block.write, bits) })), exact = [START];
  STACK.forEach((block) => exact.push(run(block, exact[exact.length - 1])));
  const walk = (kept) => {
    let hidden = START;
    return STACK.map((block, i) => apart((hidden = run(i === kept ? block : changed[i], hidden)), exact[i + 1]));
  };
  known[bits] = { alone: changed.map((block, i) => apart(run(block, exact[i]), exact[i + 1])), together: walk(-1), without: STACK.map((_, i) => walk(i)) };
  return known[bits];
}

export const key = "travel";
export const lacks = (material) => (Object.keys(material.travel).length ? "" : "Kept for the default model only: it takes a pass through the whole model.");
export const start = () => ({ bits: 3, kept: 0 });

const waysOf = (state, material) => (material ? material.travel[state.bits] : toy(state.bits));

export function controls(state, material) {
  const blocks = waysOf(state, material).together.length;
  return [
    { kind: "range", id: "kept", label: "Block in full precision", min: 0, max: blocks, step: 1, text: (kept) => (kept ? `block ${kept - 1}` : "none") },
    { kind: "choice", id: "bits", label: "Bits", options: [2, 3, 4].map((bits) => [bits, String(bits)]) },
  ];
}

export function compute(state, material) {
  const { alone, together, without } = waysOf(state, material), now = state.kept ? without[state.kept - 1] : together;
  return { alone, together, now, last: together[together.length - 1], lastNow: now[now.length - 1] };
}

export function draw(result, state, { width }) {
  const { alone, together, now } = result, parts = [], top = 34, floor = 252, left = 50, most = Math.max(...together, ...alone) * 1.08;
  const x = scale(0, together.length - 1, left + 6, width - 14), y = scale(0, most, floor, top);
  parts.push(el("text", { x: 0, y: 14, class: "title", text: "Relative error of the hidden state after each block" }));
  for (const value of ticks(most)) {
    parts.push(el("line", { x1: left, x2: width - 8, y1: y(value), y2: y(value), class: "grid" }));
    parts.push(el("text", { x: left - 6, y: y(value) + 4, class: "end small quiet", text: percent(value) }));
  }
  const every = Math.ceil(together.length / (width < 480 ? 6 : 12));
  together.forEach((_, i) => i % every === 0 && parts.push(el("text", { x: x(i), y: floor + 18, class: "middle small quiet", text: i })));
  parts.push(el("text", { x: width - 8, y: floor + 36, class: "end small quiet", text: "block" }));
  const points = (values) => values.map((value, i) => [x(i), y(value)]);
  parts.push(line(points(together), { class: "curve move", "stroke-dasharray": state.kept ? "6 4" : "" }));
  if (state.kept) {
    parts.push(el("line", { x1: x(state.kept - 1), x2: x(state.kept - 1), y1: top, y2: floor, class: "spot" }), line(points(now), { class: "curve saliency now" }));
  }
  points(alone).forEach(([cx, cy]) => parts.push(el("circle", { cx, cy, r: 3, class: "weight" })));
  const legend = [["curve move", "every block rounded"], ["curve saliency now", "one block in full precision"], ["dots", "only this block rounded, exact input"]];
  const beside = width > 700;
  legend.forEach(([kind, text], i) => {
    const at = beside ? i * 240 : 0, under = floor + 58 + (beside ? 0 : i * 19);
    if (kind === "dots") [4, 14, 24].forEach((shift) => parts.push(el("circle", { cx: at + shift, cy: under - 4, r: 3, class: "weight" })));
    else parts.push(el("line", { x1: at, x2: at + 28, y1: under - 4, y2: under - 4, class: kind }));
    parts.push(el("text", { x: at + 36, y: under, text }));
  });
  return { parts, height: floor + (beside ? 66 : 106) };
}

export function numbers(result, state) {
  const worst = result.alone.indexOf(Math.max(...result.alone));
  return {
    alone: percent(result.alone.reduce((sum, one) => sum + one, 0) / result.alone.length, 1), last: percent(result.last, 1), now: percent(result.lastNow, 1),
    worst, blocks: result.together.length, kept: state.kept ? `block ${state.kept - 1}` : "no block",
  };
}

export function summary(result, state) {
  const start = `After the last block the hidden state is ${percent(result.last)} off`;
  return state.kept ? `${start}; with block ${state.kept - 1} in full precision ${percent(result.lastNow)}.` : `${start}. A block alone adds ${percent(Math.max(...result.alone))} at most.`;
}

export const done = (state, result) => state.kept > 0 && result.lastNow < result.last;
