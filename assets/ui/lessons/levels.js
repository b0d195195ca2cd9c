// Lesson 1: a grid of levels, and what clipping its ends costs and saves.

import { bars, el, number, scale } from "./draw.js";
import { random } from "./linear.js";
import { bestClip, levels, maxCode, moved, quantizeGroup, range } from "./quant.js";

const source = random(11);
const TOY = Array.from({ length: 31 }, () => Math.fround(source.normal() * 0.05)).concat(Math.fround(0.21));
const MIN_SHARE = 0.3;

const specOf = (state) => ({ bits: state.bits, symmetric: state.symmetric === "on" });
const weightsOf = (material) => (material ? material.group.weights : TOY);

export const key = "levels";

export function start(material) {
  const weights = weightsOf(material), { high } = range(weights);
  return { bits: 2, lower: 1, upper: 1, symmetric: "off", pick: weights.findIndex((one) => Math.fround(one) === high) };
}

export function controls(state, material) {
  const share = (value) => `${Math.round(value * 100)} %`;
  return [
    { kind: "choice", id: "bits", label: "Bits", options: [2, 3, 4, 8].map((bits) => [bits, String(bits)]) },
    { kind: "range", id: "lower", label: "Keep of the low end", min: MIN_SHARE, max: 1, step: 0.01, text: share },
    { kind: "range", id: "upper", label: "Keep of the high end", min: MIN_SHARE, max: 1, step: 0.01, text: share },
    { kind: "choice", id: "symmetric", label: "Zero", options: [["off", "where the weights are"], ["on", "in the middle"]] },
    { kind: "range", id: "pick", label: "Weight to follow", min: 0, max: weightsOf(material).length - 1, step: 1, text: (i) => `no. ${i + 1}` },
  ];
}

const bests = new Map();
function best(weights, spec) {
  const name = `${weights.length} ${weights[0]} ${weights[1]} ${spec.bits} ${spec.symmetric}`;
  if (!bests.has(name)) bests.set(name, bestClip(weights, spec));
  return bests.get(name);
}

export function compute(state, material) {
  const weights = weightsOf(material), spec = specOf(state), full = range(weights);
  const group = quantizeGroup(weights, spec, state.lower, state.upper);
  const whole = moved(weights, quantizeGroup(weights, spec)).total;
  const learned = !material || spec.symmetric ? null : (material.learned || []).find((one) => one.bits === spec.bits) || null;
  return { weights, group, full, levels: levels(group, spec.bits), error: moved(weights, group), whole, best: best(weights, spec), spec, learned };
}

export function draw(result, state, { width }) {
  const { weights, group, full, error, whole, best: found } = result;
  const edge = Math.max(Math.abs(full.low), Math.abs(full.high)) * 1.1;
  const at = scale(-edge, edge, 14, width - 14), top = 30, ruler = 96, parts = [];
  parts.push(el("text", { x: 0, y: 12, class: "quiet", text: `${weights.length} weights` }));
  parts.push(el("line", { x1: 4, x2: width - 4, y1: ruler, y2: ruler, class: "axis" }));
  const seen = result.levels.filter((value) => Math.abs(value) <= edge * 1.02);
  seen.forEach((value) => parts.push(el("line", { x1: at(value), x2: at(value), y1: ruler - 11, y2: ruler + 11, class: "level" })));
  weights.forEach((one, i) => {
    const kind = group.clipped[i] ? "move cut" : "move";
    parts.push(el("line", { x1: at(one), y1: top, x2: at(group.values[i]), y2: ruler - 11, class: i === state.pick ? `${kind} picked` : kind }));
  });
  weights.forEach((one, i) => {
    if (group.clipped[i]) parts.push(el("rect", { x: at(one) - 3.4, y: top - 3.4, width: 6.8, height: 6.8, class: "weight cut" }));
    else parts.push(el("circle", { cx: at(one), cy: top, r: 3.2, class: "weight" }));
  });
  parts.push(el("circle", { cx: at(weights[state.pick]), cy: top, r: 6.5, class: "ring" }));
  for (const [name, value] of [["low", group.low], ["high", group.high]]) {
    const x = at(value), away = name === "low" ? -1 : 1;
    parts.push(el("rect", { x: away < 0 ? 0 : x, y: top - 14, width: Math.max(away < 0 ? x : width - x, 0), height: ruler - top + 28, class: "outside" }));
    parts.push(el("path", { d: `M${x} ${ruler - 26}V${ruler + 24}m-7 12h14v-9l-7 -8l-7 8z`, class: "handle" }));
  }
  const marks = [[full.low, "start"], [0, "middle"], [full.high, "end"]];
  marks.forEach(([value, anchor]) => parts.push(el("text", { x: at(value), y: ruler + 54, class: `quiet ${anchor}`, text: number(value) })));
  const rows = [
    { name: "no clipping", value: whole, text: number(whole), kind: "plain" },
    { name: "now", value: error.total, text: number(error.total), kind: "now", strong: true },
    { name: `best, ${Math.round(found.share * 100)} %`, value: found.total, text: number(found.total), kind: "best" },
  ];
  if (result.learned) {
    const { name, total, lower, upper } = result.learned;
    rows.push({ name: name.split(" ")[0] + " learned", value: total, text: `${number(total)}`, kind: "plain" });
    for (const x of [at(full.low * lower), at(full.high * upper)]) {
      parts.push(el("path", { d: `M${x} ${ruler - 15}l5 -9h-10z`, class: "learned" }));
    }
  }
  const label = width < 480 ? 92 : 130, most = Math.max(...rows.map((row) => row.value)), y = ruler + 88;
  parts.push(el("text", { x: 0, y: y - 12, class: "title", text: "Squared moves, added up" }));
  const made = bars(rows, { x: 0, y, width, most, label });
  parts.push(...made.parts);
  if (error.cut > 0) {
    const long = (width - label - 84) / most;
    parts.push(el("rect", { x: label + error.rounding * long, y: y + 28, width: Math.max(error.cut * long, 1), height: 20, class: "bar cutoff" }));
  }
  parts.push(el("rect", { x: label, y: y + made.height + 4, width: 11, height: 11, class: "bar now" }));
  parts.push(el("text", { x: label + 17, y: y + made.height + 14, class: "quiet", text: "rounded to a level" }));
  parts.push(el("rect", { x: label + 150, y: y + made.height + 4, width: 11, height: 11, class: "bar cutoff" }));
  parts.push(el("text", { x: label + 167, y: y + made.height + 14, class: "quiet", text: "cut off" }));
  const drag = (x, over, held) => {
    const low = at(group.low), high = at(group.high);
    const name = held || (over > ruler + 60 ? null : Math.abs(x - low) < 26 && Math.abs(x - low) <= Math.abs(x - high) ? "lower" : Math.abs(x - high) < 26 ? "upper" : null);
    if (!name) return null;
    const value = -edge + ((x - 14) / (width - 28)) * 2 * edge, end = name === "lower" ? full.low : full.high;
    const share = Math.min(Math.max(value / (end || 1), MIN_SHARE), 1);
    return { name, state: { [name]: Math.round(share * 100) / 100 } };
  };
  return { parts, height: y + made.height + 22, drag };
}

export function numbers(result, state) {
  const { group, weights, spec } = result, i = state.pick, most = maxCode(spec.bits);
  return {
    low: number(group.low), high: number(group.high), bits: spec.bits, most, scale: number(group.scale, 4), zero: group.zero,
    weight: number(weights[i], 4), code: group.codes[i], value: number(group.values[i], 4), step: number(group.scale, 3),
    move: number(Math.abs(weights[i] - group.values[i])),
  };
}

export function summary(result, state) {
  const { group, error, whole, spec } = result, cut = group.clipped.filter(Boolean).length;
  const change = error.total <= whole ? `${Math.round((1 - error.total / whole) * 100)} % less` : `${Math.round((error.total / whole - 1) * 100)} % more`;
  const clip = state.lower === 1 && state.upper === 1 ? "Nothing is clipped" : `${cut} of ${result.weights.length} weights cut off, squared moves ${change} than without clipping`;
  const told = result.learned ? ` Green triangles: the ends that ${result.learned.name} learned, ${keeps(result.learned)}; it looked at outputs, not at these moves.` : "";
  return `${2 ** spec.bits} levels, ${number(group.scale)} apart. ${clip}.${told}`;
}

const keeps = ({ lower, upper }) => `${Math.round(lower * 100)} % of the low and ${Math.round(upper * 100)} % of the high end`;

/** Near the best clip, and clearly better than none; at 3 bits and more there is little to win. */
export const done = (state, { error, best: found, whole }) => error.total <= found.total * 1.3 && error.total < whole * 0.8;
