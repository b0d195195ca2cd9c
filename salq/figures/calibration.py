"""A calibration while it runs: the loss terms of one block over its steps, the error of every finished block over the depth."""

from collections.abc import Sequence

import plotly.graph_objects as go

from salq.core.progress import BlockCurve
from salq.figures.curves import DASHES
from salq.figures.style import FAINT, INK, OKABE_ITO, colour_of, styled, symbol_of


def loss_terms(curve: BlockCurve, block: int) -> go.Figure:
    """Every loss term of one block over its optimizer steps, on a log scale; a thin line marks where a stage begins."""
    steps, borders = continued_steps(curve)
    terms = list(dict.fromkeys(term for loss in curve.losses for term in loss))
    figure = go.Figure()
    for index, term in enumerate(terms):
        values = [loss.get(term) for loss in curve.losses]
        figure.add_trace(
            go.Scatter(
                x=steps,
                y=[value if value is not None and value > 0 else None for value in values],
                customdata=list(zip(curve.stages, curve.steps, strict=True)),
                name=term,
                mode="lines+markers" if len(steps) == 1 else "lines",
                line={"color": OKABE_ITO[index % len(OKABE_ITO)], "width": 2, "dash": DASHES[index % len(DASHES)]},
                hovertemplate=f"{term}: %{{y:.4g}}<br>stage %{{customdata[0]}}, step %{{customdata[1]}}<extra></extra>",
            )
        )
    for step, stage in borders:
        figure.add_vline(x=step, line={"color": FAINT, "width": 1})
        label = {"text": stage, "x": step, "xanchor": "left", "y": 0, "yref": "paper", "yanchor": "bottom", "showarrow": False, "font": {"size": 11}}
        figure.add_annotation(label)
    _titled(figure, f"Block {block}: loss terms, each as it enters the sum")
    figure.update_layout(showlegend=True)
    figure.update_xaxes(title_text="optimizer step", rangemode="tozero")
    figure.update_yaxes(title_text="loss", type="log", dtick="D2", exponentformat="power")
    return figure


def distillation_curve(curve: BlockCurve) -> go.Figure:
    """KL from the original over the steps of the end-to-end pass, each on that step's samples, on a log scale."""
    values = [loss.get("kl") for loss in curve.losses]
    figure = go.Figure(
        go.Scatter(
            x=list(curve.steps),
            y=[value if value is not None and value > 0 else None for value in values],
            name="kl",
            mode="lines",
            line={"color": OKABE_ITO[0], "width": 2},
            hovertemplate="step %{x}: %{y:.4g} nats/token<extra></extra>",
        )
    )
    _titled(figure, "End-to-end pass: KL from the original's predictions, on the samples of each step")
    figure.update_xaxes(title_text="optimizer step", rangemode="tozero")
    figure.update_yaxes(title_text="KL (nats per token)", type="log", dtick="D2", exponentformat="power")
    return figure


def continued_steps(curve: BlockCurve) -> tuple[list[int], list[tuple[int, str]]]:
    """Steps that go on counting over the stages of a block, and (first step, name) of every stage when there are several."""
    steps: list[int] = []
    borders: list[tuple[int, str]] = []
    offset = 0
    for index, (stage, step) in enumerate(zip(curve.stages, curve.steps, strict=True)):
        if index == 0 or stage != curve.stages[index - 1]:
            offset = steps[-1] if steps else 0
            borders.append((offset + step, stage))
        steps.append(offset + step)
    return steps, borders if len(borders) > 1 else []


def depth_errors(output: Sequence[float | None], weights: Sequence[float | None], recipe: str) -> go.Figure:
    """Relative error of every block, over the whole depth from the start; of outputs, or of weights for recipes that see no text."""
    is_output = any(value is not None for value in output)
    values = output if is_output else weights
    figure = go.Figure(
        go.Scatter(
            x=list(range(len(values))),
            y=list(values),
            name=recipe,
            mode="lines+markers",
            line={"color": colour_of(recipe), "width": 2},
            marker={"symbol": symbol_of(recipe), "size": 7},
            hovertemplate="block %{x}: %{y:.3g}<extra></extra>",
        )
    )
    _titled(figure, "Relative output error of each block" if is_output else "Relative weight error of each block, mean of its matrices")
    figure.update_xaxes(title_text="block", range=[-0.5, max(len(values), 1) - 0.5], tick0=0, dtick=max(1, -(-len(values) // 10)))
    figure.update_yaxes(title_text="‖y−ŷ‖ / ‖y‖" if is_output else "‖w−ŵ‖ / ‖w‖", rangemode="tozero")
    return figure


def _titled(figure: go.Figure, title: str) -> None:
    styled(figure, height=270, title={"text": title, "x": 0, "xref": "paper", "font": {"size": 13, "color": INK}}, margin={"t": 52})
    figure.update_layout(legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1, "yanchor": "bottom"})
