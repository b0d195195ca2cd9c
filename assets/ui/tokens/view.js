// The token view of the Compare tab: a scored text as coloured words, the likeliest tokens of both models for the chosen one, and the fork of two answers.
// What models wrote reaches the document by textContent only.

import { colour, html, number, percent } from "../lessons/draw.js";

const MOST = 8; // nats at the light end of the scale; fixed, so that two texts can be compared by eye
const signed = (value) => (value > 0 ? `+${number(value)}` : number(value));
const quoted = (text) => `“${text}”`;
const chance = (log) => (Math.exp(log) < 5e-4 ? "under 0.1\u00a0%" : percent(Math.exp(log), 1));
const rank = (place) => (place === 1 ? "first choice" : `choice ${place.toLocaleString("en-US")}`);

/** Draws into the element that `find` returns; `picked(index)` is told which token is chosen. Returns {receive}. */
export function start(find, picked) {
  let tokens = [], spans = [], at = 0, parts = null, settle = 0;

  function pick(index, tell = true) {
    if (!tokens.length) return;
    spans[at].classList.remove("picked");
    spans[at].setAttribute("aria-selected", "false");
    at = Math.min(Math.max(index, 0), tokens.length - 1);
    spans[at].classList.add("picked");
    spans[at].setAttribute("aria-selected", "true");
    parts.flow.setAttribute("aria-activedescendant", spans[at].id);
    parts.details.replaceChildren(...details(tokens[at], at, tokens.length));
    if (!tell) return;
    spans[at].scrollIntoView({ block: "nearest" });
    clearTimeout(settle);
    settle = setTimeout(() => picked(at), 200); // an arrow key that is held down tells its last token only
  }

  /** The token nearest above (-1) or below (1) the chosen one, as the lines happen to break. */
  function vertical(direction) {
    const box = (span) => span.getClientRects()[0] || span.getBoundingClientRect(), here = box(spans[at]), middle = here.left + here.width / 2;
    const far = spans.map(box).map((one) => {
      const down = (one.top - here.top) * direction;
      return down > here.height / 2 ? down * 1000 + Math.abs(one.left + one.width / 2 - middle) : Infinity;
    });
    const least = Math.min(...far);
    return Number.isFinite(least) ? far.indexOf(least) : at;
  }

  function flip(direction) {
    for (let index = at + direction; index >= 0 && index < tokens.length; index += direction) if (tokens[index].flipped) return index;
    return at;
  }

  const MOVES = {
    ArrowLeft: () => at - 1, ArrowRight: () => at + 1, ArrowUp: () => vertical(-1), ArrowDown: () => vertical(1),
    Home: () => 0, End: () => tokens.length - 1, PageUp: () => flip(-1), PageDown: () => flip(1),
  };

  function draw(root) {
    const flow = html("div", { className: "flow", tabIndex: 0, role: "listbox", aria: { label: "Scored tokens. Arrow keys move, Page Down goes to the next one whose likeliest token differs.", orientation: "horizontal" } });
    parts = { flow, details: html("div", { className: "details" }) };
    spans = tokens.map((one, index) => word(one, index, tokens.length));
    flow.append(...spans);
    flow.onclick = (event) => {
      const span = event.target.closest("[role=option]");
      if (span) pick(spans.indexOf(span));
    };
    flow.onkeydown = (event) => {
      const move = MOVES[event.key];
      if (!move || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      pick(move());
    };
    return [legend(), flow, parts.details];
  }

  return {
    receive(value) {
      const root = find();
      if (!root || !value) return;
      tokens = value.tokens || [];
      at = 0;
      root.replaceChildren(...(tokens.length ? draw(root) : []), ...(value.fork ? [fork(value.fork)] : []));
      pick(value.worst || 0, false);
    },
  };
}

function word(one, index, of) {
  const shade = Math.log1p(one.kl) / Math.log1p(MOST), text = one.text.replace(/⏎/g, "⏎\n");
  const said = `Token ${index + 1} of ${of}, ${quoted(one.text)}, KL ${number(one.kl)} nats, ${rank(one.rank_original)} of the original, ${rank(one.rank)} of the quantized model${one.flipped ? ", likeliest token differs" : ""}`;
  const span = html("span", { id: `salq-token-${index}`, className: `token${one.flipped ? " flipped" : ""}`, role: "option", textContent: text, aria: { label: said, selected: "false" } });
  const fill = colour(shade, "cividis");
  Object.assign(span.style, { backgroundColor: fill, color: ink(fill) });
  return span;
}

/** Black or white, whichever reads better on an rgb() colour: one of them always has the 4.5 : 1 of WCAG. */
function ink(fill) {
  const [red, green, blue] = fill.match(/\d+/g).map((one) => one / 255).map((one) => (one <= 0.03928 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4));
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 ? "#000" : "#fff";
}

function legend() {
  const stops = Array.from({ length: 9 }, (_, i) => colour(i / 8, "cividis")).join(","), ramp = html("span", { className: "ramp", aria: { hidden: "true" } });
  ramp.style.backgroundImage = `linear-gradient(90deg, ${stops})`;
  const line = html("span", { className: "flipped", textContent: "underlined" });
  return html("p", { className: "legend" }, [html("span", { textContent: "KL 0" }), ramp, html("span", { textContent: `${MOST} nats or more` }), line, html("span", { textContent: "another likeliest token" })]);
}

function details(one, index, of) {
  const change = `log-probability ${signed(one.change)} nats`, chances = [one.log_probability_original, one.log_probability].map(chance);
  const sentence = `Token ${index + 1} of ${of}, ${quoted(one.text)}: KL ${number(one.kl)} nats, ${change}. ${one.flipped ? "The likeliest token differs." : "Both models' likeliest token is the same."}`;
  const own = { id: one.token_id, text: one.text };
  return [
    html("p", { className: "sentence", textContent: sentence }),
    pair([
      list("Original", one.top_original, own, `${chances[0]}, ${rank(one.rank_original)}`),
      list("Quantized", one.top, own, `${chances[1]}, ${rank(one.rank)}`),
    ]),
  ];
}

const pair = (lists) => html("div", { className: "pair" }, lists);

/** The likeliest tokens of one model as a table with bars; the text's own token is marked, and added where it is not among them. */
function list(title, candidates, own, stands) {
  const rows = candidates.map((one) => entry(one.text, one.probability, own && one.id === own.id));
  if (own && !candidates.some((one) => one.id === own.id)) {
    const cell = html("td", { colSpan: 2, textContent: stands });
    rows.push(html("tr", { className: "own" }, [html("th", { scope: "row", textContent: quoted(own.text) }), cell]));
  }
  const caption = html("caption", { textContent: own ? `${title}: ${stands}` : title });
  return html("table", {}, [caption, html("tbody", {}, rows)]);
}

function entry(text, probability, isOwn) {
  const bar = html("i", { aria: { hidden: "true" } });
  bar.style.width = `${Math.max(probability * 100, 0.5)}%`;
  const cells = [html("th", { scope: "row", textContent: quoted(text) }), html("td", { className: "bar" }, [bar]), html("td", { textContent: percent(probability, 1) })];
  const row = html("tr", { className: isOwn ? "own" : "" }, cells);
  if (isOwn) row.firstChild.append(html("span", { className: "mark", textContent: " in the text" }));
  return row;
}

function fork(found) {
  const made = [html("h3", { textContent: "Where the two answers part" }), html("p", { className: "sentence", textContent: found.reading })];
  if (found.same_context && found.prefix) {
    const shown = found.prefix.length > 400 ? `…${found.prefix.slice(-400)}` : found.prefix;
    made.push(html("p", { className: "prefix", textContent: `Common beginning: ${quoted(shown)}` }));
  }
  if (found.forked) {
    const next = (token) => (token === null ? "nothing more" : quoted(token));
    made.push(pair([list(`Original, which wrote ${next(found.token_original)}`, found.top_original), list(`Quantized, which wrote ${next(found.token)}`, found.top)]));
  }
  return html("section", { className: "fork" }, made);
}
