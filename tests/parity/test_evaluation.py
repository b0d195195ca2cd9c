"""Perplexity, KL and output error against their equations in float64 numpy."""

import dataclasses
from copy import deepcopy

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from salq.core.drain import drain
from salq.evaluation.errors import output_error, quantization_errors
from salq.evaluation.scores import score
from salq.models.llama import LINEARS, Llama
from salq.quant.frozen import rtn
from salq.quant.spec import QuantSpec
from tests.exact import float64_copy

Array = NDArray[np.float64]


@pytest.fixture(scope="module")
def rounded(tiny: Llama) -> Llama:
    """`tiny` with every linear at 3 bits, as plain floating-point weights."""
    copy = dataclasses.replace(tiny, model=deepcopy(tiny.model))
    for block in range(copy.n_blocks):
        for linear in copy.linears(block).values():
            linear.weight.data.copy_(rtn(linear.weight, QuantSpec(bits=3, group_size=32)).dequantize())
    return copy


def logits_of(model: Llama, window: Tensor) -> Array:
    return float64_copy(model).model(input_ids=window[None]).logits[0, :-1].numpy()


def log_softmax(logits: Array) -> Array:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def test_scores(tiny: Llama, rounded: Llama, tokens: Tensor) -> None:
    nll, nll_original, kl, agrees = [], [], [], []
    for window in tokens:
        log_p, log_q = log_softmax(logits_of(tiny, window)), log_softmax(logits_of(rounded, window))
        positions = np.arange(len(window) - 1)
        nll_original.append(-log_p[positions, window[1:].numpy()])
        nll.append(-log_q[positions, window[1:].numpy()])
        kl.append((np.exp(log_p) * (log_p - log_q)).sum(axis=1))
        agrees.append(log_p.argmax(axis=1) == log_q.argmax(axis=1))
    result = drain(score(tiny, rounded, tokens))
    assert result.perplexity == pytest.approx(np.exp(np.mean(nll)), rel=1e-5)
    assert result.original_perplexity == pytest.approx(np.exp(np.mean(nll_original)), rel=1e-5)
    assert result.kl == pytest.approx(np.mean(kl), rel=1e-4)
    assert result.kl_median == pytest.approx(np.median(kl), rel=1e-3)
    assert result.kl_p99 == pytest.approx(np.quantile(kl, 0.99), rel=1e-4)
    assert result.top1_agreement == pytest.approx(np.mean(agrees))
    assert result.per_window["kl"] == pytest.approx(np.sum(kl, axis=1).tolist(), rel=1e-4)
    means = np.mean(nll, axis=1)
    assert result.perplexity_se == pytest.approx(np.exp(means.mean()) * means.std(ddof=1) / np.sqrt(len(means)), rel=1e-4)


def test_output_and_weight_errors(tiny: Llama, tokens: Tensor) -> None:
    """|(W - W_hat) X| / |W X| with X kept whole: every input of every linear in one float64 forward pass."""
    exact = float64_copy(tiny)
    inputs: dict[tuple[int, str], Array] = {}

    def keep(block: int, name: str):
        return lambda _, args: inputs.__setitem__((block, name), args[0].flatten(0, 1).numpy())

    handles = [linear.register_forward_pre_hook(keep(b, name)) for b in range(exact.n_blocks) for name, linear in exact.linears(b).items()]
    exact.model(input_ids=tokens)
    for handle in handles:
        handle.remove()
    specs = [QuantSpec(bits=2, group_size=64), QuantSpec(bits=8, group_size=None), QuantSpec(bits=4, group_size=32, symmetric=True)]
    for grid in drain(quantization_errors(tiny, tokens, specs)):
        for (block, name), x in inputs.items():
            weight = tiny.linears(block)[name].weight
            before, after = weight.double().numpy(), rtn(weight, grid.spec).dequantize().double().numpy()
            column = LINEARS.index(name)
            moved = np.linalg.norm(before - after) / np.linalg.norm(before)
            felt = np.linalg.norm((before - after) @ x.T) / np.linalg.norm(before @ x.T)
            assert grid.weight_error[block][column] == pytest.approx(moved, rel=1e-5)
            assert grid.output_error is not None
            assert grid.output_error[block][column] == pytest.approx(felt, rel=1e-3)


def test_output_error_beside_massive_activations() -> None:
    """One channel 1e4 times the others, as attention sinks have: X X^T in float32 still gives the error of the small channels."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(500, 96, generator=generator)
    x[0, 7] = 1e4
    weight = torch.randn(64, 96, generator=generator)
    quantized = weight + 1e-3 * torch.randn(64, 96, generator=generator)
    quantized[:, 7] = weight[:, 7]  # the massive channel itself is exact: the hardest case for the trace form
    want = np.linalg.norm((weight - quantized).double() @ x.double().T) / np.linalg.norm(weight.double() @ x.double().T)
    assert output_error(weight, quantized, x.T @ x) == pytest.approx(want, rel=1e-3)
