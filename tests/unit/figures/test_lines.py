"""Curves and the trade-off chart."""

import pytest

from salq.core.progress import BlockCurve
from salq.figures import RECIPE_COLOURS, TradePoint, block_errors, frontier, loss_curve, trade_off


def test_loss_terms_are_separate_lines_by_their_names() -> None:
    curve = BlockCurve()
    for step in range(5):
        curve.add("fit", step, {"output": 1.0 / (step + 1), "saliency": 0.1})
    figure = loss_curve(curve, 3)
    assert [trace.name for trace in figure.data] == ["output", "saliency"]
    assert list(figure.data[0].y) == [1.0, 0.5, pytest.approx(1 / 3), 0.25, 0.2]
    assert figure.layout.yaxis.type == "log"
    assert "Block 3" in figure.layout.title.text


def test_a_term_that_starts_later_has_gaps_and_an_empty_curve_draws_nothing() -> None:
    curve = BlockCurve()
    curve.add("clip", 0, {"output": 1.0})
    curve.add("fit", 0, {"output": 0.5, "saliency": 0.2})
    assert list(loss_curve(curve, 0).data[1].y) == [None, 0.2]
    assert len(loss_curve(BlockCurve(), 0).data) == 0


def test_a_recipe_has_one_colour_everywhere_and_a_shape_of_its_own() -> None:
    figure = block_errors({"rtn w3g64": [0.3, 0.4], "sapr w3g64": [0.1, None]})
    assert figure.data[1].line.color == RECIPE_COLOURS["sapr"]
    assert len({trace.marker.symbol for trace in figure.data}) == 2


POINTS = [
    TradePoint("w2g64", "rtn", 80, 900.0),
    TradePoint("w3g64", "rtn", 95, 75.0),
    TradePoint("w3g64", "apiq", 96, 40.0, run="abc"),
    TradePoint("w4g64", "rtn", 110, 50.0),
    TradePoint("w8g64", "rtn", 180, 22.7, kept=True),
]


def test_frontier_keeps_what_nothing_beats() -> None:
    assert [(point.recipe, point.label) for point in frontier(POINTS)] == [
        ("rtn", "w2g64"),
        ("rtn", "w3g64"),
        ("apiq", "w3g64"),
        ("rtn", "w8g64"),
    ]


def test_trade_off_draws_every_point_once_with_open_markers_for_kept_results() -> None:
    figure = trade_off(POINTS, "perplexity", original=22.6)
    drawn = {trace.name: len(trace.x) for trace in figure.data}
    assert drawn == {"frontier": 4, "rtn": 4, "apiq": 1}
    assert figure.data[1].marker.symbol == ("circle", "circle", "circle", "circle-open")
    assert figure.data[2].customdata[0][0] == "abc"
    assert "original 22.6" in figure.layout.annotations[0].text


def test_trade_off_without_runs_is_an_empty_frame_with_titles() -> None:
    figure = trade_off([], "kl")
    assert "MB" in figure.layout.xaxis.title.text
    assert "nats per token" in figure.layout.yaxis.title.text


def test_error_bars_end_above_zero_and_points_without_one_have_none() -> None:
    wide = TradePoint("w2g64", "rtn", 80, 4.0, error=5.0)
    bars = trade_off([wide, TradePoint("w3g64", "rtn", 95, 2.0)], "kl").data[1].error_y
    assert (list(bars.array), list(bars.arrayminus)) == ([5.0, 0.0], [pytest.approx(3.6), 0.0])
    assert bars.visible
    assert not trade_off(POINTS, "perplexity").data[1].error_y.visible


def test_a_label_that_would_lie_on_itself_is_written_once_at_the_best_point() -> None:
    near = [TradePoint("w2g64", "apiq", 92, 245.0), TradePoint("w2g64", "salq", 92, 113.0), TradePoint("w2g64", "rtn", 87, 6e5)]
    figure = trade_off([*near, TradePoint("w8g64", "rtn", 168, 38.6)], "perplexity")
    written = {trace.name: list(trace.text) for trace in figure.data[1:]}
    assert written == {"apiq": [""], "salq": ["w2g64"], "rtn": ["w2g64", "w8g64"]}
    assert [row[2] for trace in figure.data[1:] for row in trace.customdata] == ["w2g64", "w2g64", "w2g64", "w8g64"]  # told on hovering, all the same


def test_labels_of_neighbours_go_to_free_sides_and_one_without_room_is_left_away() -> None:
    pair = [TradePoint("w4g32", "rtn", 118.1, 48.1), TradePoint("w4g64", "salq", 118.8, 41.3), TradePoint("w2g64", "rtn", 87, 6e5)]
    first, second = trade_off([*pair, TradePoint("w8g64", "rtn", 168, 38.6)], "perplexity").data[1:3]
    assert (first.textposition[0], second.textposition[0]) == ("top center", "middle right")
    crowd = [TradePoint(f"w4g{32 + index}", "rtn", 118 + index, 50 + index) for index in range(12)]
    written = trade_off([*crowd, *pair], "perplexity").data[1].text
    assert 0 < len([text for text in written if text]) < len(written)
