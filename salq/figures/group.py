"""One group of weights: the number line with its levels and clip, the real weights around it, the histogram of its matrix."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from salq.figures.style import DIFFERENCE_SCALE, FAINT, INK, OKABE_ITO, styled

LINE_HEIGHT = 118
"""Pixels of one number line."""

DOTS, RULER = 1.0, 0.0
TICK = 0.22
WEIGHT, LEVEL, MOVED, CUT = OKABE_ITO[4], OKABE_ITO[0], OKABE_ITO[1], OKABE_ITO[5]


@dataclass(frozen=True)
class Ruler:
    """One number line: a name, ascending levels, and for every weight the code and the value that it becomes; weight units.

    details: what stands beside the name, and below it.
    """

    name: str
    levels: Sequence[float]
    codes: Sequence[int]
    values: Sequence[float]
    details: tuple[str, str] = ("", "")

    @property
    def heading(self) -> str:
        """Two lines, short enough for a phone."""
        beside, below = self.details
        return f"<b>{self.name}</b>{f': {beside}' if beside else ''}{f'<br>{below}' if below else ''}"


def number_lines(weights: Sequence[float], rulers: Sequence[Ruler], first: int) -> go.Figure:
    """Every ruler's levels as ticks, the weights as dots above, a line from each weight to what it becomes; all on one axis of weights.

    `first`: index of the first weight's input, for the hover. A weight beyond the outermost level is a square: it is clipped.
    """
    figure = go.Figure()
    step = DOTS + 1.1
    for index, ruler in enumerate(rulers):
        base = -index * step
        figure.add_trace(_moves(weights, ruler, base))
        figure.add_trace(_levels(ruler, base))
        figure.add_trace(_dots(weights, ruler, base, first))
    low, high = -(len(rulers) - 1) * step - 0.5, DOTS + 0.4
    styled(figure, height=LINE_HEIGHT * len(rulers) + 92, margin={"l": 12, "r": 12, "t": 34, "b": 48}, showlegend=False)
    for index, ruler in enumerate(rulers):
        figure.add_annotation(
            {"text": ruler.heading, "x": 0, "align": "left", "xref": "paper", "xanchor": "left", "y": -index * step + DOTS + 0.16, "yref": "y",
             "yanchor": "bottom", "showarrow": False, "font": {"size": 11.5}}
        )  # fmt: skip
    figure.update_xaxes(title_text="weight (weight units)", zeroline=True, zerolinecolor=FAINT)
    figure.update_yaxes(range=[low, high], visible=False, fixedrange=True)
    figure.update_layout(meta={"csv": ["series", "weight value or level (weight units)", "height (none)"]})
    return figure


def _moves(weights: Sequence[float], ruler: Ruler, base: float) -> go.Scatter:
    """One broken line, None between weights."""
    x: list[float | None] = []
    y: list[float | None] = []
    for weight, value in zip(weights, ruler.values, strict=True):
        x += [weight, value, None]
        y += [base + DOTS, base + TICK, None]
    return go.Scatter(x=x, y=y, mode="lines", name=f"{ruler.name}: moves", line={"color": MOVED, "width": 1}, opacity=0.6, hoverinfo="skip")


def _levels(ruler: Ruler, base: float) -> go.Scatter:
    x: list[float | None] = []
    y: list[float | None] = []
    for level in ruler.levels:
        x += [level, level, None]
        y += [base - TICK, base + TICK, None]
    width = 2 if len(ruler.levels) <= 16 else 1  # noqa: PLR2004 - 256 ticks would run into each other
    return go.Scatter(
        x=x, y=y, mode="lines", name=f"{ruler.name}: levels", line={"color": LEVEL, "width": width},
        text=[f"level {i // 3} of {len(ruler.levels)}: {ruler.levels[i // 3]:.4g}" for i in range(len(x))],
        hovertemplate="%{text}<extra></extra>",
    )  # fmt: skip


def _dots(weights: Sequence[float], ruler: Ruler, base: float, first: int) -> go.Scatter:
    low, high = ruler.levels[0], ruler.levels[-1]
    half = (high - low) / max(len(ruler.levels) - 1, 1) / 2
    cut = [weight < low - half or weight > high + half for weight in weights]
    told = zip(range(first, first + len(weights)), weights, ruler.codes, ruler.values, strict=True)
    return go.Scatter(
        x=list(weights),
        y=[base + DOTS] * len(weights),
        mode="markers",
        name=f"{ruler.name}: weights",
        marker={
            "size": 7, "opacity": 0.75, "color": [CUT if one else WEIGHT for one in cut], "symbol": ["square" if one else "circle" for one in cut],
            "line": {"width": 1, "color": INK},
        },
        text=[f"input {index}: {weight:.4g}<br>code {code}, becomes {value:.4g}" for index, weight, code, value in told],
        hovertemplate="%{text}<extra></extra>",
    )  # fmt: skip


def weight_histogram(edges: Sequence[float], counts: Sequence[int], levels: Sequence[float], span: tuple[float, float], maker: str) -> go.Figure:
    """All finite weights of a matrix as bars on a log scale; ticks: the levels of one group's grid; shaded: what that grid reaches.

    `span`: the lowest and the highest level; `maker`: whose grid it is.
    """
    centers = [(one + other) / 2 for one, other in itertools.pairwise(edges)]
    figure = go.Figure(
        go.Bar(
            x=centers, y=[count if count else None for count in counts], width=[other - one for one, other in itertools.pairwise(edges)],
            name="weights", marker={"color": WEIGHT, "line": {"width": 0}}, hovertemplate="about %{x:.3g}: %{y} weights<extra></extra>",
        )
    )  # fmt: skip
    top = max([*counts, 1])
    x: list[float | None] = []
    for level in levels:
        x += [level, level, None]
    figure.add_trace(
        go.Scatter(
            x=x, y=[0.8, top * 1.6, None] * len(levels), mode="lines", name=f"levels, {maker}",
            line={"color": LEVEL, "width": 2 if len(levels) <= 16 else 0.7}, hoverinfo="skip",  # noqa: PLR2004 - 256 ticks
        )
    )  # fmt: skip
    figure.add_vrect(x0=span[0], x1=span[1], fillcolor=LEVEL, opacity=0.08, line_width=0, layer="below")
    styled(figure, height=300, margin={"t": 40}, showlegend=True, bargap=0)
    figure.update_layout(
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}, meta={"csv": ["series", "weight (weight units)", "weights (count)"]}
    )
    figure.update_xaxes(title_text="weight (weight units)")
    figure.update_yaxes(title_text="weights in a bin (log scale)", type="log", exponentformat="power", dtick=1)
    return figure


def weight_tile(weights: np.ndarray, quantized: np.ndarray | None, row: int, column: int, group: tuple[int, int, int], group_size: int) -> go.Figure:
    """Real weights, one per cell, on a scale centred at 0: as they are, quantized, and the difference w - w_hat on its own scale.

    weights, quantized: (rows, inputs), whose first cell is (`row`, `column`) of the matrix; group: (row, first input, inputs) of the outline.
    NaN and infinite weights leave empty cells.
    """
    panels = [("w", "weight", weights)]
    if quantized is not None:
        panels += [("ŵ", "quantized", quantized), ("w − ŵ", "difference", weights - quantized)]
    figure = go.Figure()
    meta: list[str] = []
    for index, (sign, title, values) in enumerate(panels):
        share = np.where(np.isfinite(values), values, np.nan).astype(np.float32)
        reach = panels[0][2] if index < 2 else values  # noqa: PLR2004 - w and w_hat share their scale
        edge = float(np.nanmax(np.abs(np.where(np.isfinite(reach), reach, 0.0)), initial=0.0)) or 1.0
        suffix = "" if index == 0 else str(index + 1)
        top = 1 - index * 0.36
        figure.add_trace(
            go.Heatmap(
                z=share, x0=column, dx=1, y0=row, dy=1, zmin=-edge, zmax=edge, colorscale=DIFFERENCE_SCALE, name=sign, xaxis=f"x{suffix}",
                yaxis=f"y{suffix}", hovertemplate=f"output %{{y}}, input %{{x}}<br>{sign} = %{{z:.4g}}<extra></extra>",
                colorbar={"orientation": "v", "x": 1.0, "len": 0.29, "y": top - 0.14, "thickness": 8, "tickfont": {"size": 10}, "nticks": 3},
            )
        )  # fmt: skip
        meta.append(f"{sign} (weight units)")
        figure.update_layout(
            {
                f"xaxis{suffix}": {"domain": [0, 1], "anchor": f"y{suffix}", "showticklabels": index == len(panels) - 1, "showgrid": False},
                f"yaxis{suffix}": {
                    "domain": [max(top - 0.28, 0), top],
                    "anchor": f"x{suffix}",
                    "autorange": "reversed",
                    "showgrid": False,
                    "nticks": 4,
                },
            }
        )
        figure.add_annotation(
            {"text": f"<b>{title} {sign}</b>", "x": 0, "xref": "paper", "xanchor": "left", "y": top, "yref": "paper", "yanchor": "bottom",
             "showarrow": False, "font": {"size": 12}}
        )  # fmt: skip
        figure.add_shape(
            {"type": "rect", "xref": f"x{suffix}", "yref": f"y{suffix}", "x0": group[1] - 0.5, "x1": group[1] + group[2] - 0.5, "y0": group[0] - 0.5,
             "y1": group[0] + 0.5, "line": {"color": INK, "width": 2}}
        )  # fmt: skip
    styled(figure, height=170 * len(panels) + 90, margin={"l": 56, "r": 10, "t": 40, "b": 44})
    if len(panels) == 1:
        figure.update_layout(yaxis={"domain": [0, 1]})
    figure.update_xaxes(tick0=0, dtick=group_size)
    figure.update_yaxes(title_text="output")
    figure.update_layout({f"xaxis{'' if len(panels) == 1 else len(panels)}": {"title": {"text": "input (ticks at group borders)"}}})
    figure.update_layout(meta={"csv": ["panel", "input (index)", "output (index)", "value (weight units)"], "panels": meta})
    return figure
