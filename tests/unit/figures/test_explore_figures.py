"""The figures of Explore below the grid: they draw the numbers that they are given, on shared and symmetric scales."""

import json

import numpy as np
import pytest

from salq.figures import (
    METRICS,
    MapPanel,
    Ruler,
    budget_curve,
    depth_lines,
    grid_difference,
    matrix_maps,
    noise_values,
    number_lines,
    payload,
    share_left,
    singular_values,
    size_bars,
    weight_histogram,
    weight_tile,
    width_grid,
)

NAMES = ("self_attn.q_proj", "mlp.down_proj")


def test_a_difference_is_centred_at_zero_and_says_what_it_clips() -> None:
    a, b = [[0.2, 0.1], [0.5, float("nan")]], [[0.1, 0.3], [0.1, 0.2]]
    figure = grid_difference(a, b, NAMES, METRICS["weight_error"])
    heatmap = figure.data[0]
    drawn = np.array(heatmap.z, dtype=float)
    assert drawn[0].tolist() == pytest.approx([0.1, 0.4])
    assert drawn[1][0] == pytest.approx(-0.2)
    assert np.isnan(drawn[1][1])
    assert heatmap.zmin == -heatmap.zmax
    assert "beyond" in figure.layout.annotations[0].text
    same = grid_difference(b, b, NAMES, METRICS["weight_error"]).data[0]
    assert np.array(same.z, dtype=float).tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert same.zmin < 0 < same.zmax


def test_every_weight_is_a_dot_and_every_level_a_tick() -> None:
    weights, levels = [-0.4, 0.1, 0.9], [-0.3, 0.0, 0.3]
    figure = number_lines(weights, [Ruler("a", levels, [0, 1, 2], [-0.3, 0.0, 0.3]), Ruler("b", [-1.0, 1.0], [0, 1, 1], [-1.0, 1.0, 1.0])], 64)
    moves, ticks, dots = figure.data[:3]
    assert [x for x in ticks.x if x is not None] == [-0.3, -0.3, 0.0, 0.0, 0.3, 0.3]
    assert list(dots.x) == weights
    assert list(dots.marker.symbol) == ["circle", "circle", "square"]  # 0.9 lies beyond half a step after the last level
    assert "input 66" in dots.text[2]
    assert [x for x in moves.x if x is not None] == [-0.4, -0.3, 0.1, 0.0, 0.9, 0.3]
    assert len(figure.data) == 6
    assert len({axis for trace in figure.data for axis in [trace.xaxis]}) == 1  # one axis of weights for all rulers


def test_the_tile_shares_one_scale_between_weights_and_their_quantized_values() -> None:
    weights = np.array([[0.5, -2.0], [np.nan, 1.0]], dtype=np.float32)
    figure = weight_tile(weights, weights * 0.5, 10, 64, (11, 64, 2), 64)
    original, quantized, difference = figure.data
    assert (original.zmin, original.zmax, quantized.zmin, quantized.zmax) == (-2.0, 2.0, -2.0, 2.0)
    assert difference.zmax == 1.0
    assert (original.x0, original.y0) == (64, 10)
    assert len(figure.layout.shapes) == 3
    assert len(weight_tile(weights, None, 0, 0, (0, 0, 2), 64).data) == 1


def test_the_histogram_keeps_its_counts() -> None:
    figure = weight_histogram([0.0, 1.0, 2.0], [5, 0], [0.1, 0.4], (0.1, 0.4), "min/max")
    assert list(figure.data[0].x) == [0.5, 1.5]
    assert list(figure.data[0].y) == [5, None]  # nothing to draw on a log scale
    assert figure.layout.yaxis.type == "log"
    assert (figure.layout.shapes[0].x0, figure.layout.shapes[0].x1) == (0.1, 0.4)


def test_depth_has_two_lines_per_series_in_one_colour() -> None:
    figure = depth_lines({"w3g64": ([0.1, 0.2], [0.1, 0.4]), "run": ([0.05, None], [0.05, 0.1])}, block=1)
    assert [trace.name for trace in figure.data] == [
        "w3g64, quantized input", "w3g64, full-precision input", "run, quantized input", "run, full-precision input",
    ]  # fmt: skip
    assert list(figure.data[0].y) == [0.1, 0.4]
    assert figure.data[0].line.color == figure.data[1].line.color != figure.data[2].line.color
    assert figure.layout.shapes[0].x0 == 1


def test_noise_has_the_singular_values_of_noise() -> None:
    shape = (120, 300)
    values = np.linalg.svd(np.random.default_rng(0).normal(size=shape), compute_uv=False)
    predicted = noise_values(shape, float(np.linalg.norm(values)))
    assert len(predicted) == 120
    assert np.abs(np.array(predicted) - values).max() < 0.04 * values.max()  # a limit law, at 120 rows
    assert np.linalg.norm(predicted) == pytest.approx(np.linalg.norm(values))
    assert noise_values((300, 120), 1.0) == pytest.approx(noise_values(shape, 1.0))


def test_the_share_that_is_left_is_that_of_the_best_approximation() -> None:
    matrix = np.random.default_rng(1).normal(size=(20, 12))
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    for rank in (0, 3, 12):
        best = (left[:, :rank] * values[:rank]) @ right[:rank]
        assert share_left(values.tolist(), rank) == pytest.approx(np.linalg.norm(matrix - best) / np.linalg.norm(matrix), abs=1e-9)
    assert share_left([0.0, 0.0], 1) == 0.0


def test_the_rank_is_marked_and_shaded() -> None:
    figure = singular_values([3.0, 2.0, 1.0], 2, [2.5, 2.0, 1.5])
    assert list(figure.data[0].x) == [1, 2]
    assert list(figure.data[1].y) == [3.0, 2.0, 1.0]
    assert figure.layout.shapes[0].x0 == 2


def test_sizes_are_stacked_and_labelled_with_their_sum() -> None:
    figure = size_bars(["a", "b"], {"codes": [3.0, 2.0], "scales": [0.25, 0.25], "zero points": [0.05, 0.0], "adapters": [0.0, 0.5]}, [10.0, 8.0])
    assert [trace.name for trace in figure.data] == ["codes", "scales", "zero points", "adapters"]
    assert [note.text for note in figure.layout.annotations] == ["3.30 bits, 10 MB", "2.75 bits, 8 MB"]


def test_a_budget_is_a_point_on_its_curve_and_widths_are_written_into_cells() -> None:
    figure = budget_curve([(10.0, 5.0), (12.0, 2.0)], [(2, 10.0, 5.0)], (11.0, 3.0))
    assert [list(trace.x) for trace in figure.data] == [[10.0, 12.0], [10.0], [11.0]]
    grid = width_grid([[2, 8], [3, 4]], NAMES)
    assert [list(row) for row in grid.data[0].text] == [["2", "3"], ["8", "4"]]


def test_every_figure_names_its_columns_with_units_for_the_export() -> None:
    figures = [
        grid_difference([[1.0, 2.0]], [[0.5, 1.0]], NAMES, METRICS["output_error"]), depth_lines({"a": ([0.1], [0.1])}),
        number_lines([0.1], [Ruler("a", [0.0, 1.0], [0], [0.0])], 0), singular_values([1.0], 0), weight_histogram([0, 1], [1], [0.5], (0, 1), "x"),
        size_bars(["a"], {part: [1.0] for part in ("codes", "scales", "zero points", "adapters")}, [1.0]),
        budget_curve([(1, 1)], [(2, 1, 1)], (1, 1)),
        width_grid([[2, 3]], NAMES), weight_tile(np.ones((2, 2), dtype=np.float32), None, 0, 0, (0, 0, 2), 2),
    ]  # fmt: skip
    for figure in figures:
        header = json.loads(payload(figure, "x"))["layout"]["meta"]["csv"]
        assert len(header) >= 3
        assert all(isinstance(name, str) and name for name in header)


def test_the_views_of_the_largest_matrix_stay_below_half_a_megabyte() -> None:
    """128 x 344 cells are what every larger matrix is reduced to."""
    generator = np.random.default_rng(0)
    panels = [
        MapPanel(name, 10.0 ** generator.normal(size=(128, 344)), scale, "u")
        for name, scale in zip("abc", ("Cividis", "Viridis", "Inferno"), strict=True)
    ]
    maps = matrix_maps(panels, range(0, 129 * 32, 32), range(0, 345 * 32, 32), how="max", group_size=64)
    assert len(payload(maps, "x")) < 500_000
    weights = generator.normal(size=(17, 344)).astype(np.float32)
    line = number_lines(weights[0].tolist(), [Ruler("a", np.linspace(-3, 3, 256).tolist(), [0] * 344, weights[0].tolist())] * 3, 0)
    group = [weight_tile(weights, weights, 0, 0, (8, 64, 64), 64), line, weight_histogram(range(97), range(96), range(256), (0, 1), "x")]
    assert sum(len(payload(figure, "x")) for figure in group) < 500_000
