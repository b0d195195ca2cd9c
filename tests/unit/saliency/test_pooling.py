"""Pooled maps: bins follow the groups, every entry counts once, what is not finite is counted and left out."""

import pytest
import torch

from salq.saliency.pooling import bin_width, pool


@pytest.mark.parametrize(
    ("size", "limit", "group", "width"),
    [
        (576, 344, 64, 2),  # two columns per bin, 32 bins per group
        (1536, 344, 64, 8),  # 5 would be enough, 8 divides the group
        (11008, 344, 64, 32),
        (11008, 100, 64, 128),  # fewer bins than groups: whole groups
        (576, 344, None, 2),
        (1536, 344, None, 5),
        (256, 344, 32, 1),
        (576, 4, 96, 192),
    ],
)
def test_bin_width(size: int, limit: int, group: int | None, width: int) -> None:
    assert bin_width(size, limit, group) == width


def test_max_mean_and_p99_of_known_bins() -> None:
    matrix = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    highest = pool(matrix, rows=2, cols=2, how="max")
    assert highest.values.tolist() == [[8, 11], [20, 23]]
    assert (highest.row_edges, highest.col_edges) == ((0, 2, 4), (0, 3, 6))
    assert pool(matrix, rows=2, cols=2, how="mean").values.tolist() == [[4, 7], [16, 19]]
    assert pool(matrix, rows=1, cols=1, how="p99").values.item() == pytest.approx(0.99 * 23)


def test_ragged_last_bins_average_only_what_they_have() -> None:
    pooled = pool(torch.ones(5, 7), rows=2, cols=3, how="mean")
    assert pooled.row_edges == (0, 3, 5)
    assert pooled.col_edges == (0, 3, 6, 7)
    assert torch.equal(pooled.values, torch.ones(2, 3))


def test_nonfinite_entries_are_counted_and_left_out() -> None:
    matrix = torch.ones(4, 4)
    matrix[0, 0], matrix[0, 1], matrix[2:, 2:] = torch.nan, torch.inf, -torch.inf
    for how in ("max", "mean", "p99"):
        pooled = pool(matrix, rows=2, cols=2, how=how)
        assert pooled.n_nonfinite == 6
        assert pooled.values[0].tolist() == [1, 1]
        assert pooled.values[1, 0] == 1
        assert pooled.values[1, 1].isnan()


def test_the_matrix_is_not_changed_and_any_dtype_is_pooled_in_float32() -> None:
    matrix = torch.randn(9, 8, dtype=torch.float64)
    before = matrix.clone()
    assert pool(matrix, how="mean", group_size=4).values.dtype == torch.float32
    assert torch.equal(matrix, before)


def test_maps_of_one_shape_share_their_axes() -> None:
    maps = [pool(torch.rand(576, 1536), how=how, group_size=64) for how in ("max", "mean", "p99")]
    assert len({(one.row_edges, one.col_edges) for one in maps}) == 1
    assert maps[0].values.shape == (116, 192)
