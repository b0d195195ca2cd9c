"""Size against quality: every run a point, the best ones joined by the frontier."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log10

import plotly.graph_objects as go

from salq.figures.style import INK, colour_of, styled, symbol_of

LABEL_SIDES = ("top center", "middle right", "bottom center", "middle left")
"""Runs of two recipes at the same spec lie close together; their labels go to different sides."""

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
    named = _named(points)
    for index, recipe in enumerate(dict.fromkeys(point.recipe for point in points)):
        figure.add_trace(_scatter([point for point in points if point.recipe == recipe], recipe, index, named))
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


def _named(points: Sequence[TradePoint]) -> set[int]:
    """Identities of the points whose label is written: of equal labels that would lie on each other, the best point's alone."""
    if not points:
        return set()
    sizes, heights = [point.size_mb for point in points], [log10(point.value) for point in points]
    near = (NEAR[0] * (max(sizes) - min(sizes)), NEAR[1] * (max(heights) - min(heights)))
    kept: list[TradePoint] = []
    for point in sorted(points, key=lambda one: one.value):
        others = (one for one in kept if one.label == point.label and abs(one.size_mb - point.size_mb) <= near[0])
        if not any(abs(log10(one.value / point.value)) <= near[1] for one in others):
            kept.append(point)
    return {id(point) for point in kept}


def _scatter(points: Sequence[TradePoint], recipe: str, index: int, named: set[int]) -> go.Scatter:
    symbol = symbol_of(recipe, index)
    return go.Scatter(
        x=[point.size_mb for point in points],
        y=[point.value for point in points],
        text=[point.label if id(point) in named else "" for point in points],
        customdata=[[point.run, point.hover, point.label] for point in points],
        name=recipe,
        error_y=_bars(points, colour_of(recipe, index)),
        mode="markers+text",
        textposition=LABEL_SIDES[index % len(LABEL_SIDES)],
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
