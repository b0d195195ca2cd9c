"""Sizes count everything that is stored."""

import pytest

from salq.core.errors import ShapeError
from salq.quant.size import matrix_bits, size_report
from salq.quant.spec import QuantSpec, check_group_size


def test_bits_per_weight_with_scales_and_packed_zero_points() -> None:
    report = size_report(QuantSpec(bits=2, group_size=64), {"m": (576, 576)}, parameters=576 * 576)
    assert report.bits_per_weight == pytest.approx(2 + 18 / 64)
    assert report.size_mb == pytest.approx(576 * 576 * report.bits_per_weight / 8e6)


def test_adapters_are_counted() -> None:
    plain = matrix_bits(QuantSpec(bits=2), 576, 1536)
    adapted = matrix_bits(QuantSpec(bits=2), 576, 1536, rank=8)
    assert adapted["adapters"] == 16 * 8 * (576 + 1536)
    assert plain["adapters"] == 0


def test_symmetric_grids_store_no_zero_point() -> None:
    assert matrix_bits(QuantSpec(bits=4, symmetric=True), 64, 64)["zero_points"] == 0


def test_whole_model_counts_the_rest_at_16_bits() -> None:
    report = size_report(QuantSpec(bits=4, group_size=None), {"m": (100, 100)}, parameters=30_000)
    assert report.model_size_mb == pytest.approx(report.size_mb + 20_000 * 2 / 1e6)


def test_a_group_size_that_does_not_divide_names_the_matrix_and_what_fits() -> None:
    with pytest.raises(ShapeError, match=r"3\.mlp\.down_proj: in_features 1536 is not a multiple of group size 100; use 16, 32, 64, 96, 192"):
        check_group_size(QuantSpec(group_size=100), {"3.mlp.down_proj": (576, 1536), "q": (576, 576)})
