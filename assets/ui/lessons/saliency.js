// Lesson 3: not every move hurts. Saliency times squared move predicts the loss; protecting by saliency beats protecting by size of move.

import { el, line, map, number, percent, scale } from "./draw.js";
import { matrix, random } from "./linear.js";
import { quantizeGroup } from "./quant.js";

const source = random(23);
const COLUMNS = Array.from({ length: 32 }, () => Math.exp(source.normal() * 1.6));
const TOY = {
  weights: matrix(16, 32, () => Math.fround(source.normal() * 0.05)),
  saliency: matrix(16, 32, (_, j) => 1e-2 * COLUMNS[j] * Math.exp(source.normal() * 1.3)),
};
const CRITERIA = { saliency: "saliency", move: "size of the move", weight: "size of the weight" };
const MOST = 0.2, STEPS = 40;

export const key = "saliency";
export const lacks = (material) => (material.patch.saliency ? "" : "No saliency map of this model is on this machine; Compute in Explore makes one.");

const patchOf = (material) => (material ? material.patch : TOY);

export const start = () => ({ bits: 3, share: 0, by: "move" });

export function controls() {
  return [
    { kind: "range", id: "share", label: "Keep in full precision", min: 0, max: MOST, step: 0.005, text: (share) => percent(share, 1) },
    { kind: "choice", id: "by", label: "Chosen by", options: Object.entries(CRITERIA) },
    { kind: "choice", id: "bits", label: "Bits", options: [2, 3, 4].map((bits) => [bits, String(bits)]) },
  ];
}

const cache = new WeakMap();
function measured(patch, bits) {
  const known = cache.get(patch) || {};
  cache.set(patch, known);
  if (!known[bits]) {
    const groups = patch.weights.map((row) => quantizeGroup(row, { bits }));
    const move = patch.weights.map((row, i) => row.map((one, j) => Math.abs(Math.fround(one) - groups[i].values[j])));
    const cost = move.map((row, i) => row.map((one, j) => 0.5 * patch.saliency[i][j] * one * one));
    const flat = { saliency: patch.saliency.flat(), move: move.flat(), weight: patch.weights.flat().map(Math.abs) }, costs = cost.flat();
    const order = {}, left = {}, total = costs.reduce((sum, one) => sum + one, 0);
    for (const name of Object.keys(CRITERIA)) {
      order[name] = costs.map((_, i) => i).sort((a, b) => flat[name][b] - flat[name][a] || a - b);
      left[name] = [1];
      let rest = total;
      for (const i of order[name]) left[name].push(Math.max((rest -= costs[i]), 0) / total);
    }
    const squares = flat.move.map((one) => one * one), allSquares = squares.reduce((sum, one) => sum + one, 0);
    known[bits] = { move, cost, order, left, total, squares, allSquares };
  }
  return known[bits];
}

export function compute(state, material) {
  const patch = patchOf(material), found = measured(patch, state.bits), count = found.squares.length, kept = Math.round(state.share * count);
  const chosen = found.order[state.by].slice(0, kept);
  const moves = 1 - chosen.reduce((sum, i) => sum + found.squares[i], 0) / found.allSquares;
  return { patch, ...found, count, kept, chosen, lossLeft: found.left[state.by][kept], moves };
}

function shares(values) {
  const logs = values.map((row) => row.map((one) => Math.log10(Math.max(one, 1e-30)))), sorted = logs.flat().sort((a, b) => a - b);
  const low = sorted[Math.floor(sorted.length * 0.02)], high = sorted[Math.ceil(sorted.length * 0.99) - 1];
  return logs.map((row) => row.map((one) => (one - low) / (high - low || 1)));
}

export function draw(result, state, { width, material }) {
  const { patch, chosen } = result, parts = [], rows = patch.weights.length, columns = patch.weights[0].length;
  const beside = width > 620, gap = 18, wide = beside ? (width - 2 * gap) / 3 : width, tall = beside ? Math.max(wide * 0.5, 96) : 96;
  if (material) parts.push(el("text", { x: 0, y: 12, class: "quiet", text: `${patch.matrix}: ${rows} groups of ${columns} weights` }));
  const head = material ? 24 : 0;
  const maps = [["Saliency", patch.saliency, "cividis"], ["Move |w − ŵ|", result.move, "viridis"], ["Saliency × move²", result.cost, "viridis"]];
  maps.forEach(([title, values, name], i) => {
    const x = beside ? i * (wide + gap) : 0, y = 20 + head + (beside ? 0 : i * (tall + 32));
    parts.push(el("text", { x, y: y - 6, class: "title", text: title }), ...map(shares(values), x, y, wide, tall, name));
    const w = wide / columns, h = tall / rows;
    const d = chosen.map((at) => `M${(x + (at % columns) * w).toFixed(1)} ${(y + Math.floor(at / columns) * h).toFixed(1)}h${w.toFixed(1)}v${h.toFixed(1)}h${(-w).toFixed(1)}z`);
    parts.push(el("path", { d: d.join(""), class: "kept" }));
  });
  const top = 20 + head + (beside ? tall : 3 * (tall + 32) - 32) + 56, floor = top + 150;
  const x = scale(0, MOST, 50, width - 22), y = scale(0, 1, floor, top);
  parts.push(el("text", { x: 0, y: top - 16, class: "title", text: "Predicted loss left, by share kept exact" }));
  for (const share of [0, 0.5, 1]) {
    parts.push(el("line", { x1: 50, x2: width - 22, y1: y(share), y2: y(share), class: "grid" }));
    parts.push(el("text", { x: 42, y: y(share) + 4, class: "end small quiet", text: percent(share) }));
  }
  for (const share of [0, 0.05, 0.1, 0.15, 0.2]) parts.push(el("text", { x: x(share), y: floor + 18, class: "middle small quiet", text: percent(share) }));
  const dashes = { saliency: "", move: "7 4", weight: "2 4" };
  Object.entries(CRITERIA).forEach(([name, told], i) => {
    const points = Array.from({ length: STEPS + 1 }, (_, step) => (MOST * step) / STEPS).map((share) => [x(share), y(result.left[name][Math.round(share * result.count)])]);
    parts.push(line(points, { class: `curve ${name}${state.by === name ? " now" : ""}`, "stroke-dasharray": dashes[name] }));
    const at = beside ? 56 + i * 190 : 0, under = floor + 40 + (beside ? 0 : i * 18);
    parts.push(el("line", { x1: at, x2: at + 26, y1: under - 4, y2: under - 4, class: `curve ${name}`, "stroke-dasharray": dashes[name] }));
    parts.push(el("text", { x: at + 34, y: under, class: state.by === name ? "strong" : "", text: `by ${told}` }));
  });
  parts.push(el("circle", { cx: x(state.share), cy: y(result.lossLeft), r: 6, class: "dot" }));
  return { parts, height: floor + (beside ? 50 : 92) };
}

export function numbers(result, state) {
  const most = result.cost.flat().reduce((best, one, i, all) => (one > all[best] ? i : best), 0), columns = result.patch.weights[0].length;
  const [i, j] = [Math.floor(most / columns), most % columns];
  return {
    fisher: number(result.patch.saliency[i][j]), move: number(result.move[i][j]), cost: number(result.cost[i][j]), total: number(result.total),
    left: number(result.total * result.lossLeft), kept: result.kept, count: result.count,
  };
}

export function summary(result, state) {
  return `${result.kept} of ${result.count} weights kept, chosen by ${CRITERIA[state.by]}: ${percent(result.lossLeft)} of the predicted loss and ${percent(result.moves)} of the squared moves are left.`;
}

export const done = (state, result) => state.by === "saliency" && result.kept > 0 && result.lossLeft < 0.6;
