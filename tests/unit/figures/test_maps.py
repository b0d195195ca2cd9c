"""Pooled maps: codes decode to the values within one step, axes are shared, what is not finite is grey and counted."""

import json

import numpy as np
import pytest

from salq.figures import MapPanel, matrix_maps, payload
from salq.figures.maps import NOT_FINITE, TOP_CODE, encode

ROWS, COLS = list(range(0, 129)), list(range(0, 689, 2))


def decode(codes: np.ndarray, low: float, high: float) -> np.ndarray:
    return 10 ** (low + (high - low) * codes / TOP_CODE)


def test_codes_decode_to_the_values_within_half_a_step() -> None:
    values = 10 ** np.random.default_rng(0).uniform(-8, -2, (128, 344))
    coded = encode(values)
    inside = (np.log10(values) >= coded.low) & (np.log10(values) <= coded.high)
    assert inside.mean() == pytest.approx(0.98, abs=0.002)
    error = np.abs(np.log10(decode(coded.codes, coded.low, coded.high)) - np.log10(values))[inside]
    assert error.max() <= (coded.high - coded.low) / TOP_CODE / 2 + 1e-9


def test_zero_is_the_lowest_code_and_nan_is_grey_and_counted() -> None:
    values = np.array([[0.0, 1e-3, 1.0], [np.nan, np.inf, 1e-2]])
    coded = encode(values)
    assert coded.codes[0, 0] == 0
    assert coded.codes[1].tolist()[:2] == [NOT_FINITE, NOT_FINITE]
    assert coded.n_empty == 2


@pytest.mark.parametrize("values", [np.zeros((2, 3)), np.full((2, 3), 0.5), np.full((2, 3), np.nan)], ids=["zeros", "constant", "all-nan"])
def test_maps_without_contrast_are_still_drawn(values: np.ndarray) -> None:
    coded = encode(values)
    assert coded.high > coded.low
    matrix_maps([MapPanel("x", values, "Viridis", "u")], [0, 1, 2], [0, 1, 2, 3], how="max")


def three_panels() -> list[MapPanel]:
    values = np.random.default_rng(1).random((128, 344)) ** 4
    return [MapPanel(name, values, colours, "unit") for name, colours in (("Saliency", "Cividis"), ("Error", "Viridis"), ("Product", "Inferno"))]


def test_panels_share_their_axes_and_titles_state_the_pooling() -> None:
    figure = matrix_maps(three_panels(), ROWS, COLS, how="max", group_size=64)
    assert [trace.type for trace in figure.data] == ["heatmap"] * 3
    assert (figure.layout.xaxis2.matches, figure.layout.yaxis3.matches) == ("x", "y")
    assert figure.layout.xaxis3.title.text.startswith("input<br>")
    assert "max over 1 × 2 weights per cell; ticks at group borders" in figure.layout.xaxis3.title.text
    assert tuple(figure.layout.yaxis.range) == (128, 0)
    assert (figure.layout.xaxis.minor.dtick, figure.layout.xaxis.dtick) == (64, 128)


def test_hover_finds_the_true_ranges_in_the_meta() -> None:
    meta = matrix_maps(three_panels(), ROWS, COLS, how="p99", group_size=64).layout.meta
    assert (meta["rows"][-1], meta["cols"][-1], meta["how"]) == (128, 688, "p99")
    assert [panel["title"] for panel in meta["panels"]] == ["Saliency", "Error", "Product"]


def test_largest_view_stays_under_500_kB() -> None:
    sent = payload(matrix_maps(three_panels(), ROWS, COLS, how="max", group_size=64), "maps")
    assert len(sent) < 500_000
    assert json.loads(sent)["data"][0]["z"]["dtype"] == "u1"
