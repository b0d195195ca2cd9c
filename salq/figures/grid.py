"""The overview: one cell per matrix of the model, blocks from left to right, the seven matrices of a block from top to bottom."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from salq.figures.style import DIFFERENCE_SCALE, ERROR_SCALE, FAINT, PRODUCT_SCALE, SALIENCY_SCALE, heading, styled

ROW_HEIGHT = 34


@dataclass(frozen=True)
class GridMetric:
    """How one number per matrix is named, scaled and coloured."""

    key: str
    title: str
    unit: str
    colours: str
    log: bool
    reading: str
    """What a bright cell means, in one clause."""


METRICS: dict[str, GridMetric] = {
    metric.key: metric
    for metric in (
        GridMetric("weight_error", "Relative weight error", "‖W−Ŵ‖ / ‖W‖", ERROR_SCALE, False, "rounding moved the weights far"),
        GridMetric(
            "output_error",
            "Relative output error",
            "‖(W−Ŵ)X‖ / ‖WX‖",
            ERROR_SCALE,
            False,
            "what the matrix computes moved far",
        ),
        GridMetric(
            "weighted_error",
            "Saliency-weighted error",
            "Σ ½ F (w−ŵ)², nats per sample",
            PRODUCT_SCALE,
            True,
            "quantizing this matrix alone should raise the loss most",
        ),
        GridMetric(
            "saliency",
            "Saliency",
            "mean Fisher diagonal, nats² per weight²",
            SALIENCY_SCALE,
            True,
            "a small change of a weight costs the most",
        ),
    )
}


def short_name(module_name: str) -> str:
    """`self_attn.q_proj` -> `q`, `mlp.down_proj` -> `down`: axis labels that fit a phone."""
    return module_name.rsplit(".", 1)[-1].removesuffix("_proj")


def grid_heatmap(values: Sequence[Sequence[float]], module_names: Sequence[str], metric: GridMetric) -> go.Figure:
    """Heatmap of values[n_blocks][n_modules]; blocks on x, matrices on y, never pooled.

    A logarithmic metric is coloured by log10 with ticks in its own unit. Values that are not finite leave an empty cell.
    """
    table = np.asarray(values, dtype=np.float64).T  # (n_modules, n_blocks)
    shown = _log10(table) if metric.log else np.where(np.isfinite(table), table, np.nan)
    names = [short_name(name) for name in module_names]
    low, high = _range(shown)
    figure = go.Figure(
        go.Heatmap(
            z=shown.tolist(),
            x=list(range(table.shape[1])),
            y=names,
            customdata=_custom(table, module_names),
            text=[[_label(value, metric.log) for value in row] for row in table],
            texttemplate="%{text}",
            textfont={"size": 11},
            hovertemplate=f"block %{{x}}, %{{customdata[0]}}<br>{metric.title}: %{{customdata[1]}}<extra></extra>",
            colorscale=metric.colours,
            zmin=low,
            zmax=high,
            name=metric.title,
            xgap=1.5,
            ygap=1.5,
            colorbar=_colorbar(metric, low, high),
        )
    )
    _framed(figure, len(names), metric.title, metric.unit, log=metric.log)
    return figure


def grid_difference(a: Sequence[Sequence[float]], b: Sequence[Sequence[float]], module_names: Sequence[str], metric: GridMetric) -> go.Figure:
    """Heatmap of A minus B, both [n_blocks][n_modules], centred at 0 with a symmetric range: red, A is larger; blue, A is smaller.

    The range ends at the 98th percentile of |A - B|, so that one matrix does not bleach all others; the title says where.
    """
    first, second = (np.asarray(values, dtype=np.float64).T for values in (a, b))
    table = first - second
    table = np.where(np.isfinite(table), table, np.nan)
    sizes = np.abs(table[np.isfinite(table)])
    edge = float(np.percentile(sizes, 98)) if sizes.size else 1.0
    edge = edge or (float(sizes.max()) if sizes.size else 0.0) or 1.0
    names = [short_name(name) for name in module_names]
    custom = [
        [[name, _number(one), _number(other)] for one, other in zip(row, base, strict=True)]
        for name, row, base in zip(module_names, first, second, strict=True)
    ]
    bar = _colorbar(metric, -edge, edge) | {"tickvals": [-edge, 0, edge], "ticktext": [f"{-edge:.2g}", "0", f"{edge:.2g}"]}
    figure = go.Figure(
        go.Heatmap(
            z=table.tolist(), x=list(range(table.shape[1])), y=names, customdata=custom, colorscale=DIFFERENCE_SCALE, zmin=-edge, zmax=edge,
            name=f"{metric.title}, A minus B", xgap=1.5, ygap=1.5, colorbar=bar,
            hovertemplate=f"block %{{x}}, %{{customdata[0]}}<br>{metric.title}: A %{{customdata[1]}}, B %{{customdata[2]}}<br>"
            "A minus B: %{z:.3g}<extra></extra>",
        )
    )  # fmt: skip
    clipped = int((sizes > edge * (1 + 1e-9)).sum())
    note = f", colours end at ±{edge:.2g} ({clipped} beyond)" if clipped else ""
    _framed(figure, len(names), f"{metric.title}: A minus B", f"{metric.unit}{note}", log=False)
    return figure


def _framed(figure: go.Figure, rows: int, title: str, unit: str, *, log: bool) -> None:
    """Axes, heading and what an export to CSV needs to know."""
    styled(figure, height=ROW_HEIGHT * rows + 118, margin={"l": 44, "r": 8, "t": 52, "b": 44})
    figure.update_layout(meta={"csv": ["series", "block (index)", "matrix", f"{title} ({unit})"], "log": log})
    figure.add_annotation(heading(title, unit, 1.0))
    figure.update_xaxes(title_text="block", showgrid=False, tickangle=0, fixedrange=True)
    figure.update_yaxes(title_text="matrix", showgrid=False, autorange="reversed", fixedrange=True, tickfont={"size": 12})


def _custom(table: np.ndarray, module_names: Sequence[str]) -> list[list[list[str]]]:
    return [[[name, _number(value)] for value in row] for name, row in zip(module_names, table, strict=True)]


def _number(value: float) -> str:
    return f"{value:.3g}" if np.isfinite(value) else "not finite"


def _label(value: float, log: bool) -> str:
    """Two significant digits, short enough for a cell; a logarithmic metric has its power of ten in the hover only."""
    if log or not np.isfinite(value):
        return ""
    return f"{value:.2f}".removeprefix("0") if value < 9.995 else f"{value:.0f}"


def _log10(table: np.ndarray) -> np.ndarray:
    positive = np.where(np.isfinite(table) & (table > 0), table, np.nan)
    return np.log10(positive)


def _range(shown: np.ndarray) -> tuple[float, float]:
    finite = shown[np.isfinite(shown)]
    if finite.size == 0:
        return 0.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _colorbar(metric: GridMetric, low: float, high: float) -> dict[str, object]:
    bar: dict[str, object] = {
        "orientation": "h",
        "x": 1.0,
        "xanchor": "right",
        "y": 1.0,
        "yanchor": "bottom",
        "ypad": 6,
        "len": 0.4,
        "thickness": 9,
        "outlinewidth": 0,
        "tickcolor": FAINT,
        "tickfont": {"size": 11},
        "tickangle": 0,
    }
    if metric.log:
        decades = list(range(int(np.floor(low)), int(np.ceil(high)) + 1))
        bar |= {"tickvals": decades, "ticktext": [f"1e{decade}" for decade in decades]}
    else:
        marks = [low, (low + high) / 2, high]
        bar |= {"tickvals": marks, "ticktext": [f"{mark:.2g}" for mark in marks]}
    return bar
