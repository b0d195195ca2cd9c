"""What all figures share: colours, fonts, margins, and the JSON that the page sends to the browser.

Colours: Okabe and Ito's palette for categories (with a marker shape each, so that colour is never the only cue), cividis for saliency,
viridis for errors, inferno for their product, RdBu centred at zero for differences.
"""

import json
from typing import Any

import plotly.graph_objects as go

INK = "#7c8590"
"""Neutral that reads on a white and on a near-black page."""

FAINT = "rgba(128, 136, 148, 0.22)"
"""Grid lines, likewise."""

FONT = "'IBM Plex Sans', ui-sans-serif, system-ui, sans-serif"
"""The page's font, which Gradio serves itself."""

OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")

RECIPE_COLOURS = {"rtn": "#E69F00", "gptq": "#CC79A7", "apiq": "#0072B2", "sapr": "#009E73", "salq": "#D55E00", "salq-full": "#56B4E9"}
RECIPE_SYMBOLS = {"rtn": "circle", "gptq": "cross", "apiq": "square", "sapr": "diamond", "salq": "star", "salq-full": "triangle-up"}
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star")

SALIENCY_SCALE = "Cividis"
ERROR_SCALE = "Viridis"
PRODUCT_SCALE = "Inferno"
DIFFERENCE_SCALE = "RdBu_r"


def colour_of(recipe: str, index: int = 0) -> str:
    """The recipe's colour on every page; an unknown recipe takes the palette's `index`-th."""
    return RECIPE_COLOURS.get(recipe, OKABE_ITO[(index + 3) % len(OKABE_ITO)])


def symbol_of(recipe: str, index: int = 0) -> str:
    """The recipe's marker shape on every page."""
    return RECIPE_SYMBOLS.get(recipe, SYMBOLS[(index + 3) % len(SYMBOLS)])


AXES = {"gridcolor": FAINT, "zeroline": False, "linecolor": FAINT, "automargin": True}
"""Of every axis."""


def house_layout(*, height: int, margin: dict[str, int] | None = None, **layout: Any) -> dict[str, Any]:
    """The house look of a figure but for its axes: transparent, system font, constant `uirevision` so that a zoom survives an update."""
    return {
        "template": "none",
        "height": height,
        "margin": {"l": 52, "r": 16, "t": 30, "b": 44, **(margin or {})},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": FONT, "size": 12, "color": INK},
        "uirevision": "salq",
        "hoverlabel": {"font": {"size": 12}},
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": INK, "activecolor": OKABE_ITO[0]},
        **layout,
    }


def styled(figure: go.Figure, *, height: int, margin: dict[str, int] | None = None, **layout: Any) -> go.Figure:
    """Give a figure and its axes the house look, in place."""
    figure.update_layout(house_layout(height=height, margin=margin, **layout))
    figure.update_xaxes(AXES)
    figure.update_yaxes(AXES)
    return figure


def heading(title: str, unit: str, top: float) -> dict[str, Any]:
    """An annotation above a panel whose upper edge is at `top` (paper fraction): the title in bold, its unit below it."""
    return {
        "text": f"<b>{title}</b><br>{unit}",
        "x": 0,
        "xref": "paper",
        "xanchor": "left",
        "align": "left",
        "y": top,
        "yref": "paper",
        "yanchor": "bottom",
        "yshift": 4,
        "showarrow": False,
        "font": {"size": 12},
    }


def payload(figure: go.Figure, file_name: str) -> str:
    """The figure as the JSON that Gradio's plot component takes, with a quiet mode bar and a file name for its PNG export."""
    value = json.loads(figure.to_json())
    value["config"] = {
        "displaylogo": False,
        "responsive": True,
        "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d", "zoomIn2d", "zoomOut2d"],
        "toImageButtonOptions": {"format": "png", "filename": file_name, "scale": 2},
    }
    return json.dumps(value, separators=(",", ":"))
