"""DB-LLM's dual binarization against its equations in float64: binaries, weights, gradients, what is stored and what runs."""

import pytest
import torch

from salq.core.errors import ConfigError
from salq.kernels.dual import DualLinear
from salq.quant.dual_binary import DualBinary, FrozenDual
from salq.quant.size import matrix_bits
from salq.quant.spec import QuantSpec
from tests.helpers import assert_close, random_weight
from tests.parity import oracles

GROUP = 16
SPEC = QuantSpec(bits=2, group_size=GROUP)


def test_it_starts_as_four_evenly_spaced_levels() -> None:
    weight = random_weight(4, 2 * GROUP)
    levels = DualBinary().build(weight, SPEC).fake_quantize(weight).detach().reshape(4, 2, GROUP)
    step = weight.reshape(4, 2, GROUP).abs().amax(-1, keepdim=True) / 2
    assert set((levels / step).round(decimals=4).unique().tolist()) <= {-1.0, 0.0, 1.0, 2.0}


@pytest.mark.parametrize("alphas", [(1.0, -0.5), (0.8, -0.7), (1.3, -0.2)])
def test_weights_and_gradients(alphas: tuple[float, float]) -> None:
    weight = torch.randn(1, GROUP, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scales = DualBinary().build(weight, SPEC).double()
    scales.alpha1.data.fill_(alphas[0])
    scales.alpha2.data.fill_(alphas[1])
    coefficients = torch.linspace(-1.0, 2.0, GROUP, dtype=torch.float64)
    got = scales.fake_quantize(weight)
    (got[0] * coefficients).sum().backward()
    _, want = oracles.dual_binary(weight[0].tolist(), *alphas)
    assert got[0].tolist() == pytest.approx(want)
    by_first, by_second = oracles.dual_binary_gradient(weight[0].tolist(), *alphas, coefficients.tolist())
    assert float(scales.alpha1.grad) == pytest.approx(by_first)
    assert float(scales.alpha2.grad) == pytest.approx(by_second)


def trained(weight: torch.Tensor) -> FrozenDual:
    """Frozen with scales that no uniform grid has."""
    scales = DualBinary().build(weight, SPEC)
    with torch.no_grad():
        scales.alpha1.mul_(0.7)
        scales.alpha2.mul_(1.1)
    return scales.freeze(weight)


def test_codes_are_the_two_binaries_with_the_stored_scales() -> None:
    weight = random_weight(3, 2 * GROUP)
    frozen = trained(weight)
    for row in range(3):
        for group in range(2):
            columns = slice(group * GROUP, (group + 1) * GROUP)
            stored = float(frozen.scale[row, group]), float(frozen.second_scale[row, group])
            binaries, weights = oracles.dual_binary(weight[row, columns].tolist(), *stored)
            assert frozen.codes[row, columns].tolist() == [2 * first + second for first, second in binaries]
            assert frozen.dequantize()[row, columns].tolist() == pytest.approx(weights)


def test_what_runs_is_what_is_stored() -> None:
    weight = random_weight(33, 3 * GROUP)
    frozen = trained(weight)
    copy = FrozenDual.from_tensors(SPEC, frozen.to(torch.device("cpu")).tensors(), 1.0)
    x, bias = torch.randn(2, 5, 3 * GROUP), torch.randn(33)
    assert_close("DualLinear", DualLinear(copy, bias)(x), x.double() @ frozen.dequantize().double().T + bias.double(), rtol=1e-4, atol=1e-4)


def test_equal_and_zero_groups_are_finite() -> None:
    weight = torch.cat([torch.zeros(1, GROUP), torch.full((1, GROUP), 0.25), torch.full((1, GROUP), -0.25)], dim=1)
    frozen = DualBinary().build(weight, SPEC).freeze(weight)
    assert frozen.dequantize().isfinite().all()
    assert float(frozen.dequantize()[0, 0]) == 0.0
    assert frozen.dequantize()[0, GROUP:].abs().max() <= 0.25


def test_two_bits_and_two_scales_count() -> None:
    bits = matrix_bits(QuantSpec(bits=2, group_size=64), 10, 128, grid="dual_binary")
    assert (bits["codes"], bits["scales"], bits["zero_points"]) == (2 * 1280, 2 * 16 * 20, 0)


@pytest.mark.parametrize("spec", [QuantSpec(bits=3, group_size=GROUP), QuantSpec(bits=2, group_size=GROUP, symmetric=True)])
def test_other_grids_are_refused(spec: QuantSpec) -> None:
    with pytest.raises(ConfigError, match="2 bits"):
        DualBinary().build(random_weight(2, GROUP), spec)


def test_who_asks_for_a_uniform_grid_is_told() -> None:
    with pytest.raises(ConfigError, match="two binaries"):
        _ = trained(random_weight(2, GROUP)).qparams
