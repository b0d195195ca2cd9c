"""A comparison as one HTML page that needs nothing else: no request, no script, light and dark, charts as inline SVG.

Everything that is shown comes from the JSON of the comparison (`salq/runs/verdict.py`), and every text in it is escaped: nothing that a model
or a person wrote is ever markup.
"""

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from salq.figures.svg import bars, interval_row, scatter, two_lines
from salq.figures.trade_off import TradePoint, frontier

Json = Mapping[str, Any]

STYLE = """
:root { color-scheme: light dark; --ink: #1b2330; --soft: #5a6675; --paper: #ffffff; --line: #d5dbe3; --a: #0a5f9e; --b: #b8470b; --other: #7c8590; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6eaf0; --soft: #a3adba; --paper: #14181e; --line: #343c47; --a: #6fb7ee; --b: #f3965a; --other: #8a94a3; }
}
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 ui-sans-serif, system-ui, sans-serif;
  font-variant-numeric: tabular-nums; }
main { max-width: 760px; margin: 0 auto; padding: 28px 18px 60px; }
h1 { font-size: 25px; line-height: 1.25; letter-spacing: -0.015em; margin: 0 0 14px; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 36px 0 8px; }
.verdict { font-size: 19px; line-height: 1.45; border-left: 4px solid var(--a); padding: 2px 0 2px 14px; margin: 0 0 12px; overflow-wrap: anywhere; }
.soft, figcaption, footer { color: var(--soft); font-size: 14px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14.5px; }
th, td { text-align: left; padding: 6px 12px 6px 0; border-bottom: 1px solid var(--line); vertical-align: top; overflow-wrap: break-word; }
td:first-child { min-width: 9em; }
td.number, th.number { text-align: right; white-space: nowrap; }
figure { margin: 14px 0; }
svg { display: block; width: 100%; max-width: 640px; height: auto; }
svg text { font: 11.5px ui-sans-serif, system-ui, sans-serif; fill: var(--ink); }
svg .strong { font-weight: 700; }
svg line, svg polyline { stroke: var(--other); stroke-width: 1.4; fill: none; }
svg line.axis { stroke: var(--line); stroke-width: 1; } svg line.axis.strong { stroke: var(--soft); }
svg line.thick { stroke-width: 4; }
svg .a { stroke: var(--a); } svg .b { stroke: var(--b); } svg .other { stroke: var(--other); }
svg .a.mark { fill: var(--a); } svg .b.mark { fill: var(--b); } svg .other.mark { fill: var(--paper); }
svg .line { stroke-width: 1.6; } svg .frontier { stroke-dasharray: 2 4; }
svg .part0 { fill: var(--a); } svg .part1 { fill: var(--b); } svg .part2 { fill: #009e73; } svg .part3 { fill: #cc79a7; }
.key { display: inline-block; width: 10px; height: 10px; margin: 0 5px 0 0; background: var(--b); }
.key.a { background: var(--a); border-radius: 50%; }
.said { white-space: pre-wrap; overflow-wrap: anywhere; margin: 4px 0 16px; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: 12.5px; }
summary { cursor: pointer; color: var(--soft); font-size: 14px; }
"""
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
PARTS = (("codes", "codes_mb"), ("scales", "scales_mb"), ("zero points", "zero_points_mb"), ("adapters", "adapters_mb"))
DIFFERENCES = (
    ("kl", "KL from the original, nats per token: left of 0, B is nearer to the original"),
    ("nll", "Log-loss, nats per token: left of 0, B predicts the text better"),
    ("agrees", "Share of tokens with the original's first choice: right of 0, B agrees more often"),
)
METRICS = (
    ("Perplexity", "perplexity", "perplexity_se", None),
    ("KL, nats per token: mean", "kl", "kl_se", "kl"),
    ("KL: median token", "kl_median", "", None),
    ("KL: 99th percentile", "kl_p99", "", None),
    ("Same first choice", "top1_agreement", "", "agrees"),
    ("Bits per weight, quantized matrices", "bits_per_weight", "", None),
    ("Bits per weight, whole model", "model_bits_per_weight", "", None),
    ("Megabytes, quantized matrices", "size_mb", "", None),
    ("Megabytes, whole model", "model_size_mb", "", None),
    ("Calibration, seconds", "seconds", "", None),
    ("Peak memory, GB", "peak_memory_gb", "", None),
)


def page(value: Json) -> str:
    """The comparison as an HTML document. value: the JSON of a comparison."""
    a, b = value["a"], value["b"]
    title = f"{a['title']} against {b['title']}"
    sections = [
        _verdict(value, title), _what(value), _metrics(value), _differences(value), _blocks(value), _sizes(value), _trade_off(value), _talk(value),
        _asked(value),
    ]  # fmt: skip
    body = "".join(part for part in sections if part)
    footer = f"<footer>Made by salq {escape(str(value['salq']))}, {escape(str(value['made']))}. This file needs no network.</footer>"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"><title>{escape(title)}</title><style>{STYLE}</style></head>'
        f"<body><main>{body}{footer}</main></body></html>\n"
    )


def _verdict(value: Json, title: str) -> str:
    remarks = "".join(f"<li>{escape(one)}</li>" for one in value["remarks"])
    return f'<h1>{escape(title)}</h1><p class="verdict">{escape(value["verdict"])}</p><ul class="soft">{remarks}</ul>'


def _what(value: Json) -> str:
    rows = []
    for name, key in (("Run", "run"), ("Recipe", "recipe"), ("Grid", "tag"), ("Seed", "seed"), ("Device", "device")):
        rows.append([name, _plain(value["a"].get(key)), _plain(value["b"].get(key))])
    versions = value["a"]["versions"], value["b"]["versions"]
    rows += [[f"{name} then", *(_plain(one.get(name)) for one in versions)] for name in ("salq", "torch", "python", "cpu")]
    where = value["conditions"]
    told = f"{where['model']} on {where['text']}: {where['windows']} windows of {where['window']} tokens, {where['tokens']} of them predicted."
    return f'<h2>What was compared</h2><p class="soft">{escape(told)}</p>{_table(["", *_heads(value)], rows, numbers=False)}'


def _metrics(value: Json) -> str:
    a, b, rows = value["a"], value["b"], []
    for name, key, error, paired in METRICS:
        shown = [_number(side.get(key)) + (f" ± {_number(side.get(error))}" if error and side.get(error) is not None else "") for side in (a, b)]
        rows.append([name, *shown, _difference(value, key, paired)])
    floor = value.get("noise_floor")
    if floor:
        rows.append(["Noise floor: KL of the original from itself", _number(floor["kl"]), _number(floor["kl"]), escape(floor["how"])])
    caption = '<p class="soft">± is one standard error over windows; brackets are paired 95 % intervals.</p>'
    return f"<h2>Metrics</h2>{_table(['', *_heads(value), 'B minus A'], rows)}{caption}"


def _difference(value: Json, key: str, paired: str | None) -> str:
    known = value.get("differences") or {}
    if paired in known:
        low, high = known[paired]["interval"]
        return f"{known[paired]['value']:+.3g} [{low:+.3g}, {high:+.3g}]"
    a, b = value["a"].get(key), value["b"].get(key)
    return f"{b - a:+.4g}" if isinstance(a, int | float) and isinstance(b, int | float) else "-"


def _differences(value: Json) -> str:
    known = value.get("differences")
    if not known:
        return ""
    figures = []
    for name, words in DIFFERENCES:
        low, high = known[name]["interval"]
        said = f"{words}. B minus A is {known[name]['value']:+.3g}, 95 % interval {low:+.3g} to {high:+.3g}."
        figures.append(f"<figure>{interval_row(known[name]['value'], low, high, said)}<figcaption>{escape(said)}</figcaption></figure>")
    return f"<h2>How sure one can be</h2>{''.join(figures)}"


def _blocks(value: Json) -> str:
    blocks = value.get("blocks")
    if not blocks:
        return ""
    label = f"B's error is lower in {blocks['lower_in_b']} of {len(blocks['a'])} blocks, A's in {blocks['lower_in_a']}."
    drawn = two_lines(blocks["a"], blocks["b"], "block", "relative output error", label)
    rows = [[str(index), _number(x), _number(y)] for index, (x, y) in enumerate(zip(blocks["a"], blocks["b"], strict=True))]
    table = f"<details><summary>In numbers</summary>{_table(['block', *_heads(value)], rows)}</details>"
    what = "How far a block's outputs lie from the original's, ‖y − ŷ‖ / ‖y‖, mean over the tokens of the calibration text."
    caption = f"{_key(value)} {what} {escape(label)}"
    return f"<h2>Error of every block</h2><figure>{drawn}<figcaption>{caption}</figcaption></figure>{table}"


def _sizes(value: Json) -> str:
    rows = []
    for side in ("a", "b"):
        one = value[side]
        parts = [(name, one[key]) for name, key in PARTS if isinstance(one.get(key), int | float)]
        whole = [("16-bit weights", one["size_mb"])] if isinstance(one.get("size_mb"), int | float) else []
        rows.append((f"{side.upper()} {one['title']}", parts or whole))
    rows = [row for row in rows if row[1]]
    if not rows:
        return ""
    told = "; ".join(f"{name}: {', '.join(f'{part} {size:.4g} MB' for part, size in parts if size)}" for name, parts in rows)
    drawn = bars(rows, "MB", told)
    return f"<h2>What is stored</h2><figure>{drawn}<figcaption>Quantized matrices. {escape(told)}.</figcaption></figure>"


def _trade_off(value: Json) -> str:
    known = [one for one in value["trade_off"] if all(isinstance(one.get(key), int | float) and one[key] > 0 for key in ("kl", "model_size_mb"))]
    if not known:
        return ""
    sides = {value[side]["run"]: side for side in "ab" if value[side]["run"]}
    points = [
        {
            "x": one["model_size_mb"], "y": one["kl"], "error": 1.96 * one["kl_se"] if one.get("kl_se") else None,
            "name": f"{one['recipe']} {one['tag']}", "side": sides.get(one["run"], ""),
        }
        for one in known
    ]  # fmt: skip
    trade = [TradePoint(str(index), "", float(point["x"]), float(point["y"])) for index, point in enumerate(points)]
    best = [int(point.label) for point in frontier(trade)]
    label = f"{len(points)} runs of this model on the same text; the dotted line joins the {len(best)} that nothing beats in both."
    drawn = scatter(points, best, ("whole model, MB", "KL from the original, nats per token"), label)
    head = ["run", "MB", "KL", "perplexity", "seconds", "GB"]
    keys = ("model_size_mb", "kl", "perplexity", "seconds", "peak_memory_gb")
    table = _table(head, [[_plain(one["title"]), *(_number(one.get(key)) for key in keys)] for one in known])
    caption = f"{_key(value)} Bars are ± 1.96 standard errors over windows. {escape(label)}"
    return f"<h2>Trade-off</h2><figure>{drawn}<figcaption>{caption}</figcaption></figure>{table}"


def _talk(value: Json) -> str:
    talk = value.get("conversation")
    if not talk:
        return ""
    sides = "".join(f'<b>{escape(one["title"])}</b><p class="said">{escape(one["text"])}</p>' for one in talk["sides"])
    return f'<h2>A kept conversation</h2><p class="soft">Asked: {escape(talk["prompt"])}</p>{sides}'


def _asked(value: Json) -> str:
    parts = []
    for side in ("a", "b"):
        if asked := value[side].get("request"):
            text = escape(json.dumps(asked, indent=1))
            parts.append(f"<details><summary>{side.upper()}: {_plain(value[side]['title'])}</summary><pre>{text}</pre></details>")
    return f"<h2>What was asked for</h2>{''.join(parts)}" if parts else ""


def _heads(value: Json) -> list[str]:
    return [f"A: {value['a']['title']}", f"B: {value['b']['title']}"]


def _key(value: Json) -> str:
    return f'<i class="key a"></i>A {_plain(value["a"]["title"])} &nbsp; <i class="key"></i>B {_plain(value["b"]["title"])}.'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: bool = True) -> str:
    """Cells are HTML already (`_plain`, `_number`); heads are escaped here."""
    kind = ' class="number"' if numbers else ""
    first, *others = head
    heads = f"<th>{escape(first)}</th>" + "".join(f"<th{kind}>{escape(one)}</th>" for one in others)
    lines = "".join(f"<tr><td>{row[0]}</td>{''.join(f'<td{kind}>{cell}</td>' for cell in row[1:])}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table></div>'


def _plain(value: Any) -> str:
    return escape(str(value)) if value not in {None, ""} else "-"


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) and not isinstance(value, bool) else "-"
