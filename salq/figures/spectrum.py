"""Singular values of what quantization takes away from a matrix: what an adapter of some rank could give back."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from salq.figures.style import AXES, INK, OKABE_ITO, house_layout


def share_left(values: Sequence[float], rank: int) -> float:
    """Error that is left when the `rank` largest singular values are given back exactly, as a fraction: sqrt(rest of the squares / all)."""
    squares = np.square(np.asarray(values, dtype=np.float64))
    total = float(squares.sum())
    return float(np.sqrt(squares[rank:].sum() / total)) if total > 0 else 0.0


def noise_values(shape: tuple[int, int], total: float) -> list[float]:
    """Singular values, descending, that a matrix of independent noise of that shape and Frobenius norm has in the limit of large matrices.

    Marchenko and Pastur (1967): with c = m / n <= 1, the eigenvalues of X X^T / n have the density
    sqrt((b - x)(x - a)) / (2 pi c x) between a = (1 - sqrt(c))^2 and b = (1 + sqrt(c))^2.
    """
    small, large = min(shape), max(shape)
    ratio = small / large
    low, high = (1 - ratio**0.5) ** 2, (1 + ratio**0.5) ** 2
    angle = np.linspace(0, np.pi, 4001)  # x(angle) has no spike at the edges, where the density has infinite slope
    x = (low + high) / 2 - (high - low) / 2 * np.cos(angle)
    density = np.sqrt(np.clip((high - x) * (x - low), 0, None)) / np.maximum(x, 1e-12) * (high - low) / 2 * np.sin(angle)
    mass = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    eigenvalues = np.interp((np.arange(small)[::-1] + 0.5) / small, mass / mass[-1], x)
    values = np.sqrt(eigenvalues)
    return list((values * total / np.sqrt(np.square(values).sum())).tolist())


def singular_values(values: Sequence[float], rank: int, comparison: Sequence[float] | None = None) -> go.Figure:
    """Values by their number, shaded up to `rank`; `comparison`: those of random noise of the same shape and total, where known."""
    number, traces = list(range(1, len(values) + 1)), []
    if rank:
        traces.append(
            go.Scatter(
                x=number[:rank], y=list(values[:rank]), mode="lines", fill="tozeroy", name=f"what rank {rank} can hold",
                line={"color": OKABE_ITO[0], "width": 0}, fillcolor="rgba(0,114,178,0.3)", hoverinfo="skip",
            )
        )  # fmt: skip
    traces.append(
        go.Scatter(
            x=number, y=list(values), mode="lines", name="R = W − Q(W)", line={"color": OKABE_ITO[0], "width": 2.5},
            hovertemplate="no. %{x}: %{y:.3g}<extra></extra>",
        )
    )  # fmt: skip
    if comparison is not None:
        traces.append(
            go.Scatter(
                x=number[: len(comparison)], y=list(comparison), mode="lines", name="noise of the same size", hoverinfo="skip",
                line={"color": OKABE_ITO[1], "width": 2, "dash": "dash"},
            )
        )  # fmt: skip
    layout = house_layout(
        height=320, margin={"t": 40}, showlegend=True,
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        meta={"csv": ["series", "number (index)", "singular value (weight units)"]},
        xaxis={**AXES, "title": {"text": "singular value no."}, "rangemode": "tozero"},
        yaxis={**AXES, "title": {"text": "singular value (weight units)"}, "rangemode": "tozero"},
    )  # fmt: skip
    return go.Figure(traces, layout | (_rank_line(rank) if rank else {}))


def _rank_line(rank: int) -> dict[str, Any]:
    """A dotted vertical at the adapter's rank, named at its upper end."""
    over = {"xref": "x", "yref": "y domain"}
    line = {"type": "line", **over, "x0": rank, "x1": rank, "y0": 0, "y1": 1, "line": {"color": INK, "width": 1.5, "dash": "dot"}}
    name = {"text": f"rank {rank}", **over, "x": rank, "y": 1, "xanchor": "left", "yanchor": "top", "showarrow": False}
    return {"shapes": [line], "annotations": [name]}
