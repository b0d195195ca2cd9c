"""The overview grid draws the numbers it is given: one cell per matrix, log colours with true ticks, gaps for what is not finite."""

import math

import numpy as np
import pytest

from salq.figures import METRICS, grid_heatmap, payload
from salq.figures.grid import short_name

NAMES = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)


def values(n_blocks: int) -> list[list[float]]:
    return [[0.01 * (block * 7 + module + 1) for module in range(7)] for block in range(n_blocks)]


@pytest.mark.parametrize("n_blocks", [1, 30, 80])
def test_blocks_are_columns_and_matrices_are_rows(n_blocks: int) -> None:
    heatmap = grid_heatmap(values(n_blocks), NAMES, METRICS["weight_error"]).data[0]
    drawn = np.array(heatmap.z, dtype=float)
    assert drawn.shape == (7, n_blocks)
    assert drawn[6, n_blocks - 1] == pytest.approx(0.01 * 7 * n_blocks)
    assert heatmap.customdata[6][0][0] == "mlp.down_proj"


def test_logarithmic_metric_is_drawn_as_log10_and_hover_keeps_the_value() -> None:
    table = [[1e-6] * 7, [1e-3] * 7]
    heatmap = grid_heatmap(table, NAMES, METRICS["saliency"]).data[0]
    assert np.array(heatmap.z, dtype=float)[0].tolist() == pytest.approx([-6.0, -3.0])
    assert heatmap.customdata[0][1][1] == "0.001"
    assert heatmap.colorbar.ticktext == ("1e-6", "1e-5", "1e-4", "1e-3")


def test_values_that_are_not_finite_leave_a_gap_and_say_so() -> None:
    table = values(2)
    table[1][3] = math.nan
    heatmap = grid_heatmap(table, NAMES, METRICS["output_error"]).data[0]
    assert math.isnan(heatmap.z[3][1])
    assert heatmap.customdata[3][1][1] == "not finite"
    assert heatmap.zmax == pytest.approx(0.14)


def test_axes_have_titles_and_the_json_has_no_nan() -> None:
    table = values(2)
    table[0][0] = math.inf
    figure = grid_heatmap(table, NAMES, METRICS["weight_error"])
    assert figure.layout.xaxis.title.text == "block"
    assert figure.layout.yaxis.title.text == "matrix"
    assert "NaN" not in payload(figure, "grid")
    assert "Infinity" not in payload(figure, "grid")


def test_short_names_fit_a_phone() -> None:
    assert [short_name(name) for name in NAMES] == ["q", "k", "v", "o", "gate", "up", "down"]
