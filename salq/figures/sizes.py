"""Where the bits go: codes, scales, zero points and adapters, as stacked bars in bits per weight."""

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from salq.figures.style import OKABE_ITO, styled

PARTS = ("codes", "scales", "zero points", "adapters")
PATTERNS = ("", "/", "x", ".")
"""A hatch each, so that colour is not the only cue."""


def size_bars(names: Sequence[str], bits: Mapping[str, Sequence[float]], megabytes: Sequence[float]) -> go.Figure:
    """One bar per name: bits[part][i] bits per quantized weight, stacked in the order of PARTS; megabytes[i]: 10^6 bytes of all matrices."""
    figure = go.Figure()
    for index, part in enumerate(PARTS):
        if not any(bits[part]):
            continue
        figure.add_trace(
            go.Bar(
                y=list(names), x=list(bits[part]), orientation="h", name=part,
                marker={"color": OKABE_ITO[(0, 1, 2, 3)[index]], "pattern": {"shape": PATTERNS[index], "size": 5}},
                hovertemplate=f"%{{y}}: {part} %{{x:.3f}} bits per weight<extra></extra>",
            )
        )  # fmt: skip
    totals = [sum(bits[part][i] for part in PARTS) for i in range(len(names))]
    for name, total, size in zip(names, totals, megabytes, strict=True):
        label = {"text": f"{total:.2f} bits, {size:,.0f} MB", "x": total, "y": name, "xanchor": "left", "xshift": 6, "showarrow": False}
        figure.add_annotation(label | {"font": {"size": 12}})
    styled(figure, height=44 * len(names) + 110, showlegend=True, barmode="stack", margin={"t": 40})
    figure.update_layout(
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "traceorder": "normal"},
        meta={"csv": ["part", "stored bits per quantized weight", "model"]},
    )
    figure.update_xaxes(title_text="stored bits per quantized weight", range=[0, max([*totals, 1.0]) * 1.32])
    figure.update_yaxes(autorange="reversed")
    return figure
