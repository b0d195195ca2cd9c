// Small pieces of SVG. Text and numbers reach the document by textContent and setAttribute only.

const SVG = "http://www.w3.org/2000/svg";

/** One SVG element; `text` becomes its text, every other key an attribute. */
export function el(name, attributes = {}, children = []) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "text") made.textContent = value;
    else if (value !== undefined && value !== null) made.setAttribute(key, typeof value === "number" ? round(value) : value);
  }
  for (const child of children) made.appendChild(child);
  return made;
}

/** One HTML element; keys as properties (className, textContent, onclick, ...), `data` and `aria` as attributes. */
export function html(name, properties = {}, children = []) {
  const made = document.createElement(name);
  const { data = {}, aria = {}, role, ...rest } = properties;
  Object.assign(made, rest);
  if (role) made.setAttribute("role", role);
  for (const [key, value] of Object.entries(data)) made.dataset[key] = value;
  for (const [key, value] of Object.entries(aria)) made.setAttribute(`aria-${key}`, value);
  made.append(...children);
  return made;
}

const round = (value) => Math.round(value * 100) / 100;

/** A linear scale from [low, high] to [left, right]. */
export const scale = (low, high, left, right) => (value) => left + ((value - low) / (high - low || 1)) * (right - left);

/** A polyline through [x, y] points. */
export function line(points, attributes) {
  return el("path", { d: points.map(([x, y], i) => `${i ? "L" : "M"}${round(x)} ${round(y)}`).join(""), fill: "none", ...attributes });
}

/** A number for people: three digits, thousands separated, powers of ten only far below one. */
export function number(value, digits = 3) {
  if (!Number.isFinite(value)) return "not finite";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1000) return String(Math.round(value)).replace(/\B(?=(\d{3})+$)/g, ",").replace(/^-/, "−");
  if (size < 1e-4) return value.toExponential(1).replace("e-", "e−").replace(/^-/, "−");
  return String(Number(value.toPrecision(digits))).replace(/^-/, "−");
}

/** Round values from 0 up to `most`, about four of them. */
export function ticks(most) {
  const rough = most / 4, power = 10 ** Math.floor(Math.log10(rough)), step = [1, 2, 2.5, 5, 10].find((one) => one * power >= rough) * power;
  return Array.from({ length: Math.floor(most / step + 1e-9) + 1 }, (_, i) => i * step);
}

export const percent = (share, digits = 0) => `${(share * 100).toFixed(digits)}\u00a0%`;

const VIRIDIS = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
const CIVIDIS = [[0, 34, 78], [65, 77, 107], [124, 123, 120], [185, 172, 112], [254, 232, 56]];

/** Colour of a share from 0 to 1. */
export function colour(share, scaleName = "viridis") {
  const stops = scaleName === "cividis" ? CIVIDIS : VIRIDIS, at = Math.min(Math.max(share, 0), 1) * (stops.length - 1);
  const below = Math.min(Math.floor(at), stops.length - 2), rest = at - below;
  const mixed = stops[below].map((one, i) => Math.round(one + (stops[below + 1][i] - one) * rest));
  return `rgb(${mixed.join(",")})`;
}

/** A map of shares as one path per shade, so that a thousand cells are sixteen elements. cells: [rows][columns] from 0 to 1. */
export function map(cells, x, y, width, height, scaleName) {
  const rows = cells.length, columns = cells[0].length, w = width / columns, h = height / rows, shades = new Map();
  cells.forEach((row, i) => row.forEach((share, j) => {
    const shade = Math.round(Math.min(Math.max(share, 0), 1) * 15);
    shades.set(shade, `${shades.get(shade) || ""}M${round(x + j * w)} ${round(y + i * h)}h${round(w)}v${round(h)}h${-round(w)}z`);
  }));
  const frame = el("rect", { x, y, width, height, fill: colour(0, scaleName) });
  return [frame, ...[...shades].map(([shade, d]) => el("path", { d, fill: colour(shade / 15, scaleName), "shape-rendering": "crispEdges" }))];
}

/** Horizontal bars: [{name, value, text, kind, marked}] with a common scale; returns elements and the height used. */
export function bars(rows, { x, y, width, most, label = 150, size = 20, gap = 8 }) {
  const parts = [];
  rows.forEach((row, i) => {
    const top = y + i * (size + gap), long = Math.max((row.value / (most || 1)) * (width - label - 84), row.value > 0 ? 2 : 0);
    parts.push(el("text", { x: x + label - 10, y: top + size * 0.72, class: row.strong ? "end strong" : "end", text: row.name }));
    parts.push(el("rect", { x: x + label, y: top, width: long, height: size, rx: 3, class: `bar ${row.kind || ""}` }));
    parts.push(el("text", { x: x + label + long + 8, y: top + size * 0.72, class: row.strong ? "strong" : "", text: row.text }));
  });
  return { parts, height: rows.length * (size + gap) };
}
