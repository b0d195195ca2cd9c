"""One group on its grid: levels, codes and values are those of the matrix that it belongs to."""

import pytest
import torch

from salq.core.errors import ShapeError
from salq.evaluation.group_view import grid_of, min_max_grid
from salq.quant.clipping import LWC
from salq.quant.dual_binary import DualBinary
from salq.quant.frozen import FrozenLinear, rtn
from salq.quant.spec import BITS, QuantSpec
from tests.helpers import random_weight

SIZE = 32


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("symmetric", [False, True])
def test_rounding_on_the_full_range(bits: int, symmetric: bool) -> None:
    weight = random_weight(4, 3 * SIZE)
    spec = QuantSpec(bits=bits, group_size=SIZE, symmetric=symmetric)  # type: ignore[arg-type]
    whole = rtn(weight, spec)
    grid = min_max_grid(weight[2, SIZE : 2 * SIZE], spec)
    assert grid.codes == whole.codes[2, SIZE : 2 * SIZE].tolist()
    assert grid.values == whole.effective_weight()[2, SIZE : 2 * SIZE].tolist()
    assert len(grid.levels) == 2**bits - symmetric
    assert set(grid.values) <= set(grid.levels)
    assert grid.levels == sorted((code - int(whole.zero_point[2, 1])) * float(whole.scale[2, 1]) for code in range(2**bits - symmetric))
    step = float(whole.scale[2, 1])
    for weight_of, value in zip(weight[2, SIZE : 2 * SIZE].tolist(), grid.values, strict=True):
        assert abs(weight_of - value) <= step * 0.51  # half a step, and what float16 does to the scale


def test_a_learned_clip_says_how_much_of_each_end_it_keeps() -> None:
    weight = random_weight(2, 2 * SIZE)
    spec = QuantSpec(bits=3, group_size=SIZE)
    clipping = LWC(init_logit=0.0).build(weight, spec)  # sigmoid(0): half of each end
    row = clipping.freeze(weight)
    line = FrozenLinear(spec, row.codes[1:], row.scale[1:], row.zero_point[1:])
    grid = grid_of(weight[1, SIZE:], line, 1, "learned")
    step = grid.scale
    assert step is not None
    low, high = float(weight[1, SIZE:].min()), float(weight[1, SIZE:].max())
    assert grid.keeps_low == pytest.approx(0.5, abs=step / abs(low))  # the zero point is rounded: up to half a step either way
    assert grid.keeps_high == pytest.approx(0.5, abs=step / high)
    assert (grid.low, grid.high) == (min(grid.levels), max(grid.levels))


def test_an_adapter_is_told_apart_from_the_codes() -> None:
    weight = random_weight(3, SIZE)
    spec = QuantSpec(bits=2, group_size=SIZE)
    made = rtn(weight, spec)
    lora_A, lora_B = torch.randn(2, SIZE).half(), torch.randn(1, 2).half()
    grid = grid_of(weight[0], FrozenLinear(spec, made.codes[:1], made.scale[:1], made.zero_point[:1], lora_A, lora_B, 0.5), 0, "x")
    want = 0.5 * (lora_B.float() @ lora_A.float())[0]
    assert grid.adapter == pytest.approx(want.tolist(), abs=1e-5)
    assert grid.rank == 2
    assert not set(grid.values) <= set(grid.levels)


def test_two_binaries_have_levels_and_no_zero_point() -> None:
    weight = random_weight(1, 2 * SIZE)
    spec = QuantSpec(bits=2, group_size=SIZE)
    frozen = DualBinary().build(weight, spec).freeze(weight)
    grid = grid_of(weight[0, SIZE:], frozen, 1, "db-llm")
    assert (grid.scale, grid.zero_point) == (None, None)
    assert set(grid.values) <= set(grid.levels)
    assert len(grid.levels) == 4


def test_a_damaged_group_has_no_grid() -> None:
    weights = torch.ones(SIZE)
    weights[3] = torch.nan
    with pytest.raises(ShapeError):
        min_max_grid(weights, QuantSpec(bits=3, group_size=SIZE))
