"""Plain data in, plotly figure out: pure functions, shared colours, no gradio and no torch.

Every figure has axis titles with units, a colour scale that is safe for colour-blind eyes, and transparent paper, so that the page's
theme shows through. Plotly.js features are limited to those of 3.3, which is what Gradio ships.
"""

from salq.figures.curves import block_errors, loss_curve
from salq.figures.grid import METRICS, GridMetric, grid_heatmap
from salq.figures.maps import MapPanel, matrix_maps
from salq.figures.restored import restored_shares
from salq.figures.style import RECIPE_COLOURS, payload
from salq.figures.trade_off import TradePoint, frontier, trade_off

__all__ = [
    "METRICS",
    "RECIPE_COLOURS",
    "GridMetric",
    "MapPanel",
    "TradePoint",
    "block_errors",
    "frontier",
    "grid_heatmap",
    "loss_curve",
    "matrix_maps",
    "payload",
    "restored_shares",
    "trade_off",
]
