"""One matrix from above: pooled maps on identical axes, sent as 8-bit colour codes.

Codes instead of floats keep three maps of 128 x 344 cells under 200 kB and the browser responsive; `layout.meta` carries what the page's
hover needs to say the true row range, column range and value of a cell.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from plotly.colors import get_colorscale

from salq.figures.style import AXES, FAINT, INK, heading, house_layout

TOP_CODE = 254
"""Codes 0..254 are values; 255 is drawn grey: no finite value in that cell."""

NOT_FINITE = 255
PANEL_HEIGHT = 190
GAP = 64
"""Pixels between panels: the lower panel's title and colour bar."""

MAX_TICKS = 96
BOTTOM = 62
"""Pixels under the last panel: ticks and the title in two lines."""


@dataclass(frozen=True)
class MapPanel:
    """One pooled map. `values` is (rows, cols), non-negative; drawn on a log10 scale clipped at its 1st and 99th percentile."""

    title: str
    values: np.ndarray
    colours: str
    unit: str


@dataclass(frozen=True)
class Coded:
    """`value = 10 ** (low + (high - low) * code / 254)` within the clip range."""

    codes: np.ndarray
    low: float
    high: float
    n_empty: int


def encode(values: np.ndarray) -> Coded:
    """uint8 codes of log10(values), clipped at the 1st and 99th percentile of the positive ones; zero gets code 0, NaN gets 255."""
    finite = np.isfinite(values)
    positive = finite & (values > 0)
    if not positive.any():
        return Coded(np.where(finite, 0, NOT_FINITE).astype(np.uint8), 0.0, 1.0, int((~finite).sum()))
    logs = np.log10(values, where=positive, out=np.full(values.shape, -np.inf, dtype=np.float64))
    low, high = (float(edge) for edge in np.percentile(logs[positive], (1, 99)))
    if high - low < 1e-6:
        low, high = low - 0.5, high + 0.5
    scaled = np.clip((logs - low) / (high - low), 0.0, 1.0) * TOP_CODE
    codes = np.where(finite, np.rint(np.nan_to_num(scaled, neginf=0.0)), NOT_FINITE)
    return Coded(codes.astype(np.uint8), low, high, int((~finite).sum()))


def matrix_maps(
    panels: Sequence[MapPanel],
    row_edges: Sequence[int],
    col_edges: Sequence[int],
    *,
    how: str,
    group_size: int | None = None,
) -> go.Figure:
    """Maps stacked on shared axes: outputs down, inputs to the right, cell edges in matrix indices.

    `row_edges` and `col_edges` have one entry more than the maps have rows and columns. Zooming one panel zooms all.
    """
    heights, drawn = _domains(len(panels)), [encode(np.asarray(panel.values, dtype=np.float64)) for panel in panels]
    meta = {
        "rows": list(map(int, row_edges)),
        "cols": list(map(int, col_edges)),
        "how": how,
        "group_size": group_size,
        "panels": [
            {"title": panel.title, "unit": panel.unit, "low": coded.low, "high": coded.high} for panel, coded in zip(panels, drawn, strict=True)
        ],
        "csv": ["map", "first output (index)", "last output (index)", "first input (index)", "last input (index)", "value (unit of the map)"],
    }
    layout = house_layout(height=total_height(len(panels)), margin={"l": 56, "r": 10, "t": GAP, "b": BOTTOM}, meta=meta)
    layout["annotations"] = [heading(panel.title, _unit(panel, coded), top) for panel, coded, (_, top) in zip(panels, drawn, heights, strict=True)]
    for index, domain in enumerate(heights):
        layout |= _axes(index, domain, row_edges, col_edges, group_size)
    layout[_axis("x", len(panels) - 1)] |= {"showticklabels": True, "title": {"text": _x_title(row_edges, col_edges, how, group_size)}}
    traces = [
        _trace(panel, coded, row_edges, col_edges, index, top)
        for index, (panel, coded, (_, top)) in enumerate(zip(panels, drawn, heights, strict=True))
    ]
    return go.Figure(traces, layout)  # at once: plotly checks the whole layout at every change of a part, and a class waits for this figure


def total_height(n_panels: int) -> int:
    """Pixels of the whole figure."""
    return n_panels * PANEL_HEIGHT + (n_panels - 1) * GAP + GAP + BOTTOM


def _domains(count: int) -> list[tuple[float, float]]:
    """(bottom, top) of each panel in plot fractions, first panel on top."""
    inner = count * PANEL_HEIGHT + (count - 1) * GAP
    tops = [1 - index * (PANEL_HEIGHT + GAP) / inner for index in range(count)]
    return [(max(top - PANEL_HEIGHT / inner, 0.0), top) for top in tops]


def _trace(panel: MapPanel, coded: Coded, row_edges: Sequence[int], col_edges: Sequence[int], index: int, top: float) -> go.Heatmap:
    suffix = "" if index == 0 else str(index + 1)
    return go.Heatmap(
        z=coded.codes,
        x=np.asarray(col_edges, dtype=np.int32),
        y=np.asarray(row_edges, dtype=np.int32),
        zmin=0,
        zmax=NOT_FINITE,
        colorscale=_with_grey(panel.colours),
        name=panel.title,
        hoverinfo="none",
        xaxis=f"x{suffix}",
        yaxis=f"y{suffix}",
        colorbar=_colorbar(coded, top),
    )


def _with_grey(colours: str) -> list[list[object]]:
    """The scale over codes 0..254, then grey."""
    edge = TOP_CODE / NOT_FINITE
    steps: list[list[object]] = [[position * edge, colour] for position, colour in get_colorscale(colours)]
    return [*steps, [edge, INK], [1.0, INK]]


def _colorbar(coded: Coded, top: float) -> dict[str, object]:
    decades = list(range(int(np.ceil(coded.low)), int(np.floor(coded.high)) + 1))
    marks = decades if len(decades) > 1 else [coded.low, coded.high]
    marks = marks[:: max(len(marks) // 5, 1)]
    return {
        "orientation": "h",
        "x": 1.0,
        "xanchor": "right",
        "y": top,
        "yanchor": "bottom",
        "ypad": 5,
        "len": 0.4,
        "thickness": 8,
        "outlinewidth": 0,
        "tickvals": [(mark - coded.low) / (coded.high - coded.low) * TOP_CODE for mark in marks],
        "ticktext": [f"{10.0**mark:.0e}".replace("e-0", "e-").replace("e+0", "e") for mark in marks],
        "tickcolor": FAINT,
        "tickfont": {"size": 10},
        "tickangle": 0,
    }


def _unit(panel: MapPanel, coded: Coded) -> str:
    return f"{panel.unit}, {coded.n_empty} cells not finite (grey)" if coded.n_empty else panel.unit


def _axis(letter: str, index: int) -> str:
    return f"{letter}axis" + ("" if index == 0 else str(index + 1))


def _axes(
    index: int, domain: tuple[float, float], row_edges: Sequence[int], col_edges: Sequence[int], group_size: int | None
) -> dict[str, dict[str, object]]:
    """Both axes of a panel; zooming one zooms those of the others."""
    suffix = "" if index == 0 else str(index + 1)
    x_axis = {"anchor": f"y{suffix}", "domain": [0, 1], "showgrid": False, "showticklabels": False, "range": [col_edges[0], col_edges[-1]]}
    y_axis = {"anchor": f"x{suffix}", "domain": list(domain), "showgrid": False, "nticks": 5, "range": [row_edges[-1], row_edges[0]]}
    if index:
        x_axis["matches"], y_axis["matches"] = "x", "y"
    return {
        _axis("x", index): {**AXES, **x_axis, **_group_ticks(col_edges, group_size)},
        _axis("y", index): {**AXES, **y_axis, "title": {"text": "output"}},
    }


def _group_ticks(col_edges: Sequence[int], group_size: int | None) -> dict[str, object]:
    """A small tick on every group border as long as they can be told apart, labels on at most seven of them."""
    if group_size is None:
        return {"nticks": 7, "tickangle": 0}
    groups = int(col_edges[-1]) // group_size
    step = group_size * max(1, -(-groups // 7))
    ticks: dict[str, object] = {"tick0": 0, "dtick": step, "ticks": "outside", "ticklen": 6, "tickcolor": INK, "tickangle": 0}
    return ticks | ({"minor": {"tick0": 0, "dtick": group_size, "ticks": "outside", "ticklen": 3, "tickcolor": INK}} if groups <= MAX_TICKS else {})


def _x_title(row_edges: Sequence[int], col_edges: Sequence[int], how: str, group_size: int | None) -> str:
    """Axis title with the pooling, on a line of its own so that it fits a phone."""
    rows, columns = int(row_edges[1]) - int(row_edges[0]), int(col_edges[1]) - int(col_edges[0])
    pooled = "one weight per cell" if rows == columns == 1 else f"{how} over {rows} × {columns} weights per cell"
    ticks = "" if group_size is None else "; ticks at group borders"
    return f"input<br><span style='font-size:11px'>{pooled}{ticks}</span>"
