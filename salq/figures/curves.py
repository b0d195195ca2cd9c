"""Lines over steps and over blocks: the losses of one block while it is calibrated, the errors of all blocks afterwards."""

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from salq.core.progress import BlockCurve
from salq.figures.style import OKABE_ITO, SYMBOLS, colour_of, styled, symbol_of

DASHES = ("solid", "dash", "dot", "dashdot")


def loss_curve(curve: BlockCurve, block: int) -> go.Figure:
    """Every loss term of one block by its name, over the optimizer steps seen so far, on a log scale; stages are told by the marker."""
    terms = list(dict.fromkeys(term for loss in curve.losses for term in loss))
    position = list(range(1, len(curve.steps) + 1))
    figure = go.Figure([_term(curve, term, position, index) for index, term in enumerate(terms)])
    styled(
        figure,
        height=260,
        title={"text": f"Block {block}: loss terms", "x": 0, "xref": "paper", "font": {"size": 13}},
        showlegend=True,
    )
    figure.update_layout(legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1, "yanchor": "bottom"})
    figure.update_xaxes(title_text="recorded optimizer step", rangemode="tozero")
    figure.update_yaxes(title_text="loss (as it enters the sum)", type="log", exponentformat="power")
    return figure


def _term(curve: BlockCurve, term: str, position: Sequence[int], index: int) -> go.Scatter:
    return go.Scatter(
        x=position,
        y=[loss.get(term) for loss in curve.losses],
        customdata=list(zip(curve.stages, curve.steps, strict=True)),
        name=term,
        mode="lines",
        line={"color": OKABE_ITO[index % len(OKABE_ITO)], "width": 2, "dash": DASHES[index % len(DASHES)]},
        hovertemplate=f"{term}: %{{y:.4g}}<br>stage %{{customdata[0]}}, step %{{customdata[1]}}<extra></extra>",
    )


def block_errors(series: Mapping[str, Sequence[float | None]], *, title: str = "Relative output error of each block") -> go.Figure:
    """One line per run over the depth of the model; `series` maps a label (for example `sapr w3g64`) to a value per block."""
    figure = go.Figure()
    for index, (label, values) in enumerate(series.items()):
        recipe = label.split(" ", 1)[0]
        figure.add_trace(
            go.Scatter(
                x=list(range(len(values))),
                y=list(values),
                name=label,
                mode="lines+markers",
                line={
                    "color": colour_of(recipe, index),
                    "width": 2,
                    "dash": DASHES[(index // len(SYMBOLS)) % len(DASHES)],
                },
                marker={"symbol": symbol_of(recipe, index), "size": 7},
                hovertemplate="block %{x}: %{y:.3g}<extra>%{fullData.name}</extra>",
            )
        )
    styled(
        figure,
        height=280,
        title={"text": title, "x": 0, "xref": "paper", "font": {"size": 13}},
        showlegend=len(series) > 1,
    )
    figure.update_layout(legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1, "yanchor": "bottom"})
    figure.update_xaxes(title_text="block", rangemode="tozero")
    figure.update_yaxes(title_text="‖y−ŷ‖ / ‖y‖", rangemode="tozero")
    return figure
