"""The error of the hidden state over the depth of the model: with full-precision and with quantized inputs."""

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from salq.figures.curves import DASHES
from salq.figures.style import FAINT, OKABE_ITO, SYMBOLS, styled


def depth_lines(series: Mapping[str, tuple[Sequence[float | None], Sequence[float | None]]], block: int | None = None) -> go.Figure:
    """Two lines per name, in one colour: solid, every block quantized so far; dotted, this block alone. Values are fractions, on a log scale.

    series[name] = (alone, together), one value per block; `block` draws the selected one as a vertical line.
    """
    figure = go.Figure()
    for index, (name, (alone, together)) in enumerate(series.items()):
        colour, symbol = OKABE_ITO[index % len(OKABE_ITO)], SYMBOLS[index % len(SYMBOLS)]
        for label, values, dash in (("quantized input", together, DASHES[0]), ("full-precision input", alone, DASHES[2])):
            figure.add_trace(
                go.Scatter(
                    x=list(range(len(values))), y=[value if value else None for value in values], name=f"{name}, {label}", mode="lines+markers",
                    legendgroup=name, line={"color": colour, "width": 2, "dash": dash},
                    marker={"symbol": symbol, "size": 6 if dash == DASHES[0] else 4},
                    hovertemplate=f"block %{{x}}, {name}, {label}: %{{y:.3g}}<extra></extra>",
                )
            )  # fmt: skip
    if block is not None:
        figure.add_vline(x=block, line={"color": FAINT, "width": 8})
    styled(figure, height=400, showlegend=True, margin={"t": 24, "b": 120})
    figure.update_layout(
        legend={"orientation": "h", "x": 0, "y": -0.28, "yanchor": "top"}, meta={"csv": ["series", "block (index)", "relative error (fraction)"]}
    )
    figure.update_xaxes(title_text="block", rangemode="tozero")
    figure.update_yaxes(title_text="‖ĥ−h‖ / ‖h‖, mean over tokens (log)", type="log", dtick="D2", exponentformat="power")
    return figure
