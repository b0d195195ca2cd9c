// Lesson 5: a low-rank adapter beside the matrix. What rank captures of the rounding error, seen by the weights and seen by the outputs.

import { el, line, number, percent, scale } from "./draw.js";
import { leftOver, matrix, product, random, singularValues } from "./linear.js";
import { quantizeGroup } from "./quant.js";

const source = random(67), OUT = 24, IN = 24;
const WEIGHT = matrix(OUT, IN, () => Math.fround(source.normal() * 0.05)), FACTORS = matrix(IN, 4, () => source.normal());
const INPUTS = product(FACTORS, matrix(4, 48, () => source.normal())).map((row) => row.map((one) => one + 0.25 * source.normal()));
const NOISE = singularValues(matrix(OUT, IN, () => source.normal()));

const known = {};
function toy(bits) {
  if (!known[bits]) {
    const residual = WEIGHT.map((row) => {
      const { values } = quantizeGroup(row, { bits });
      return row.map((one, j) => one - values[j]);
    });
    known[bits] = { weight: singularValues(residual), output: singularValues(product(residual, INPUTS)) };
  }
  return { ...known[bits], random: NOISE, shape: [OUT, IN] };
}

function spectrumOf(state, material) {
  if (!material) return toy(state.bits);
  const { weight, output, random: noise, shape } = material.spectrum;
  return { weight: weight[state.bits], output: output[state.bits] || null, random: noise, shape };
}

const curves = new WeakMap();
function leftOf(values) {
  if (!curves.has(values)) curves.set(values, leftOver(values));
  return curves.get(values);
}

export const key = "adapters";
export const start = () => ({ bits: 3, rank: 0, seen: "weight" });

export function controls(state, material) {
  const { weight, output } = spectrumOf(state, material);
  const seen = [["weight", "the weights"], ...(output ? [["output", "the outputs, on real inputs"]] : [])];
  return [
    { kind: "range", id: "rank", label: "Rank of the adapter", min: 0, max: Math.floor(weight.length / 2), step: 1, text: String },
    { kind: "choice", id: "seen", label: "Error of", options: material ? seen : [["weight", "the weights"], ["output", "the outputs"]] },
    { kind: "choice", id: "bits", label: "Bits", options: [2, 3, 4].map((bits) => [bits, String(bits)]) },
  ];
}

export function compute(state, material) {
  const spectrum = spectrumOf(state, material), values = state.seen === "output" && spectrum.output ? spectrum.output : spectrum.weight;
  const [out, inputs] = spectrum.shape, rank = Math.min(state.rank, values.length);
  return {
    values, left: leftOf(values), byWeight: leftOf(spectrum.weight), byOutput: spectrum.output && leftOf(spectrum.output), noise: leftOf(spectrum.random),
    rank, shape: spectrum.shape, added: (16 * rank * (out + inputs)) / (out * inputs),
  };
}

export function draw(result, state, { width }) {
  const { values, rank } = result, parts = [], left = 50, right = width - 14, count = values.length;
  const x = scale(0, count, left, right), top = 30, floor = 150, y = scale(0, values[0] * 1.05, floor, top);
  parts.push(el("text", { x: 0, y: 14, class: "title", text: `Singular values of the error of the ${state.seen === "output" ? "outputs" : "weights"}` }));
  const step = Math.max(1, Math.floor(count / 160)), edge = [];
  for (let i = 0; i < count; i += step) edge.push([x(i), y(values[i])], [x(Math.min(i + step, count)), y(values[i])]);
  const area = (points) => `M${left} ${floor}${points.map(([px, py]) => `L${px.toFixed(1)} ${py.toFixed(1)}`).join("")}L${points[points.length - 1][0].toFixed(1)} ${floor}z`;
  parts.push(el("path", { d: area(edge), class: "spectrum" }));
  const captured = edge.filter(([px]) => px <= x(rank) + 0.01);
  if (rank > 0 && captured.length) parts.push(el("path", { d: area(captured), class: "spectrum captured" }));
  parts.push(el("line", { x1: left, x2: right, y1: floor, y2: floor, class: "axis" }), el("line", { x1: x(rank), x2: x(rank), y1: top, y2: floor, class: "spot" }));
  const head = floor + 52, foot = head + 150, z = scale(0, 1, foot, head);
  parts.push(el("text", { x: 0, y: head - 16, class: "title", text: "Error that is left, by rank" }));
  for (const share of [0, 0.5, 1]) {
    parts.push(el("line", { x1: left, x2: right, y1: z(share), y2: z(share), class: "grid" }));
    parts.push(el("text", { x: left - 6, y: z(share) + 4, class: "end small quiet", text: percent(share) }));
  }
  for (let i = 0; i <= 4; i += 1) parts.push(el("text", { x: x((count * i) / 4), y: foot + 18, class: "middle small quiet", text: Math.round((count * i) / 4) }));
  const shown = [["random", result.noise, "2 4", "a random matrix"], ["move", result.byWeight, "7 4", "error of the weights"]];
  if (result.byOutput) shown.push(["saliency", result.byOutput, "", "error of the outputs"]);
  const beside = width > 620;
  shown.forEach(([name, curve, dash, text], i) => {
    const points = [];
    for (let at = 0; at <= count; at += Math.max(1, Math.floor(count / 120))) points.push([x(at), z(curve[at])]);
    parts.push(line(points, { class: `curve ${name}`, "stroke-dasharray": dash }));
    const at = beside ? i * 210 : 0, under = foot + 42 + (beside ? 0 : i * 19);
    parts.push(el("line", { x1: at, x2: at + 28, y1: under - 4, y2: under - 4, class: `curve ${name}`, "stroke-dasharray": dash }));
    parts.push(el("text", { x: at + 36, y: under, text }));
  });
  parts.push(el("circle", { cx: x(rank), cy: z(result.left[rank]), r: 6, class: "dot" }));
  return { parts, height: foot + (beside ? 50 : 90) };
}

export function numbers(result) {
  const [out, inputs] = result.shape;
  return { rank: result.rank, out, inputs, added: number(result.added), left: percent(result.left[result.rank]), noise: percent(result.noise[result.rank]) };
}

export function summary(result, state) {
  return `Rank ${result.rank}: ${percent(result.left[result.rank])} of the error of the ${state.seen === "output" ? "outputs" : "weights"} is left, ${percent(result.noise[result.rank])} for a random matrix; ${number(result.added)} bits per weight more.`;
}

export const done = (state, result) => state.seen === "output" && result.rank > 0 && result.left[result.rank] < 0.8;
