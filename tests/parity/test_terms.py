"""Sliced Wasserstein, layer-wise reconstruction and the saliency that R weighs with, against float64 oracles written from the equations."""

from collections.abc import Iterator
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from salq.calibration.fit import Factors, FitData, loss_terms, losses_at_start
from salq.calibration.frozen_block import dequantized_block
from salq.calibration.linears import fit_linears
from salq.calibration.objectives import AllTargets, OutputMSE, Targets, channel_weights
from salq.calibration.recipe import Fit
from salq.calibration.regularizers import WeightPreservation
from salq.calibration.sliced_wasserstein import SlicedWasserstein
from salq.calibration.streams import Streams
from salq.calibration.student import Student
from salq.core.events import StepDone
from salq.models.capture import run_block
from salq.models.llama import LINEARS, SHARED_INPUTS, Llama
from salq.quant.adapter import LoRA
from salq.quant.clipping import LWC
from salq.quant.spec import QuantSpec
from tests.parity import oracles

SPEC = QuantSpec(bits=2, group_size=32)


def seeded(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def student_and_data(model: Llama, tokens: Tensor) -> tuple[Student, FitData, Streams]:
    """Block 1, whose two streams differ: block 0 is quantized on the way."""
    streams = Streams(model, tokens, torch.device("cpu"))
    first = Student(model.blocks[0], LINEARS, SPEC, LWC(), None, torch.Generator())
    streams.targets(model.blocks[0], augmented=False)
    streams.advance(dequantized_block(model.blocks[0], first.freeze()))
    targets = streams.targets(model.blocks[1], augmented=True)
    student = Student(model.blocks[1], LINEARS, SPEC, LWC(), LoRA(rank=2), torch.Generator().manual_seed(0))
    return student, FitData(streams.quantized, streams.kwargs, targets, None, 1), streams


def test_sliced_wasserstein_distance() -> None:
    term = SlicedWasserstein(projections=5)
    student, full = seeded(2, 3, 4, seed=1), seeded(2, 3, 4, seed=2)
    directions = torch.randn(4, 5, generator=torch.Generator().manual_seed(9)).double().numpy()
    got = float(term.distance(student, full, torch.Generator().manual_seed(9)))
    # the directions are normalised in float32
    assert got == pytest.approx(oracles.sliced_wasserstein(student.reshape(6, 4).numpy(), full.reshape(6, 4).numpy(), directions), rel=1e-6)
    assert float(term.distance(full, full, torch.Generator().manual_seed(9))) == 0.0


def test_sliced_wasserstein_gradient() -> None:
    term = SlicedWasserstein(projections=3)
    student, full = seeded(1, 4, 3, seed=1).requires_grad_(), seeded(1, 4, 3, seed=2)
    assert torch.autograd.gradcheck(lambda y: term.distance(y, full, torch.Generator().manual_seed(9)), student)


def test_sliced_wasserstein_takes_its_share_of_the_output_loss(tiny: Llama, tokens: Tensor) -> None:
    """C' = (1 - w) C + w kappa SW with kappa = mean(C) / (mean(SW) + 1e-6) at the start; blocks before the first one have C alone."""
    student, data, _ = student_and_data(tiny, tokens)
    term = SlicedWasserstein(weight=0.2, projections=8, start_block=1)
    stage = Fit(objective=OutputMSE(), sliced_wasserstein=term, batch_size=4)
    start, rows = losses_at_start(stage, student, data), torch.arange(4)
    with torch.no_grad():
        terms = loss_terms(stage, student, data, rows, Factors.of(stage, data, start), torch.Generator().manual_seed(3))
        distance = term.distance(run_block(student.block, data.inputs, data.kwargs), data.targets.on_full, torch.Generator().manual_seed(3))
    assert float(terms["output"]) == pytest.approx(0.8 * start.output, rel=1e-5)
    assert float(terms["sliced_wasserstein"]) == pytest.approx(0.2 * start.output / (start.sliced_wasserstein + 1e-6) * float(distance), rel=1e-5)
    assert term.factor(0, start.output, start.sliced_wasserstein) == 0.0
    assert SlicedWasserstein(weight=0.2, scaled=False).factor(0, 5.0, 7.0) == 0.2


@pytest.mark.parametrize("normalize", ["raw", "token"])
def test_output_loss_weighted_by_the_saliency_of_channels(normalize: Literal["raw", "token"]) -> None:
    """w_c = sum_j F_cj / mean over c; the mean square of errors and energies becomes that of w."""
    saliency, full, quantized, student = seeded(4, 6).square(), seeded(2, 3, 4, seed=1), seeded(2, 3, 4, seed=2), seeded(2, 3, 4, seed=3)
    weights = saliency.numpy().sum(1) / saliency.numpy().sum(1).mean()
    targets = Targets(full, quantized, channel_weights(saliency))
    energy = (weights * full.numpy() ** 2).mean(-1) if normalize == "token" else 1.0
    want = sum(((weights * (student - target).numpy() ** 2).mean(-1) / energy).mean() for target in (full, quantized))
    assert float(OutputMSE(normalize=normalize, channels="saliency").loss(student, targets)) == pytest.approx(want, rel=1e-12)
    assert float(OutputMSE(normalize=normalize).loss(student, targets)) != pytest.approx(want, rel=1e-3)
    assert channel_weights(torch.zeros(4, 6)) is None


def test_layer_wise_inputs_targets_and_loss(tiny: Llama, tokens: Tensor) -> None:
    """Each group sees X of the original, and X_q through block 0 and the frozen linears before it; its loss is that of the paper."""
    student, data, streams = student_and_data(tiny, tokens)
    stage = Fit(objective=OutputMSE(augmented=True), batch_size=4)
    seen: list[FitData] = []
    frozen = student.freeze()

    def fit(part: Student, part_data: FitData, number: int) -> Iterator[StepDone]:
        seen.append(part_data)
        names = list(SHARED_INPUTS.values())[number]
        original = captured(tiny.blocks[1], streams.full, names[0], streams)
        done = {name: frozen[name] for group in list(SHARED_INPUTS.values())[:number] for name in group}
        quantized = captured(dequantized_block(tiny.blocks[1], done), streams.quantized, names[0], streams)
        assert np.allclose(part_data.inputs.numpy(), quantized, atol=1e-5)
        weight = np.concatenate([tiny.linears(1)[name].weight.double().numpy() for name in names])
        fake = np.concatenate([part.linears[name].fake_weight().detach().double().numpy() for name in names])
        want = oracles.linear_loss(original, quantized, weight, fake)
        assert losses_at_start(stage, part, part_data).output == pytest.approx(want, rel=1e-3)
        yield StepDone(1, stage.name, 1, 1, {"output": want})

    events = list(fit_linears([stage], student, tiny.blocks[1], streams, data, fit))
    assert len(seen) == len(SHARED_INPUTS)
    assert [(event.step, event.of) for event in events] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert not torch.equal(seen[1].inputs, captured_tensor(tiny.blocks[1], streams.quantized, "self_attn.o_proj", streams))


def captured_tensor(block: nn.Module, hidden: Tensor, name: str, streams: Streams) -> Tensor:
    found: list[Tensor] = []
    handle = block.get_submodule(name).register_forward_pre_hook(lambda _, args: found.append(args[0]))
    with torch.no_grad():
        run_block(block, hidden, streams.kwargs)
    handle.remove()
    return found[0]


def captured(block: nn.Module, hidden: Tensor, name: str, streams: Streams) -> np.ndarray:
    return captured_tensor(block, hidden, name, streams).double().numpy()


@pytest.mark.parametrize("by_mean", [False, True])
@pytest.mark.parametrize("quantile", [None, 0.5, 0.97])
def test_saliency_as_the_regularizer_weighs_with_it(quantile: float | None, by_mean: bool) -> None:
    saliency = {name: seeded(5, 8, seed=seed).square().float() for seed, name in enumerate(("q", "down"))}
    term = WeightPreservation(saliency_quantile=quantile, saliency_scale="mean" if by_mean else None)
    got = term.prepared(saliency)
    want = oracles.cut_saliency({name: value.double().numpy() for name, value in saliency.items()}, quantile, by_mean=by_mean)
    assert got is not None
    for name, matrix in want.items():
        assert np.allclose(got[name].numpy(), matrix, rtol=1e-5)


def test_a_saliency_of_zeros_stays_zero() -> None:
    zeros = {"q": torch.zeros(3, 4)}
    got = WeightPreservation(saliency_quantile=0.9, saliency_scale="mean").prepared(zeros)
    assert got is not None
    assert not got["q"].any()
    assert WeightPreservation(weighted=False).prepared(zeros) is None


def test_targets_of_a_batch() -> None:
    full = seeded(3, 2, 4)
    assert torch.equal(AllTargets(full, None).batch(torch.tensor([2, 0])).on_full, full[[2, 0]])
