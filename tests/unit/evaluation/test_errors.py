"""Error grids: several specs and finished matrices in one pass, the right sentence for a group size that does not fit."""

import dataclasses
import json
from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from salq.core.drain import drain
from salq.core.errors import ShapeError
from salq.core.events import PhaseDone, PhaseStarted, PhaseStep
from salq.core.progress import fold
from salq.evaluation.errors import ErrorGrid, output_error, quantization_errors, weight_error
from salq.models.llama import LINEARS, Llama
from salq.quant.frozen import FrozenLinear, rtn
from salq.quant.spec import QuantSpec
from tests.helpers import random_weight

W2, W3, W8 = (QuantSpec(bits=bits, group_size=32) for bits in (2, 3, 8))


def cells(grid: list[list[float | None]] | None) -> list[float]:
    assert grid is not None
    return [value for row in grid for value in row if value is not None]


def finished(model: Llama, blocks: range, spec: QuantSpec) -> dict[int, dict[str, FrozenLinear]]:
    return {b: {name: rtn(linear.weight, spec) for name, linear in model.linears(b).items()} for b in blocks}


def test_more_bits_are_better_everywhere(tiny: Llama, tokens: Tensor) -> None:
    two, three, eight = drain(quantization_errors(tiny, tokens, [W2, W3, W8]))
    for worse, better in ((two, three), (three, eight)):
        assert len(cells(worse.weight_error)) == len(cells(worse.output_error)) == 2 * 7
        assert all(a > b for a, b in zip(cells(worse.weight_error), cells(better.weight_error), strict=True))
        assert all(a > b for a, b in zip(cells(worse.output_error), cells(better.output_error), strict=True))
    assert max(cells(eight.output_error)) < 0.02


def test_specs_together_are_specs_alone(tiny: Llama, tokens: Tensor) -> None:
    together = drain(quantization_errors(tiny, tokens, [W2, W3]))
    for grid in together:
        assert drain(quantization_errors(tiny, tokens, [grid.spec])) == [grid]


def test_the_batch_size_does_not_matter(tiny: Llama, tokens: Tensor) -> None:
    [one], [three] = (drain(quantization_errors(tiny, tokens, [W3], batch_size=size)) for size in (1, 3))
    assert cells(one.output_error) == pytest.approx(cells(three.output_error), rel=1e-4)


def test_without_text_only_weights_are_compared(tiny: Llama, tokens: Tensor) -> None:
    [bare], [full] = (drain(quantization_errors(tiny, text, [W3])) for text in (None, tokens))
    assert bare.output_error is None
    assert bare.weight_error == full.weight_error


def test_finished_matrices_get_a_grid_of_their_own(tiny: Llama, tokens: Tensor) -> None:
    rounded, calibrated = drain(quantization_errors(tiny, tokens, [W3], frozen=finished(tiny, range(1), W3)))
    assert (rounded.made_by, calibrated.made_by, calibrated.spec) == ("rtn", "calibrated", W3)
    assert calibrated.weight_error[0] == rounded.weight_error[0]
    assert calibrated.output_error is not None
    assert calibrated.output_error[1] == calibrated.weight_error[1] == [None] * 7


def test_an_adapter_counts(tiny: Llama, tokens: Tensor) -> None:
    """A full-rank adapter that holds the residual brings the error down to float16 rounding."""
    weight = tiny.linears(0)["self_attn.k_proj"].weight
    bare = rtn(weight, W2)
    residual = weight - bare.dequantize()
    repaired = dataclasses.replace(bare, lora_A=torch.eye(weight.shape[1]).half(), lora_B=(residual / 2).half(), scaling=2.0)
    [grid] = drain(quantization_errors(tiny, tokens, [], frozen={0: {"self_attn.k_proj": repaired}}))
    assert len(cells(grid.weight_error)) == 1
    assert cells(grid.weight_error)[0] < 1e-3
    assert cells(grid.output_error)[0] < 1e-3


def test_events_are_a_whole_phase_and_the_report_is_json(tiny: Llama, tokens: Tensor) -> None:
    events = list(quantization_errors(tiny, tokens, [W2, W3]))
    assert events[0] == PhaseStarted("errors", of=2, unit="blocks")
    assert [event.done for event in events if isinstance(event, PhaseStep)] == [1, 2]
    assert isinstance(events[-1], PhaseDone)
    report = fold(events).metrics["errors"]
    assert [grid["tag"] for grid in report] == ["w2g32", "w3g32"]
    assert report[0]["linears"] == list(LINEARS)
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_a_group_size_that_does_not_fit_is_refused_before_any_work(tiny: Llama, tokens: Tensor) -> None:
    events = quantization_errors(tiny, tokens, [W3, QuantSpec(bits=3, group_size=128)])
    with pytest.raises(ShapeError, match=r"0.self_attn.q_proj: in_features 192 is not a multiple of group size 128; use .*64"):
        next(events)


def test_matrices_of_another_model_are_refused(tiny: Llama) -> None:
    foreign = {0: {"self_attn.q_proj": rtn(random_weight(8, 32), W3)}}
    with pytest.raises(ShapeError, match=r"block 0, self_attn.q_proj is 8 x 32"):
        drain(quantization_errors(tiny, None, [], frozen=foreign))


def test_nonfinite_weights_are_counted_and_have_no_error(tiny: Llama, tokens: Tensor) -> None:
    broken = dataclasses.replace(tiny, model=deepcopy(tiny.model))
    broken.linears(0)["mlp.down_proj"].weight.data[0, :3] = torch.nan
    [grid] = drain(quantization_errors(broken, tokens, [W3]))
    column = LINEARS.index("mlp.down_proj")
    assert grid.n_nonfinite[0] == [0] * column + [3]
    assert grid.weight_error[0][column] is None
    assert grid.weight_error[0][0] is not None
    assert grid.output_error is not None
    assert grid.output_error[1] == [None] * 7  # everything after it has NaN inputs
    assert min(grid.n_nonfinite[1]) > 0
    json.dumps(grid.to_json(), allow_nan=False)


def test_the_model_is_left_as_it_was(tiny: Llama, tokens: Tensor) -> None:
    before = {name: weight.clone() for name, weight in tiny.model.named_parameters()}
    events = quantization_errors(tiny, tokens, [W3])
    next(events)
    next(events)
    assert torch.is_grad_enabled()
    events.close()
    assert all(torch.equal(weight, before[name]) for name, weight in tiny.model.named_parameters())
    assert not any(module._forward_pre_hooks for module in tiny.model.modules())


def test_ratios_by_hand() -> None:
    weight = torch.tensor([[3.0, 4.0]])
    assert weight_error(weight, torch.tensor([[3.0, 0.0]])) == pytest.approx(4 / 5)
    assert weight_error(torch.zeros(2, 2), torch.zeros(2, 2)) == 0
    assert weight_error(torch.zeros(2, 2), torch.ones(2, 2)) is None
    inputs = torch.tensor([[1.0, 1.0], [2.0, 0.0]])  # two tokens
    # outputs 7 and 6, off by 4 and 0
    assert output_error(weight, torch.tensor([[3.0, 0.0]]), inputs.T @ inputs) == pytest.approx(4 / (49 + 36) ** 0.5)
    assert ErrorGrid(W2, "rtn").output_error is None


def test_the_saliency_weighted_error_is_half_the_fisher_weighted_square(tiny: Llama, tokens: Tensor, generator: torch.Generator) -> None:
    fisher = {name: torch.rand(linear.weight.shape, generator=generator) for name, linear in tiny.linears(0).items()}  # type: ignore[arg-type]
    saliency = SimpleNamespace(block=lambda _: fisher)
    [grid] = drain(quantization_errors(tiny, None, [W3], saliency=saliency))  # type: ignore[arg-type]
    assert grid.weighted_error is not None
    for column, name in enumerate(LINEARS):
        weight = tiny.linears(1)[name].weight.detach().double()  # type: ignore[union-attr, operator]
        moved = weight - rtn(weight.float(), W3).effective_weight().double()
        assert grid.weighted_error[1][column] == pytest.approx(float((fisher[name].double() * moved**2).sum() / 2), rel=1e-5)
    assert drain(quantization_errors(tiny, None, [W3]))[0].weighted_error is None
