"""The quantizer, learnable clipping, block loss and regularizer against float64 oracles written from the papers."""

import numpy as np
import pytest
import torch
from torch import nn

from salq.calibration.objectives import OutputMSE, Targets
from salq.calibration.regularizers import WeightPreservation
from salq.calibration.student import StudentLinear
from salq.quant.adapter import LoRA
from salq.quant.clipping import LWC
from salq.quant.grid import QParams, fake_quantize, quantize
from salq.quant.spec import BITS, QuantSpec
from tests.parity import oracles

GROUP = 16


def _weight(seed: int = 0) -> torch.Tensor:
    return torch.randn(3, 2 * GROUP, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", BITS)
def test_codes_scale_and_zero_point(bits: int, symmetric: bool) -> None:
    weight = _weight(bits)
    spec = QuantSpec(bits=bits, group_size=GROUP, symmetric=symmetric)
    clipping = LWC(init_logit=2.0).build(weight, spec)
    qparams = QParams(*(part.detach() for part in clipping.qparams()))
    codes = quantize(weight, qparams, spec)
    for row in range(weight.shape[0]):
        for group in range(2):
            values = weight[row, group * GROUP : (group + 1) * GROUP].float().double().tolist()
            want, scale, zero = oracles.affine_group(values, bits, symmetric=symmetric, upper=2.0, lower=2.0)
            assert float(qparams.scale[row, group]) == pytest.approx(scale, rel=1e-5)
            assert int(qparams.zero_point[row, group]) == zero
            got = codes[row, group * GROUP : (group + 1) * GROUP].tolist()
            # float32 against float64 may round a value on a tie to either side: at most one code apart, and rarely
            assert max(abs(a - b) for a, b in zip(got, want, strict=True)) <= 1
            assert sum(a != b for a, b in zip(got, want, strict=True)) <= 1


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_gradient_of_learned_clipping(bits: int) -> None:
    """d sum(c * w_hat) / d logits equals finite differences of the straight-through surrogate."""
    weight = _weight(7)[:1, :GROUP]
    spec = QuantSpec(bits=bits, group_size=GROUP)
    clipping = LWC(init_logit=0.5).build(weight, spec)
    for name in ("low", "high"):
        setattr(clipping, name, getattr(clipping, name).double())
    clipping.double()
    assert clipping.upper_logit is not None
    assert clipping.lower_logit is not None
    coefficients = torch.arange(1.0, GROUP + 1, dtype=torch.float64)
    (fake_quantize(weight, clipping.qparams(), spec)[0] * coefficients).sum().backward()
    values, step = weight[0].float().double().tolist(), 1e-6
    for parameter, shift in ((clipping.upper_logit, (step, 0.0)), (clipping.lower_logit, (0.0, step))):
        sides = [
            np.dot(coefficients.numpy(), oracles.clipped_weight(values, bits, 0.5 + sign * shift[0], 0.5 + sign * shift[1], frozen_at=(0.5, 0.5)))
            for sign in (1, -1)
        ]
        # the ranges are taken in float32 by the product, hence 1e-5
        assert float(parameter.grad) == pytest.approx((sides[0] - sides[1]) / (2 * step), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("logits", [(0.5, -0.7), (4.0, 4.0)])
@pytest.mark.parametrize("bits", BITS)
def test_gradient_of_learned_clipping_written_out(bits: int, logits: tuple[float, float], symmetric: bool) -> None:
    weight = _weight(11)[:1, :GROUP]
    spec = QuantSpec(bits=bits, group_size=GROUP, symmetric=symmetric)
    clipping = LWC().build(weight, spec).double()
    assert clipping.upper_logit is not None
    assert clipping.lower_logit is not None
    clipping.upper_logit.data.fill_(logits[0])
    clipping.lower_logit.data.fill_(logits[1])
    coefficients = torch.linspace(-1.0, 2.0, GROUP, dtype=torch.float64)
    values = weight[0].float().double()  # the ranges are taken in float32
    (clipping.fake_quantize(values[None])[0] * coefficients).sum().backward()
    want = oracles.clipping_gradient(values.tolist(), bits, *logits, coefficients.tolist(), symmetric=symmetric)
    for parameter, gradient in zip((clipping.upper_logit, clipping.lower_logit), want, strict=True):
        got = 0.0 if parameter.grad is None else float(parameter.grad)
        assert got == pytest.approx(gradient, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("bits", BITS)
def test_where_the_zero_point_differs_from_the_released_code(bits: int) -> None:
    """A group of both signs has the released zero point; a group of one sign has one outside the codes there, and inside them here."""
    spec, top = QuantSpec(bits=bits, group_size=GROUP), 2**bits - 1
    both = torch.linspace(-1.0, 1.5, GROUP)[None]
    positive, negative = both + 2.0, both - 3.0
    for weight, is_inside in ((both, True), (positive, False), (negative, False)):
        released = oracles.released_zero_point(weight[0].double().tolist(), bits, 4.0, 4.0)
        ours = int(LWC(init_logit=4.0).build(weight, spec).qparams().zero_point)
        assert (0 <= released <= top) == is_inside
        assert 0 <= ours <= top
        assert (ours == released) == is_inside


def test_weight_gradient_is_one_inside_and_zero_outside_the_clip_range() -> None:
    spec = QuantSpec(bits=2, group_size=GROUP)
    weight = _weight(3).float().requires_grad_()
    qparams = LWC(init_logit=-1.0).build(weight.detach(), spec).requires_grad_(False).qparams()
    fake_quantize(weight, qparams, spec).sum().backward()
    assert weight.grad is not None
    assert set(weight.grad.unique().tolist()) == {0.0, 1.0}


def test_block_loss() -> None:
    full, on_quantized, student = (torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(s), dtype=torch.float64) for s in range(3))
    want = oracles.block_loss(full.numpy(), on_quantized.numpy(), student.numpy())
    assert float(OutputMSE(augmented=True).loss(student, Targets(full, on_quantized))) == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("where", ["before_lora", "after_lora"])
def test_regularizer(where: str, weighted: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    spec = QuantSpec(bits=2, group_size=GROUP)
    students, weights, quantized, saliency, adapters = {}, {}, {}, {}, {}
    for name in ("q", "down"):
        linear = nn.Linear(2 * GROUP, 5)
        weight = linear.weight.detach()
        adapter = LoRA(rank=2, alpha=6).build(5, 2 * GROUP, generator, torch.device("cpu"))
        nn.init.normal_(adapter.lora_B)
        students[name] = StudentLinear(linear, spec, LWC().build(weight, spec), adapter)
        weights[name] = weight.double().numpy()
        quantized[name] = students[name].fake_weight().detach().double().numpy()
        saliency[name] = torch.rand(weight.shape, generator=generator)
        adapters[name] = (adapter.lora_A.detach().double().numpy(), adapter.lora_B.detach().double().numpy(), 3.0)
    term = WeightPreservation(weighted=weighted, where=where)
    got = float(term.raw(students, saliency if weighted else None).detach())
    importance = {name: value.double().numpy() for name, value in saliency.items()} if weighted else None
    want = oracles.regularizer(weights, quantized, importance, adapters if where == "after_lora" else None)
    assert got == pytest.approx(want, rel=1e-5)
