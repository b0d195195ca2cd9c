"""Plain data in, plotly figure out: pure functions, shared colours, no gradio and no torch.

Every figure has axis titles with units, a colour scale that is safe for colour-blind eyes, and transparent paper, so that the page's
theme shows through. Plotly.js features are limited to those of 3.3, which is what Gradio ships.
"""

from salq.figures.budget import budget_curve, width_grid
from salq.figures.curves import block_errors, loss_curve
from salq.figures.depth import depth_lines
from salq.figures.grid import METRICS, GridMetric, grid_difference, grid_heatmap
from salq.figures.group import Ruler, number_lines, weight_histogram, weight_tile
from salq.figures.maps import MapPanel, matrix_maps
from salq.figures.restored import restored_shares
from salq.figures.sizes import size_bars
from salq.figures.spectrum import noise_values, share_left, singular_values
from salq.figures.style import RECIPE_COLOURS, payload
from salq.figures.trade_off import TradePoint, frontier, trade_off

__all__ = [
    "METRICS",
    "RECIPE_COLOURS",
    "GridMetric",
    "MapPanel",
    "Ruler",
    "TradePoint",
    "block_errors",
    "budget_curve",
    "depth_lines",
    "frontier",
    "grid_difference",
    "grid_heatmap",
    "loss_curve",
    "matrix_maps",
    "noise_values",
    "number_lines",
    "payload",
    "restored_shares",
    "share_left",
    "singular_values",
    "size_bars",
    "trade_off",
    "weight_histogram",
    "weight_tile",
    "width_grid",
]
