"""The bridge from charts to Python: Gradio's plot reports no clicks, so an empty HTML component listens to plotly's own."""

from typing import Any

import gradio as gr

from salq.core.settings import ASSETS

PLOTS = ASSETS / "ui" / "plots.js"


def plot_bridge(selection: dict[str, Any]) -> gr.HTML:
    """Events: `cell` (a matrix of the grid was chosen: data `block`, `matrix`), `spot` (a place on the maps: data `row`, `group`) and `point`
    (a run of the trade-off chart: data `run`).

    Its value is the current selection; setting it moves the outlines on grid and maps. What arrives from the browser may be anything: validate it.
    """
    return gr.HTML(
        selection, html_template="<span></span>", js_on_load=PLOTS.read_text(encoding="utf-8"), elem_id="plot-bridge", elem_classes="salq-bridge"
    )
