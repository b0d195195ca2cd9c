"""What Learn shows, as HTML and SVG that need no chart library: measured bars of real runs, one real group on its ruler."""

from collections.abc import Sequence
from html import escape
from math import log
from typing import Any

from salq.figures.style import RECIPE_COLOURS
from salq.models.catalogue import CATALOGUE
from salq.runs.kept import KeptRun, WeightGroup, authors_name
from salq.ui import words

WIDTH, ROW = 860, 74
LEFT, RIGHT = 64, 20
BAR_SHARE = 62
"""Longest bar, in percent of its column; the rest is room for the number."""


def headline(runs: Sequence[KeptRun], bits: int = 3) -> tuple[str, str] | None:
    """(sentence, its number) about rounding against the best calibration at `bits`; None when the runs do not say."""
    finished = [run.metrics for run in runs if run.metrics.get("perplexity") and run.metrics.get("bits") == bits]
    rounded = [one for one in finished if one["recipe"] == "rtn"]
    calibrated = [one for one in finished if one["recipe"] != "rtn"]
    if not rounded:
        return None
    calibrated_grids = {one.get("group_size") for one in calibrated}  # rounding is told on a grid that was also calibrated, if there is one
    base = min(rounded, key=lambda one: (one.get("group_size") not in calibrated_grids, one["perplexity"]))
    original = base.get("perplexity_original")
    number = _perplexity(base["perplexity"])
    start = f"{_name(base)}: rounding every weight to {bits} bits raises perplexity from {original:.1f} to {number}"
    same_grid = [one for one in calibrated if one.get("group_size") == base.get("group_size")]
    if not same_grid:
        return f"{start}.", number
    best = min(same_grid, key=lambda one: one["perplexity"])
    repaired = _perplexity(best["perplexity"])
    return f"{start}; calibration with {authors_name(best['recipe'])} brings it back to {repaired}, at {best['model_size_mb']:.0f} MB.", repaired


def bars(runs: Sequence[KeptRun]) -> str:
    """Perplexity of each kept run as a bar on a log scale from the original's value; every bar has its number beside it."""
    shown = sorted((run.metrics for run in runs if _drawable(run.metrics)), key=lambda one: (-one["bits"], one["recipe"] != "rtn", one["perplexity"]))
    if not shown:
        return ""
    original = min(one["perplexity_original"] for one in shown)
    span = max(log(max(one["perplexity"] for one in shown) / original), 1e-6)
    rows = [_bar("original, 16 bits", 0.0, "var(--body-text-color-subdued)", f"{original:.1f}")]
    for one in shown:
        share = max(log(one["perplexity"] / original), 0.0) / span
        colour = RECIPE_COLOURS.get(one["recipe"], "#888")
        rows.append(_bar(f"{authors_name(one['recipe'])}, {one['tag']}", share, colour, _perplexity(one["perplexity"])))
    return f'<div class="salq-bars" role="img" aria-label="{escape(_spoken(shown, original))}">{"".join(rows)}</div>'


def conditions(runs: Sequence[KeptRun]) -> str:
    """How the bars were measured, in one sentence."""
    finished = [run.metrics for run in runs if _drawable(run.metrics)]
    if not finished:
        return ""
    one = finished[0]
    reference = f"; the original is a {one['reference']}" if one.get("reference", "full precision") != "full precision" else ""
    return (
        f"Perplexity on {one['windows']} windows of {one['window']} tokens of the text {one['text']}, which calibration did not see; "
        f"lower is better, bars on a log scale{reference}. Every bar is a run of this code, kept in assets/results."
    )


def number_lines(group: WeightGroup, widths: Sequence[int] = (4, 3, 2)) -> str:
    """One SVG: the group's weights as dots above its levels at several widths, a line from each weight to the level it moves to."""
    values = group.weights
    shown = [bits for bits in widths if str(bits) in group.grids]
    reached = [*values, *(level for bits in shown for level in group.levels(bits))]
    margin = 0.02 * (max(reached) - min(reached) or 1.0)
    low, high = min(reached) - margin, max(reached) + margin

    def at(value: float) -> float:
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    lines = [_number_line(values, group.levels(bits), bits, index, at) for index, bits in enumerate(shown)]
    spoken = "; ".join(f"{bits} bits: mean move {_mean_move(values, group.levels(bits)):.3g}" for bits in shown)
    label = escape(f"{len(values)} weights between {min(values):.3g} and {max(values):.3g}; {spoken}")
    drawn = "".join(lines) + _marks(at, min(values), max(values), len(shown))
    return f'<div class="salq-lines"><svg viewBox="0 0 {WIDTH} {ROW * len(shown) + 22}" role="img" aria-label="{label}">{drawn}</svg></div>'


def group_sentence(group: WeightGroup) -> str:
    """What the picture shows, with its numbers."""
    told = words.LEARN_GROUP.format(count=len(group.weights), block=group.block, matrix=group.matrix, row=group.row)
    moves = [f"{_mean_move(group.weights, group.levels(bits)):.2g} at {bits} bits" for bits in (8, 4, 3, 2) if str(bits) in group.grids]
    return f"{told} A weight moves by {', '.join(moves)} on average."


def _number_line(values: Sequence[float], levels: Sequence[float], bits: int, index: int, at: Any) -> str:
    top = ROW * index + 16
    ruler = top + 38
    parts = [f'<text x="0" y="{ruler + 4}">{bits} bits</text>', f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{ruler}" y2="{ruler}"/>']
    parts += [f'<line class="level" x1="{at(level):.1f}" x2="{at(level):.1f}" y1="{ruler - 9}" y2="{ruler + 9}"/>' for level in levels]
    for value in values:
        target = min(levels, key=lambda level: abs(level - value))
        parts.append(f'<line class="moved" x1="{at(value):.1f}" y1="{top}" x2="{at(target):.1f}" y2="{ruler - 9}"/>')
    parts += [f'<circle class="weight" cx="{at(value):.1f}" cy="{top}" r="3"/>' for value in values]
    return "".join(parts)


def _marks(at: Any, low: float, high: float, rows: int) -> str:
    """Weight values under the last ruler: the smallest weight, zero, the largest."""
    y = ROW * rows + 10
    marks = ((low, f"{low:.3g}"), (0.0, "0"), (high, f"{high:.3g}"))
    return "".join(f'<text class="mark" x="{at(value):.1f}" y="{y}">{text}</text>' for value, text in marks)


def _mean_move(values: Sequence[float], levels: Sequence[float]) -> float:
    return sum(min(abs(level - value) for level in levels) for value in values) / len(values)


def _bar(name: str, share: float, colour: str, number: str) -> str:
    return (
        f'<span class="name">{escape(name)}</span><span class="bar"><i style="width:{share * BAR_SHARE:.1f}%;background:{colour}"></i>'
        f"<b>{escape(number)}</b></span>"
    )


def _perplexity(value: float) -> str:
    return f"{value:.1f}" if value < 1000 else f"{value:,.0f}"  # noqa: PLR2004 - above that, a decimal says nothing


def _drawable(one: dict[str, Any]) -> bool:
    return all(one.get(key) for key in ("perplexity", "perplexity_original", "bits", "recipe", "tag"))


def _name(one: dict[str, Any]) -> str:
    entry = CATALOGUE.get(str(one.get("model")))
    return entry.title if entry is not None else str(one.get("model", "the model"))


def _spoken(shown: Sequence[dict[str, Any]], original: float) -> str:
    told = "; ".join(f"{one['recipe']} {one['tag']} {one['perplexity']:.1f}" for one in shown)
    return f"Perplexity: original {original:.1f}; {told}"
