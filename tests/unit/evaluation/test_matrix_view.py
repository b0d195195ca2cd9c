"""One matrix from above: the maps are what their names say, on identical bins, and the facts are about the whole matrix."""

import pytest
import torch

from salq.core.errors import ShapeError
from salq.evaluation.matrix_view import PART, WHOLE, facts, histogram, matrix_view
from salq.quant.frozen import FrozenLinear, rtn
from salq.quant.spec import QuantSpec
from tests.helpers import random_weight

SPEC = QuantSpec(bits=3, group_size=32)


def saliency(out: int, columns: int) -> torch.Tensor:
    return torch.rand(out, columns, generator=torch.Generator().manual_seed(1)) ** 8


def test_maps_share_their_bins_and_hold_the_definitions() -> None:
    weight, fisher = random_weight(48, 96), saliency(48, 96)
    view = matrix_view("m", weight, SPEC, fisher)
    assert list(view.maps) == ["saliency", "error", "product"]
    assert len({(one.row_edges, one.col_edges) for one in view.maps.values()}) == 1
    moved = (weight - rtn(weight, SPEC).effective_weight()).abs()
    torch.testing.assert_close(view.maps["error"].values, moved)  # one weight per bin at this size
    torch.testing.assert_close(view.maps["product"].values, fisher * moved**2 / 2)
    assert view.facts["product"].total == pytest.approx(float((fisher * moved**2 / 2).sum()), rel=1e-5)
    assert view.relative_error == pytest.approx(float(moved.norm() / weight.norm()), rel=1e-5)


def test_without_saliency_only_the_error_is_there_and_the_weight_is_left_alone() -> None:
    weight = random_weight(8, 64)
    before = weight.clone()
    view = matrix_view("m", weight, SPEC)
    assert list(view.maps) == ["error"]
    torch.testing.assert_close(weight, before, rtol=0, atol=0)


def test_a_finished_matrix_is_measured_instead_of_rounding() -> None:
    weight = random_weight(8, 64)
    made = rtn(weight, QuantSpec(bits=8, group_size=SPEC.group_size))
    view = matrix_view("m", weight, SPEC, quantized=made)
    assert view.relative_error == pytest.approx(float((weight - made.effective_weight()).norm() / weight.norm()), rel=1e-5)


def test_singular_values_are_those_of_what_the_codes_take_away() -> None:
    weight = random_weight(24, 64)
    plain = rtn(weight, SPEC)
    left, values, right = torch.linalg.svd((weight - plain.dequantize()).double(), full_matrices=False)
    lora_B, lora_A = (left[:, :3] * values[:3]).half(), right[:3].half()
    made = FrozenLinear(SPEC, plain.codes, plain.scale, plain.zero_point, lora_A, lora_B)
    residual = matrix_view("m", weight, SPEC, quantized=made).residual
    assert residual is not None
    assert residual.singular_values == pytest.approx(values.tolist(), rel=1e-6, abs=1e-6)
    assert (residual.shape, residual.rank) == ((24, 64), 3)
    assert residual.error == pytest.approx(float(values.norm()), rel=1e-6)
    assert residual.repaired == pytest.approx(float(values[3:].norm()), rel=1e-2)  # the adapter is rounded to float16


def test_of_a_large_matrix_a_part_is_looked_at_and_said() -> None:
    weight = random_weight(4, WHOLE + 64)
    residual = matrix_view("m", weight, SPEC).residual
    part = (weight - rtn(weight, SPEC).dequantize())[:, :PART]
    assert residual is not None
    assert residual.shape == (4, PART)
    assert residual.singular_values == pytest.approx(torch.linalg.svdvals(part.double()).tolist(), rel=1e-6)
    assert residual.error == pytest.approx(float(part.norm()), rel=1e-5)


def test_the_histogram_counts_every_finite_weight_once() -> None:
    weight = random_weight(16, 64)
    weight[0, 0], weight[1, 1] = torch.nan, torch.inf
    found = histogram(weight, bins=12)
    finite = weight[torch.isfinite(weight)].double()
    for low, high, count in zip(found.edges[:-1], found.edges[1:], found.counts, strict=True):
        assert abs(int(((finite >= low) & (finite < high)).sum()) - count) <= 1  # the last bin holds its upper edge; float32 at a border
    assert sum(found.counts) == finite.numel()


def test_a_damaged_weight_is_counted_and_the_rest_is_seen() -> None:
    weight = random_weight(8, 64)
    whole = matrix_view("m", weight, SPEC).maps["error"].values
    weight[2, 3] = torch.inf
    view = matrix_view("m", weight, SPEC)
    assert view.residual is None
    assert view.facts["error"].n_nonfinite == 1
    assert torch.isfinite(view.maps["error"].values).sum() == whole.numel() - 1


def test_concentration_of_one_weight_in_a_hundred() -> None:
    layer = torch.zeros(10, 20)
    layer[3, 4] = 5.0
    one = facts(layer)
    assert (one.maximum, one.total, one.top_share, one.n_nonfinite) == (5.0, 5.0, 1.0, 0)


def test_entries_that_are_not_finite_are_counted_and_left_out() -> None:
    layer = torch.ones(4, 4)
    layer[0, 0], layer[1, 1] = torch.nan, torch.inf
    one = facts(layer)
    assert (one.n_nonfinite, one.mean, one.maximum) == (2, 1.0, 1.0)
    assert facts(torch.full((2, 2), torch.nan)).n_nonfinite == 4


def test_group_size_that_does_not_fit_names_the_matrix() -> None:
    with pytest.raises(ShapeError, match=r"17\.mlp\.down_proj"):
        matrix_view("17.mlp.down_proj", random_weight(4, 48), SPEC)
