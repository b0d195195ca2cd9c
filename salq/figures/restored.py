"""Bars: how much of one token's KL goes away when one part of the model is full precision again."""

from collections.abc import Sequence

import plotly.graph_objects as go

from salq.figures.style import OKABE_ITO, styled


def restored_shares(names: Sequence[str], shares: Sequence[float], left: Sequence[float], *, title: str, axis: str) -> go.Figure:
    """One bar per part; below zero the token's KL grew.

    names: of the parts, in order. shares: of the KL that went away, 1 is all of it. left: KL that remains, in nats.
    """
    figure = go.Figure(
        go.Bar(
            x=list(names),
            y=[100 * share for share in shares],
            customdata=list(left),
            marker={"color": [OKABE_ITO[0] if share >= 0 else OKABE_ITO[1] for share in shares]},
            hovertemplate="%{x}: %{y:.0f} % removed, %{customdata:.3g} nats left<extra></extra>",
        )
    )
    styled(figure, height=270, title={"text": title, "x": 0, "xref": "paper", "font": {"size": 13}}, showlegend=False, bargap=0.25)
    figure.update_xaxes(title_text=axis, type="category", showgrid=False, nticks=16)
    figure.update_yaxes(title_text="KL removed", ticksuffix=" %", zeroline=True)
    return figure
