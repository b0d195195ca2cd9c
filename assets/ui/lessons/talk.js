// Lesson 7: does it talk the same? The next-token distribution of both models: KL, agreement, and what else was likely.

import { colour, el, html, number, percent } from "./draw.js";
import { kl, random, softmax } from "./linear.js";

const WORDS = ["Paris", "Lyon", "a", "the", "known", "Marseille"], LOGITS = [5.2, 3.1, 2.4, 2.2, 1.6, 1.1];
const source = random(3), SHAKE = [-1.15, 0.95, 0.3, -0.2, 0.5, source.normal() * 0.3];

export const key = "talk";
export const lacks = (material) => (material.talk ? "" : "Kept for the default model only; Compare lets any two models talk.");

export const start = (material) => (material ? { side: Object.keys(material.talk.sides)[0], token: 0, guess: "" } : { shake: 0.3 });

export function controls(state, material) {
  if (!material) return [{ kind: "range", id: "shake", label: "Error in the scores of the words", min: 0, max: 3, step: 0.05, text: (value) => number(value) }];
  const { sides, tokens } = material.talk;
  return [
    { kind: "choice", id: "side", label: "Quantized model", options: Object.keys(sides).map((name) => [name, name]) },
    { kind: "range", id: "token", label: "Token", min: 0, max: tokens.length - 1, step: 1, text: (i) => `${i + 1}: ${tokens[i].trim() || "space"}` },
  ];
}

export function compute(state, material) {
  if (!material) {
    const p = softmax(LOGITS), q = softmax(LOGITS.map((one, i) => one + state.shake * SHAKE[i]));
    const top = (values) => values.indexOf(Math.max(...values));
    return { p, q, kl: kl(p, q), agree: top(p) === top(q), words: WORDS };
  }
  const told = material.talk.sides[state.side], flips = told.filter((one) => one.original[0][0] !== one.quantized[0][0]).length;
  return { told, one: told[state.token], kl: told.reduce((sum, one) => sum + one.kl, 0) / told.length, flips, first: told.findIndex((one) => one.original[0][0] !== one.quantized[0][0]) };
}

function pairs(rows, width, top) {
  const parts = [], label = Math.min(120, width * 0.3), long = width - label - 66;
  rows.forEach(([word, p, q], i) => {
    const y = top + i * 40;
    parts.push(el("text", { x: label - 10, y: y + 19, class: "end", text: word }));
    [[p, "plain", 0], [q, "now", 15]].forEach(([share, kind, down]) => {
      if (share === null) return;
      parts.push(el("rect", { x: label, y: y + down, width: Math.max(share * long, 1), height: 12, rx: 2, class: `bar ${kind}` }));
      parts.push(el("text", { x: label + share * long + 7, y: y + down + 10, class: "small", text: percent(share, 1) }));
    });
  });
  const y = top + rows.length * 40 + 6;
  parts.push(el("rect", { x: label, y, width: 11, height: 11, class: "bar plain" }), el("text", { x: label + 17, y: y + 10, class: "quiet", text: "original" }));
  parts.push(el("rect", { x: label + 100, y, width: 11, height: 11, class: "bar now" }), el("text", { x: label + 117, y: y + 10, class: "quiet", text: "quantized" }));
  return { parts, height: y + 20 };
}

export function draw(result, state, { width, set, material }) {
  if (!material) {
    const made = pairs(result.words.map((word, i) => [word, result.p[i], result.q[i]]), width, 34);
    return { parts: [el("text", { x: 0, y: 14, class: "title", text: "Next word after “The capital of France is”" }), ...made.parts], height: made.height };
  }
  const { original, quantized } = result.one, words = [...new Set([...original, ...quantized].map(([word]) => word))];
  const share = (list, word) => (list.find(([one]) => one === word) || [null, null])[1];
  const made = pairs(words.map((word) => [word.replace(/\n/g, "⏎").trim() || "space", share(original, word), share(quantized, word)]), width, 34);
  const title = el("text", { x: 0, y: 14, class: "title", text: `The most likely tokens at place ${state.token + 1}` });
  return { parts: [title, ...made.parts], height: made.height, below: text(result, state, material, set) };
}

function text(result, state, material, set) {
  const most = Math.log1p(8);
  const spans = result.told.map((one, i) => {
    const shade = Math.log1p(one.kl) / most, flipped = one.original[0][0] !== one.quantized[0][0];
    const span = html("span", { className: `token${flipped ? " flipped" : ""}${i === state.token ? " picked" : ""}`, textContent: material.talk.tokens[i], title: `KL ${number(one.kl)} nats` });
    span.style.backgroundColor = colour(shade, "cividis");
    span.style.color = shade > 0.5 ? "#111" : "#fff";
    span.onclick = () => set({ token: i });
    return span;
  });
  const said = html("p", { className: "tokens", aria: { hidden: "true" } }, spans);
  const hint = html("p", { className: "hint", textContent: "The original's own answer. Lighter: the quantized model would have gone on differently (KL, 0 to 8 nats). Underlined: its most likely token is another one." });
  return html("div", { className: "below" }, [quiz(state, material, set), html("p", { className: "asked", textContent: `“${material.talk.prompt}”` }), said, hint]);
}

// Which side stands left depends on the name alone, so that it stays where it is.
function quiz(state, material, set) {
  const { answers } = material.talk, swap = state.side.length % 2 === 0, sides = swap ? [state.side, "original"] : ["original", state.side];
  const cards = sides.map((name, i) => {
    const guessed = state.guess !== "";
    const button = html("button", { type: "button", textContent: guessed ? (name === "original" ? "the original" : name) : "This one is quantized", disabled: guessed });
    button.onclick = () => set({ guess: name });
    const kind = guessed && state.guess === name ? (name === "original" ? " wrong" : " right") : "";
    return html("div", { className: `card${kind}` }, [html("p", { textContent: answers[name] }), button]);
  });
  const verdict = state.guess === "" ? "Which answer is the quantized model’s?" : state.guess === "original" ? "That was the original." : "Yes, that is the quantized one.";
  return html("div", { className: "quiz" }, [html("p", { className: "verdict", textContent: verdict }), html("div", { className: "cards" }, cards)]);
}

export function numbers(result, state, material) {
  const agree = material ? `${result.told.length - result.flips} of ${result.told.length}` : result.agree ? "the same word" : "another word";
  return { kl: number(result.kl), agree };
}

export function summary(result, state, material) {
  if (!material) return `KL ${number(result.kl)} nats; the most likely word is ${result.agree ? "still the same" : "another one now"}.`;
  return `${state.side}: mean KL ${number(result.kl)} nats per token; ${result.told.length - result.flips} of ${result.told.length} most likely tokens agree${result.first < 0 ? "" : `, the first other one is at place ${result.first + 1}`}. Here KL is ${number(result.one.kl)}.`;
}

export const done = (state, result) => (state.side ? state.token > 0 || state.guess !== "" : !result.agree);
