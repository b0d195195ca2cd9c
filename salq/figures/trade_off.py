"""Size against quality: every run a point, the best ones joined by the frontier."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log10

import plotly.graph_objects as go

from salq.figures.style import INK, colour_of, styled, symbol_of

LABEL_SIDES = {"top center": (0, 1), "middle right": (1, 0), "bottom center": (0, -1), "middle left": (-1, 0)}
"""Where a label may be written, and the direction from its point. Runs of two recipes at the same spec lie close together: each recipe prefers
another side."""

CHARACTER, LINE, MARKER = 0.0085, 0.045, (0.01, 0.025)
"""Width of a character, height of a label and half of a marker's extents, as shares of a wide chart's width and height."""

WIDE = 300
"""From the best to the worst value: beyond it, only powers of ten are named on the axis, whose smaller marks would run into each other."""

NEAR = (0.04, 0.12)
"""Share of the chart's width and height within which a label that is there twice would lie on itself."""

QUALITY = {
    "perplexity": "perplexity (lower is better)",
    "kl": "KL divergence from the original, nats per token (lower is better)",
}


@dataclass(frozen=True)
class TradePoint:
    """One finished run. `kept`: a result kept in the repository rather than a run of this machine. `error`: half of its error bar."""

    label: str
    recipe: str
    size_mb: float
    value: float
    hover: str = ""
    kept: bool = False
    run: str = ""
    error: float | None = None


def frontier(points: Sequence[TradePoint]) -> list[TradePoint]:
    """The points that no other point beats in both size and value, by growing size."""
    best: list[TradePoint] = []
    for point in sorted(points, key=lambda one: (one.size_mb, one.value)):
        if not best or point.value < best[-1].value:
            best.append(point)
    return best


def trade_off(points: Sequence[TradePoint], quality: str, *, original: float | None = None) -> go.Figure:
    """Scatter of megabytes (whole model) against `quality` ("perplexity" or "kl") on a log scale.

    Filled markers are runs of this machine, open ones results kept in the repository; `original` draws the unquantized model's value.
    """
    figure = go.Figure()
    best = frontier(points)
    figure.add_trace(
        go.Scatter(
            x=[point.size_mb for point in best],
            y=[point.value for point in best],
            mode="lines",
            name="frontier",
            line={"color": INK, "width": 1.5, "dash": "dot"},
            hoverinfo="skip",
            showlegend=False,
        )
    )
    recipes = list(dict.fromkeys(point.recipe for point in points))
    sides = _sides(points, recipes)
    for index, recipe in enumerate(recipes):
        figure.add_trace(_scatter([point for point in points if point.recipe == recipe], recipe, index, sides))
    if original is not None and original > 0:
        figure.add_hline(y=original, line={"color": INK, "width": 1, "dash": "dash"})
        note = {
            "text": f"original {original:.4g}",
            "x": 0,
            "xref": "paper",
            "xanchor": "left",
            "yanchor": "bottom",
            "showarrow": False,
        }
        # On a log axis, an annotation's y is the exponent.
        figure.add_annotation(note | {"y": log10(original), "yref": "y", "font": {"size": 11}})
    styled(figure, height=420, showlegend=True, margin={"t": 40})
    figure.update_layout(legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"})
    figure.update_xaxes(title_text="whole model, MB")
    values = [point.value for point in points]
    is_wide = bool(values) and max(values) > WIDE * min(values)
    figure.update_yaxes(title_text=QUALITY[quality], type="log", dtick=1 if is_wide else "D2", exponentformat="power")
    return figure


Box = tuple[float, float, float, float]
"""Left, bottom, right, top, in shares of the chart."""


def _sides(points: Sequence[TradePoint], recipes: Sequence[str]) -> dict[int, str]:
    """The side of each point, by its identity, on which its label is written: the first that no other label and no other point needs.

    The best points choose first. A label without room, and one whose equal is written beside it, is left away: hovering tells.
    """
    if not points:
        return {}
    sizes, heights = [point.size_mb for point in points], [log10(point.value) for point in points]
    width, height = max(sizes) - min(sizes) or 1.0, max(heights) - min(heights) or 1.0
    at = {id(point): ((point.size_mb - min(sizes)) / width, (log10(point.value) - min(heights)) / height) for point in points}
    order, found, written = list(LABEL_SIDES), dict[int, str](), list[Box]()
    for point in sorted(points, key=lambda one: one.value):
        here = at[id(point)]
        equal = [at[id(one)] for one in points if one.label == point.label and id(one) in found]
        if any(abs(there[0] - here[0]) <= NEAR[0] and abs(there[1] - here[1]) <= NEAR[1] for there in equal):
            continue
        first = recipes.index(point.recipe) % len(order)
        taken = [*written, *(_marker(there) for key, there in at.items() if key != id(point))]
        for side in (*order[first:], *order[:first]):
            box = _label(point.label, here, LABEL_SIDES[side])
            if not any(_overlap(box, other) for other in taken):
                found[id(point)] = side
                written.append(box)
                break
    return found


def _marker(at: tuple[float, float]) -> Box:
    return at[0] - MARKER[0], at[1] - MARKER[1], at[0] + MARKER[0], at[1] + MARKER[1]


def _label(text: str, at: tuple[float, float], direction: tuple[int, int]) -> Box:
    wide, high = len(text) * CHARACTER / 2, LINE / 2
    x, y = at[0] + direction[0] * (MARKER[0] + wide), at[1] + direction[1] * (MARKER[1] + high)
    return x - wide, y - high, x + wide, y + high


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _scatter(points: Sequence[TradePoint], recipe: str, index: int, sides: Mapping[int, str]) -> go.Scatter:
    symbol = symbol_of(recipe, index)
    return go.Scatter(
        x=[point.size_mb for point in points],
        y=[point.value for point in points],
        text=[point.label if id(point) in sides else "" for point in points],
        customdata=[[point.run, point.hover, point.label] for point in points],
        name=recipe,
        error_y=_bars(points, colour_of(recipe, index)),
        mode="markers+text",
        textposition=[sides.get(id(point), "top center") for point in points],
        textfont={"size": 11},
        marker={
            "color": colour_of(recipe, index),
            "symbol": [f"{symbol}-open" if point.kept else symbol for point in points],
            "size": 11,
            "line": {"width": 2, "color": colour_of(recipe, index)},
        },
        hovertemplate=f"{recipe} %{{customdata[2]}}<br>%{{x:.1f}} MB, %{{y:.4g}}<br>%{{customdata[1]}}<extra></extra>",
    )


def _bars(points: Sequence[TradePoint], colour: str) -> dict[str, object]:
    """Error bars; the lower one stops above 0, which a log axis does not have."""
    above = [point.error or 0.0 for point in points]
    below = [min(point.error or 0.0, 0.9 * point.value) for point in points]
    return {"type": "data", "array": above, "arrayminus": below, "thickness": 1.2, "width": 3, "color": colour, "visible": any(above)}
