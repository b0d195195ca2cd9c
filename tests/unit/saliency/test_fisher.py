"""The Fisher diagonal: per-sample squares whatever the batch, chunks of blocks that agree, no trace left in the model."""

import dataclasses
from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import Tensor

from salq.core.drain import drain
from salq.models.llama import LINEARS, Llama
from salq.saliency import fisher
from salq.saliency.fisher import Fisher, add_squared_gradients, block_chunks, fisher_diagonal
from tests.exact import float64_copy, log_probabilities
from tests.helpers import assert_close


def assert_same(got: Fisher, want: Fisher, rtol: float = 1e-4) -> None:
    """Equal to float32 rounding, relative to the largest entry of each matrix."""
    assert got.keys() == want.keys()
    for block, matrices in want.items():
        for name, matrix in matrices.items():
            assert_close(f"{block} {name}", got[block][name], matrix, rtol=rtol, atol=1e-6 * float(matrix.max()))


def test_shapes_dtype_and_counts(tiny: Llama, tokens: Tensor) -> None:
    events = fisher_diagonal(tiny, tokens, batch_size=3)
    assert next(events) == 3
    assert next(events) == 4
    result = drain(events)
    assert list(result) == [0, 1]
    for block, matrices in result.items():
        assert tuple(matrices) == LINEARS
        for name, linear in tiny.linears(block).items():
            assert matrices[name].shape == linear.weight.shape
            assert matrices[name].dtype == torch.float32
            assert (matrices[name] >= 0).all()
            assert matrices[name].sum() > 0


@pytest.mark.parametrize("batch_size", [1, 3, 4, 100])
def test_independent_of_batch_size(tiny: Llama, tokens: Tensor, batch_size: int) -> None:
    assert_same(drain(fisher_diagonal(tiny, tokens, batch_size=batch_size)), drain(fisher_diagonal(tiny, tokens, batch_size=2)))


def test_it_is_not_the_square_of_the_batch_gradient(tiny: Llama, tokens: Tensor) -> None:
    same_twice = drain(fisher_diagonal(tiny, tokens[:1].repeat(2, 1), batch_size=2))
    assert_same(same_twice, drain(fisher_diagonal(tiny, tokens[:1])))  # the squared batch gradient would be 4 times (sum) as large


def test_any_split_into_blocks_gives_the_same(tiny: Llama, tokens: Tensor) -> None:
    whole = drain(fisher_diagonal(tiny, tokens))
    for block in (0, 1):
        part = drain(fisher_diagonal(tiny, tokens, blocks=range(block, block + 1)))
        assert_same(part, {block: whole[block]})


def test_the_head_in_pieces_gives_the_same(tiny: Llama, tokens: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = drain(fisher_diagonal(tiny, tokens))
    monkeypatch.setattr(fisher, "HEAD_BYTES", 12 * 7 * tiny.config.vocab_size)  # 7 tokens at a time
    assert_same(drain(fisher_diagonal(tiny, tokens)), whole)


def test_finite_differences_on_a_float64_model(tiny: Llama, tokens: Tensor) -> None:
    """(nll(w + h) - nll(w - h)) / 2h, squared: the largest entry of every matrix and one in its middle."""
    model = float64_copy(tiny)
    sample = tokens[:1]
    saliency = drain(fisher_diagonal(model, sample))
    for block in (0, 1):
        for name, linear in model.linears(block).items():
            matrix = saliency[block][name]
            flat = linear.weight.view(-1)
            for index in (int(matrix.argmax()), int(matrix.flatten().argsort()[matrix.numel() // 2])):
                slope = _slope(lambda: _nll(model, sample), flat, index)
                assert slope**2 == pytest.approx(float(matrix.flatten()[index]), rel=1e-4), f"{block} {name} {index}"


def _nll(model: Llama, sample: Tensor) -> float:
    return -float(log_probabilities(model, sample[0]).gather(-1, sample[0, 1:, None]).sum())


def _slope(value: Callable[[], float], flat: Tensor, index: int, step: float = 1e-5) -> float:
    start = float(flat[index])
    with torch.no_grad():
        flat[index] = start + step
        above = value()
        flat[index] = start - step
        below = value()
        flat[index] = start
    return (above - below) / (2 * step)


def test_the_model_is_left_as_it_was(tiny: Llama, tokens: Tensor) -> None:
    before = {name: weight.clone() for name, weight in tiny.model.named_parameters()}
    events = fisher_diagonal(tiny, tokens, batch_size=2)
    next(events)
    assert torch.is_grad_enabled()  # no mode leaks into the consumer between two batches
    events.close()
    for name, weight in tiny.model.named_parameters():
        assert torch.equal(weight, before[name])
        assert weight.grad is None
        assert not weight.requires_grad
    for module in tiny.model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def test_works_for_a_consumer_without_gradients(tiny: Llama, tokens: Tensor) -> None:
    with torch.no_grad():
        saliency = drain(fisher_diagonal(tiny, tokens))
    assert saliency[0]["self_attn.q_proj"].sum() > 0


def test_nonfinite_gradients_are_not_hidden(tiny: Llama, tokens: Tensor) -> None:
    broken = dataclasses.replace(tiny, model=deepcopy(tiny.model))
    with torch.no_grad():
        broken.linears(1)["mlp.down_proj"].weight[0, 0] = torch.nan
    saliency = drain(fisher_diagonal(broken, tokens))
    assert saliency[1]["mlp.down_proj"].isnan().all()


def test_squares_are_taken_in_float32_for_bfloat16_activations() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(3, 5, 8, generator=generator).bfloat16()
    gradient = torch.randn(3, 5, 4, generator=generator).bfloat16()
    total = torch.zeros(4, 8)
    add_squared_gradients(total, inputs, gradient)
    wanted = (gradient.double().transpose(1, 2) @ inputs.double()).square().sum(0)
    assert_close("total", total, wanted, rtol=1e-5)


def test_chunks_cover_every_block_once_within_the_budget(tiny: Llama) -> None:
    block_gb = 4e-9 * sum(linear.weight.numel() for linear in tiny.linears(0).values())
    assert block_chunks(tiny) == [range(2)]
    assert block_chunks(tiny, 2.01 * block_gb) == [range(2)]
    assert block_chunks(tiny, 1.5 * block_gb) == [range(1), range(1, 2)]
    assert block_chunks(tiny, 0.0) == [range(1), range(1, 2)]


def test_a_bfloat16_model_gives_nearly_the_same_map_in_float32(tiny: Llama, tokens: Tensor) -> None:
    """What runs on a GPU: activations in bfloat16 (3 digits), squares and sums in float32."""
    half = dataclasses.replace(tiny, model=deepcopy(tiny.model).bfloat16())
    exact, rough = drain(fisher_diagonal(tiny, tokens)), drain(fisher_diagonal(half, tokens))
    for block, matrices in exact.items():
        for name, matrix in matrices.items():
            assert rough[block][name].dtype == torch.float32
            assert float(rough[block][name].sum() / matrix.sum()) == pytest.approx(1, abs=0.1)
            assert float(torch.corrcoef(torch.stack([rough[block][name].flatten(), matrix.flatten()]))[0, 1]) > 0.99
