// Lesson 2: one outlier ruins the ruler of its whole group; smaller groups cost bits.

import { el, number, scale } from "./draw.js";
import { random } from "./linear.js";
import { bitsPerWeight, levels, quantizeRow } from "./quant.js";

const source = random(5);
const TOY = Array.from({ length: 256 }, () => Math.fround(source.normal() * 0.04));
const SIZES = [16, 32, 64, 128];

export const key = "groups";

const rowOf = (material) => (material ? material.row.weights : TOY);
const sizesOf = (material) => {
  const { length } = rowOf(material);
  return [...SIZES.filter((size) => length % size === 0 && size < length), length];
};

export const start = (material) => ({ bits: 3, size: Math.max(...sizesOf(material)), outlier: material ? 1 : 6 });

export function controls(state, material) {
  const length = rowOf(material).length;
  return [
    { kind: "choice", id: "size", label: "Weights in a group", options: sizesOf(material).map((size) => [size, size === length ? `all ${size}` : String(size)]) },
    { kind: "choice", id: "bits", label: "Bits", options: [2, 3, 4].map((bits) => [bits, String(bits)]) },
    { kind: "range", id: "outlier", label: "Make the largest weight larger", min: 1, max: 12, step: 0.5, text: (times) => (times === 1 ? "as it is" : `${times} times`) },
  ];
}

export function compute(state, material) {
  const weights = rowOf(material).slice(), at = weights.reduce((best, one, i) => (Math.abs(one) > Math.abs(weights[best]) ? i : best), 0);
  weights[at] = Math.fround(weights[at] * state.outlier);
  const groups = quantizeRow(weights, state.size, { bits: state.bits }), total = groups.reduce((sum, group) => sum + group.error, 0);
  const whole = quantizeRow(weights, weights.length, { bits: state.bits })[0].error;
  return { weights, groups, total, whole, outlier: at, stored: bitsPerWeight({ bits: state.bits }, state.size), size: state.size };
}

const rms = (error, count) => Math.sqrt(error / count);

export function draw(result, state, { width }) {
  const { weights, groups, outlier } = result, count = weights.length, parts = [], tall = 180, base = 14, below = 250, floor = 96;
  const top = Math.max(...weights, 0), bottom = Math.min(...weights, 0), spare = (top - bottom) * 0.08;
  const x = scale(0, count, 2, width - 2), y = scale(bottom - spare, top + spare, base + tall, base);
  groups.forEach((group, i) => {
    const left = x(group.start), right = x(group.start + result.size);
    parts.push(el("rect", { x: left, y: base, width: right - left, height: tall, class: i % 2 ? "band odd" : "band" }));
    const lines = levels(group, state.bits).filter((value) => value >= bottom - spare && value <= top + spare);
    parts.push(el("path", { d: lines.map((value) => `M${left + 1} ${y(value).toFixed(1)}H${right - 1}`).join(""), class: "level thin" }));
  });
  parts.push(el("path", { d: weights.map((one, i) => `M${x(i + 0.5).toFixed(1)} ${y(0).toFixed(1)}V${y(one).toFixed(1)}`).join(""), class: "stem" }));
  parts.push(el("circle", { cx: x(outlier + 0.5), cy: y(weights[outlier]), r: 4.5, class: "ring" }));
  parts.push(el("text", { x: 2, y: below - 22, class: "title", text: "Root mean square move in each group" }));
  const worst = Math.max(...groups.map((group) => rms(group.error, result.size)), 1e-12), rise = scale(0, worst, 0, floor - 26);
  groups.forEach((group) => {
    const value = rms(group.error, result.size), left = x(group.start), right = x(group.start + result.size);
    const holds = outlier >= group.start && outlier < group.start + result.size, peak = below + floor - 6 - rise(value);
    parts.push(el("rect", { x: left + 1, y: peak, width: Math.max(right - left - 2, 1), height: rise(value), class: holds ? "bar now" : "bar best" }));
    if (right - left > 34) parts.push(el("text", { x: (left + right) / 2, y: peak - 5, class: "middle small", text: number(value, 2) }));
  });
  parts.push(el("line", { x1: 0, x2: width, y1: below + floor - 6, y2: below + floor - 6, class: "axis" }));
  return { parts, height: below + floor };
}

export function numbers(result, state) {
  return {
    bits: state.bits, size: result.size, stored: number(result.stored, 4), groups: result.groups.length, error: number(rms(result.total, result.weights.length)),
    whole: number(rms(result.whole, result.weights.length)), scales: 16 + state.bits,
  };
}

export function summary(result, state) {
  const times = result.whole / result.total;
  const told = result.groups.length === 1 ? "One ruler for the whole row" : `${result.groups.length} rulers; squared moves ${number(times, 2)} times smaller than with one`;
  return `${told}. ${number(result.stored, 4)} bits per weight with scales and zero points.`;
}

export const done = (state, result) => result.groups.length > 1 && result.total < result.whole / 2;
