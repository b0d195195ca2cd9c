// Lesson 6: the same number of bits, dealt out unevenly. Predicted loss of a deal against the same width everywhere.

import { bars, el, number } from "./draw.js";
import { allocate, cheapest, meanBits, random, totalCost, WIDTHS } from "./linear.js";
import { moved, quantizeGroup } from "./quant.js";

const NAMES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
const SIZES = [4, 2, 2, 4, 11, 11, 11], WEIGH = [1, 3, 26, 4, 1, 2, 9];

const source = random(97);
const TOY = (() => {
  const cost = {};
  const groups = NAMES.map(() => Array.from({ length: 64 }, () => Math.fround(source.normal() * 0.05)));
  for (const bits of WIDTHS) cost[bits] = groups.map((group, i) => 0.5 * WEIGH[i] * SIZES[i] * moved(group, quantizeGroup(group, { bits })).total);
  return { names: NAMES, weights: SIZES, cost, fine: null };
})();

const packed = new WeakMap();
function real(budget) {
  if (!packed.has(budget)) {
    const blocks = budget.cost["2"].length, cost = {}, fine = {};
    for (const bits of WIDTHS) {
      cost[bits] = budget.linears.map((_, i) => budget.cost[bits].reduce((sum, row) => sum + row[i], 0));
      fine[bits] = budget.cost[bits].flat();
    }
    const weights = budget.weights.map((one) => one * blocks), each = Array.from({ length: blocks }, () => budget.weights).flat();
    packed.set(budget, { names: budget.linears.map((name) => name.split(".").pop()), weights, cost, fine: { cost: fine, weights: each } });
  }
  return packed.get(budget);
}

export const key = "budget";
export const lacks = (material) => (material.budget ? "" : "Kept for the default model only: it takes the saliency map of the whole model.");

const partsOf = (material) => (material ? real(material.budget) : TOY);

export function start(material) {
  return { mean: material ? 3.25 : 3, ...Object.fromEntries(partsOf(material).names.map((_, i) => [`w${i}`, 1])) };
}

export function controls(state, material) {
  const width = (i) => `${WIDTHS[i]} bits`;
  return [
    { kind: "range", id: "mean", label: "Budget, bits per weight", min: 2, max: 4, step: 0.25, text: (mean) => number(mean) },
    ...partsOf(material).names.map((name, i) => ({ kind: "range", id: `w${i}`, label: name, min: 0, max: 3, step: 1, text: width })),
  ];
}

const deals = new WeakMap();
function dealt(parts, mean) {
  const known = deals.get(parts) || {};
  deals.set(parts, known);
  if (!known[mean]) {
    const kinds = cheapest(parts.weights, parts.cost, mean), fine = parts.fine && allocate(parts.fine.weights, parts.fine.cost, mean);
    known[mean] = { kinds, kindCost: totalCost(parts.cost, kinds), fine, fineCost: fine && totalCost(parts.fine.cost, fine) };
  }
  return known[mean];
}

export function compute(state, material) {
  const parts = partsOf(material), widths = parts.names.map((_, i) => WIDTHS[state[`w${i}`]]), spent = meanBits(parts.weights, widths);
  const same = Math.max(...WIDTHS.filter((bits) => bits <= state.mean)), everywhere = parts.names.map(() => same);
  return {
    parts, widths, spent, over: Math.max(spent - state.mean, 0), cost: totalCost(parts.cost, widths), same, uniform: totalCost(parts.cost, everywhere),
    deal: dealt(parts, state.mean),
  };
}

export function draw(result, state, { width }) {
  const { parts, widths, spent, over, cost, same, uniform, deal } = result, drawn = [], fits = over < 1e-9;
  const total = parts.weights.reduce((sum, one) => sum + one, 0), top = 34, tall = 88;
  drawn.push(el("text", { x: 0, y: 14, class: "title", text: "Bits spent (height) on weights (width)" }));
  let x = 0;
  const room = width - 2, unit = tall / 8;
  parts.names.forEach((name, i) => {
    const wide = (parts.weights[i] / total) * room, high = widths[i] * unit;
    drawn.push(el("rect", { x: x + 1, y: top + tall - high, width: Math.max(wide - 2, 1), height: high, class: "bar now" }));
    if (wide > 58) {
      drawn.push(el("text", { x: x + wide / 2, y: top + tall + 16, class: "middle small quiet", text: name }));
      drawn.push(el("text", { x: x + wide / 2, y: top + tall - high - 5, class: "middle small", text: widths[i] }));
    }
    x += wide;
  });
  const level = top + tall - state.mean * unit;
  drawn.push(el("line", { x1: 0, x2: width, y1: level, y2: level, class: "spot" }));
  drawn.push(el("text", { x: 0, y: top + tall + 38, class: fits ? "" : "warn", text: `You spend ${number(spent)} bits per weight${fits ? "" : `, ${number(over)} over the budget`}` }));
  const rows = [
    { name: `${same} bits everywhere`, value: uniform, text: number(uniform), kind: "plain" },
    { name: "yours", value: cost, text: `${number(cost)}${fits ? "" : ", too dear"}`, kind: fits ? "now" : "cutoff", strong: true },
    { name: "dealt by kind", value: deal.kindCost, text: number(deal.kindCost), kind: "best" },
  ];
  if (deal.fine) rows.push({ name: "dealt by matrix", value: deal.fineCost, text: number(deal.fineCost), kind: "best" });
  const y = top + tall + 82;
  drawn.push(el("text", { x: 0, y: y - 12, class: "title", text: "Predicted rise of the loss" }));
  const made = bars(rows, { x: 0, y, width, most: Math.max(...rows.map((row) => row.value)), label: width < 480 ? 124 : 150 });
  return { parts: [...drawn, ...made.parts], height: y + made.height + 4 };
}

export function numbers(result, state) {
  return { spent: number(result.spent), mean: number(state.mean), cost: number(result.cost), uniform: number(result.uniform), same: result.same, best: number(result.deal.kindCost) };
}

export function summary(result) {
  const fits = result.over < 1e-9, better = result.cost < result.uniform;
  const told = fits ? `${better ? "less" : "not less"} than ${number(result.uniform)} with ${result.same} bits everywhere` : `but ${number(result.over)} bits per weight over the budget`;
  return `${number(result.spent)} bits per weight, predicted rise of the loss ${number(result.cost)}: ${told}. The best deal by kind has ${number(result.deal.kindCost)}.`;
}

export const done = (state, result) => result.over < 1e-9 && result.cost < result.uniform * 0.999;
