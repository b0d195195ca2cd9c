"""Small charts as inline SVG text: no script, no font and no file of their own, so that a report opens from a disk for ever.

Colours are classes of the page around them (`a`, `b`, `axis`, ...), so that light and dark follow the reader. Shapes differ with colours.
"""

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH = 440
LEFT, RIGHT = 58, 14


def chart(height: float, label: str, parts: Sequence[str]) -> str:
    """The parts in one picture; `label` is what a screen reader says of it."""
    body = "".join(parts)
    return f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(label)}" xmlns="http://www.w3.org/2000/svg">{body}</svg>'


def interval_row(value: float, low: float, high: float, label: str) -> str:
    """An estimate with its interval on a line with 0 in the middle: right of it is more for B."""
    reach = max(abs(low), abs(high), abs(value)) * 1.15 or 1.0

    def at(x: float) -> float:
        return WIDTH / 2 + x / reach * (WIDTH / 2 - 16)

    parts = [
        _line(at(0), 4, at(0), 36, "axis strong"), _text(at(0), 48, "0", "middle"), _line(at(low), 20, at(high), 20, "b thick"),
        *(_line(at(x), 14, at(x), 26, "b") for x in (low, high)), _square(at(value), 20), _text(4, 48, f"{-reach:.2g}"),
        _text(WIDTH - 4, 48, f"{reach:.2g}", "end"),
    ]  # fmt: skip
    return chart(54, label, parts)


def two_lines(a: Sequence[float], b: Sequence[float], x_title: str, y_title: str, label: str) -> str:
    """Two series over the same whole numbers from 0: A with circles, B with squares."""
    values = [value for value in (*a, *b) if math.isfinite(value)]
    high = max(values, default=1.0) or 1.0
    top, bottom = 22.0, 196.0

    def place(index: int, value: float) -> tuple[float, float]:
        x = LEFT + (WIDTH - LEFT - RIGHT) * (index / max(len(a) - 1, 1))
        return x, bottom - (bottom - top) * value / (high * 1.05)

    parts = [_text(4, 12, y_title)]
    for tick in _ticks(0.0, high):
        y = place(0, tick)[1]
        parts += [_line(LEFT, y, WIDTH - RIGHT, y, "axis"), _text(LEFT - 6, y + 4, f"{tick:.3g}", "end")]
    for name, series, mark in (("a", a, _circle), ("b", b, _square)):
        points = [place(index, value) for index, value in enumerate(series)]
        parts.append(f'<polyline class="{name} line" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>')
        parts += [mark(x, y, name, 3.2) for x, y in points]
    parts += [_text(LEFT, 214, "0"), _text(WIDTH - RIGHT, 214, str(len(a) - 1), "end"), _text(WIDTH / 2, 214, x_title, "middle")]
    return chart(222, label, parts)


def scatter(points: Sequence[Mapping[str, object]], best: Sequence[int], titles: tuple[str, str], label: str) -> str:
    """Megabytes against a quality on a log scale. points: x, y, error (half the bar), name, side ("a", "b" or ""); best: indices of the frontier."""
    known = [(float(str(one["x"])), float(str(one["y"])), float(str(one["error"] or 0.0))) for one in points]
    left, right = min(x for x, _, _ in known), max(x for x, _, _ in known)
    margin = (right - left) * 0.08 or 1.0
    lows = [max(y - error, y * 0.2) for _, y, error in known]
    floor, ceiling = math.log10(min(lows)) - 0.08, math.log10(max(y + error for _, y, error in known)) + 0.12
    top, bottom = 22.0, 236.0

    def x_of(x: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (x - left + margin) / (right - left + 2 * margin)

    def y_of(y: float) -> float:
        return bottom - (bottom - top) * (math.log10(y) - floor) / (ceiling - floor)

    parts = [_text(4, 12, titles[1]), _text(WIDTH / 2, 266, titles[0], "middle")]
    for tick in _log_ticks(floor, ceiling):
        parts += [_line(LEFT, y_of(tick), WIDTH - RIGHT, y_of(tick), "axis"), _text(LEFT - 6, y_of(tick) + 4, f"{tick:.3g}", "end")]
    for x in _ticks(left, right):
        if left - margin <= x <= right + margin:
            parts.append(_text(x_of(x), 252, f"{x:.4g}", "middle"))
    line = " ".join(f"{x_of(known[index][0]):.1f},{y_of(known[index][1]):.1f}" for index in best)
    parts.append(f'<polyline class="frontier" points="{line}"/>')
    for one, (x, y, error), low in zip(points, known, lows, strict=True):
        side = str(one["side"] or "other")
        if error:
            parts.append(_line(x_of(x), y_of(low), x_of(x), y_of(y + error), side))
        parts.append((_square if side == "b" else _circle)(x_of(x), y_of(y), side, 4.5))
        anchor = "end" if x_of(x) > WIDTH * 0.7 else "start"
        parts.append(_text(x_of(x) + (-8 if anchor == "end" else 8), y_of(y) - 6, str(one["name"]), anchor, strong=bool(one["side"])))
    return chart(272, label, parts)


def bars(rows: Sequence[tuple[str, Sequence[tuple[str, float]]]], unit: str, label: str) -> str:
    """One bar per row, made of named parts on a common scale."""
    longest = max((sum(value for _, value in parts) for _, parts in rows), default=0.0) or 1.0
    drawn: list[str] = []
    for index, (name, parts) in enumerate(rows):
        y, x = 18.0 + 48 * index, 4.0
        drawn.append(_text(4, y - 4, f"{name}: {sum(value for _, value in parts):.4g} {unit}"))
        for number, (part, value) in enumerate(parts):
            width = (WIDTH - 8) * value / longest
            title = f"<title>{escape(part)}: {value:.4g} {escape(unit)}</title>"
            drawn.append(f'<rect class="part{number}" x="{x:.1f}" y="{y:.0f}" width="{width:.1f}" height="18">{title}</rect>')
            x += width
    return chart(48.0 * len(rows) + 4, label, drawn)


def _ticks(low: float, high: float) -> list[float]:
    """About four round numbers that cover the range."""
    span = (high - low) or abs(high) or 1.0
    step = 10 ** math.floor(math.log10(span / 3))
    step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= 5)  # noqa: PLR2004 - at most five steps
    return [round(step * index, 10) for index in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten between the exponents; only the powers when those are many."""
    factors = (1, 2, 5) if high - low < 2 else (1,)  # noqa: PLR2004 - two decades
    values = [factor * 10.0**power for power in range(math.floor(low), math.ceil(high) + 1) for factor in factors]
    return [value for value in values if low <= math.log10(value) <= high]


def _line(x1: float, y1: float, x2: float, y2: float, name: str) -> str:
    return f'<line class="{name}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _circle(x: float, y: float, name: str = "a", size: float = 4.5) -> str:
    return f'<circle class="{name} mark" cx="{x:.1f}" cy="{y:.1f}" r="{size}"/>'


def _square(x: float, y: float, name: str = "b", size: float = 4.5) -> str:
    return f'<rect class="{name} mark" x="{x - size:.1f}" y="{y - size:.1f}" width="{2 * size}" height="{2 * size}"/>'


def _text(x: float, y: float, text: str, anchor: str = "start", *, strong: bool = False) -> str:
    weight = ' class="strong"' if strong else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{weight}>{escape(text)}</text>'
