"""Laws of the grid that hold for every weight, bit width, group size and symmetry."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from salq.quant.clipping import LWC, MinMax
from salq.quant.frozen import FrozenLinear, freeze, rtn
from salq.quant.grid import QParams, dequantize, fake_quantize, min_max_qparams, quantize
from salq.quant.spec import BITS, QuantSpec

SPECS = st.builds(QuantSpec, bits=st.sampled_from(BITS), group_size=st.sampled_from([None, 8, 16]), symmetric=st.booleans())


@st.composite
def weights(draw: st.DrawFn) -> Tensor:
    """Random, one-signed, constant and all-zero groups, over many magnitudes."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**20)))
    weight = torch.randn(draw(st.integers(1, 5)), 16 * draw(st.integers(1, 3)), generator=generator)
    kind = draw(st.sampled_from(["plain", "positive", "negative", "constant", "zero", "outlier"]))
    shaped = {
        "plain": weight,
        "positive": weight.abs() + 0.5,
        "negative": -weight.abs() - 0.5,
        "constant": torch.full_like(weight, 0.37),
        "zero": torch.zeros_like(weight),
        "outlier": torch.where(weight > 1.5, weight * 100, weight),
    }[kind]
    return shaped * 10.0 ** draw(st.integers(-2, 2))


@given(weights(), SPECS)
def test_codes_and_zero_points_lie_in_the_range(weight: Tensor, spec: QuantSpec) -> None:
    qparams = min_max_qparams(weight, spec)
    codes = quantize(weight, qparams, spec)
    assert int(codes.max()) <= spec.max_code
    assert bool((qparams.zero_point >= 0).all() & (qparams.zero_point <= spec.max_code).all())
    assert bool((qparams.zero_point == qparams.zero_point.round()).all())
    assert bool((qparams.scale > 0).all())


@given(weights(), SPECS)
def test_fake_quantize_is_dequantize_of_quantize_bit_for_bit(weight: Tensor, spec: QuantSpec) -> None:
    qparams = min_max_qparams(weight, spec)
    assert torch.equal(dequantize(quantize(weight, qparams, spec), qparams, spec), fake_quantize(weight, qparams, spec))


@given(weights(), SPECS)
def test_error_is_at_most_half_a_step_inside_the_range(weight: Tensor, spec: QuantSpec) -> None:
    qparams = min_max_qparams(weight, spec)
    groups = weight.reshape(*qparams.scale.shape, -1)
    error = (fake_quantize(weight, qparams, spec).reshape(groups.shape) - groups).abs()
    # The rounded zero point can push an end of the range up to half a step outside the grid, so the ends may miss by a whole step.
    low = (0 - qparams.zero_point).unsqueeze(-1) * qparams.scale.unsqueeze(-1)
    high = (spec.max_code - qparams.zero_point).unsqueeze(-1) * qparams.scale.unsqueeze(-1)
    inside = (groups >= low) & (groups <= high)
    half = qparams.scale.unsqueeze(-1) / 2
    assert bool((error <= half * (1 + 1e-4) + 1e-7 * groups.abs())[inside].all())
    assert bool((error <= 2 * half * (1 + 1e-4) + 1e-6 * groups.abs()).all())


@given(weights(), SPECS)
def test_zero_has_a_code(weight: Tensor, spec: QuantSpec) -> None:
    weight = weight.clone()
    weight[:, 0] = 0.0
    assert bool((rtn(weight, spec).dequantize()[:, 0] == 0.0).all())


@given(weights(), SPECS)
def test_quantizing_the_dequantized_weight_changes_nothing(weight: Tensor, spec: QuantSpec) -> None:
    frozen = rtn(weight, spec)
    again = quantize(frozen.dequantize(), frozen.qparams, spec)
    assert torch.equal(again, frozen.codes)


@given(weights(), SPECS, st.integers(-2, 2))
def test_a_power_of_two_leaves_the_codes_unchanged(weight: Tensor, spec: QuantSpec, power: int) -> None:
    if float(weight.abs().max()) < 1e-2:  # below it MIN_SCALE acts, which does not scale
        return
    scaled = weight * 2.0**power
    one, two = min_max_qparams(weight, spec), min_max_qparams(scaled, spec)
    keep = (one.scale > 1e-4) & (two.scale > 1e-4)
    a = quantize(weight, one, spec).reshape(*one.scale.shape, -1)[keep]
    b = quantize(scaled, two, spec).reshape(*one.scale.shape, -1)[keep]
    assert torch.equal(a, b)


@given(weights(), SPECS)
def test_wide_open_clipping_is_min_max(weight: Tensor, spec: QuantSpec) -> None:
    learned = LWC(init_logit=10.0).build(weight, spec).qparams()
    plain = MinMax().build(weight, spec).qparams()
    torch.testing.assert_close(learned.scale, plain.scale, rtol=1e-4, atol=1e-9)


@given(weights(), SPECS)
def test_a_frozen_linear_survives_its_file_form(weight: Tensor, spec: QuantSpec) -> None:
    frozen = rtn(weight, spec)
    again = FrozenLinear.from_tensors(spec, frozen.tensors(), frozen.scaling)
    assert torch.equal(again.codes, frozen.codes)
    assert torch.equal(again.effective_weight(), frozen.effective_weight())
    assert frozen.scale.dtype == torch.float16


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("bits", BITS)
def test_one_signed_groups_keep_the_zero_point_in_range(bits: int, sign: float) -> None:
    """The released ApiQ code yields a zero point outside the codes here."""
    weight = sign * (torch.rand(4, 32, generator=torch.Generator().manual_seed(1)) + 5)
    spec = QuantSpec(bits=bits, group_size=16)
    frozen = freeze(weight, QParams(*min_max_qparams(weight, spec)), spec)
    assert int(frozen.zero_point.max()) <= spec.max_code
    assert float((frozen.dequantize() - weight).abs().max()) <= float(frozen.scale.float().max())
