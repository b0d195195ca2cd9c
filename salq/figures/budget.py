"""What a budget buys: predicted error against size for uniform and for dealt-out widths, and who got which width."""

from collections.abc import Sequence

import plotly.graph_objects as go

from salq.figures.grid import ROW_HEIGHT, short_name
from salq.figures.style import INK, OKABE_ITO, heading, styled

WIDTH_COLOURS = {2: "#440154", 3: "#31688e", 4: "#35b779", 8: "#fde725"}
"""Four steps of viridis."""


def budget_curve(dealt: Sequence[tuple[float, float]], uniform: Sequence[tuple[int, float, float]], chosen: tuple[float, float]) -> go.Figure:
    """Predicted summed error over megabytes of the quantized matrices. dealt: (MB, error), ascending; uniform: (bits, MB, error)."""
    figure = go.Figure()
    figure.add_trace(
        go.Scatter(
            x=[mb for mb, _ in dealt], y=[error for _, error in dealt], mode="lines", name="dealt out, most error per byte first",
            line={"color": OKABE_ITO[0], "width": 2.5}, hovertemplate="%{x:.1f} MB: %{y:.3g}<extra></extra>",
        )
    )  # fmt: skip
    figure.add_trace(
        go.Scatter(
            x=[mb for _, mb, _ in uniform], y=[error for _, _, error in uniform], mode="markers+text", name="the same width everywhere",
            text=[f"{bits} bits" for bits, _, _ in uniform], textposition="top right",
            marker={"color": OKABE_ITO[1], "symbol": "square", "size": 10}, hovertemplate="%{text}, %{x:.1f} MB: %{y:.3g}<extra></extra>",
        )
    )  # fmt: skip
    figure.add_trace(
        go.Scatter(
            x=[chosen[0]], y=[chosen[1]], mode="markers", name="your budget", marker={"color": OKABE_ITO[2], "symbol": "diamond", "size": 13},
            hovertemplate="your budget, %{x:.1f} MB: %{y:.3g}<extra></extra>",
        )
    )  # fmt: skip
    styled(figure, height=340, showlegend=True, margin={"t": 40})
    figure.update_layout(
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        meta={"csv": ["series", "quantized matrices (MB)", "predicted rise of the loss (nats per sample)"]},
    )
    figure.update_xaxes(title_text="quantized matrices, MB")
    figure.update_yaxes(title_text="predicted: Σ ½ F (w−ŵ)², nats per sample", type="log", dtick=1, exponentformat="power")
    return figure


def width_grid(widths: Sequence[Sequence[int]], module_names: Sequence[str]) -> go.Figure:
    """Who got how many bits: widths[block][matrix], blocks on x, matrices on y, the width written into the cell."""
    order = list(WIDTH_COLOURS)
    table = [[row[index] for row in widths] for index in range(len(module_names))]
    steps = [[edge, WIDTH_COLOURS[bits]] for i, bits in enumerate(order) for edge in (i / len(order), (i + 1) / len(order))]
    figure = go.Figure(
        go.Heatmap(
            z=[[order.index(bits) for bits in row] for row in table], x=list(range(len(widths))), y=[short_name(name) for name in module_names],
            text=[[str(bits) for bits in row] for row in table], texttemplate="%{text}", textfont={"size": 11}, zmin=-0.5, zmax=len(order) - 0.5,
            colorscale=steps, showscale=False, xgap=1.5, ygap=1.5, hovertemplate="block %{x}, %{y}: %{text} bits<extra></extra>",
        )
    )  # fmt: skip
    styled(figure, height=ROW_HEIGHT * len(module_names) + 96, margin={"l": 44, "r": 8, "t": 40, "b": 44})
    figure.add_annotation(heading("Width of every matrix", "bits of a code", 1.0) | {"font": {"size": 12, "color": INK}})
    figure.update_layout(meta={"csv": ["series", "block (index)", "matrix", "bits of a code"], "text": True})
    figure.update_xaxes(title_text="block", showgrid=False, fixedrange=True, tickangle=0)
    figure.update_yaxes(title_text="matrix", showgrid=False, autorange="reversed", fixedrange=True)
    return figure
