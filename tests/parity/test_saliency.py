"""Saliency against its equation: F = 1/N sum_s (d nll_s / d W)^2, by one autograd pass per sample in float64, weight gradients and all."""

import pytest
import torch
from torch import Tensor

from salq.core.drain import drain
from salq.models.llama import Llama, load_model
from salq.models.tiny import save_tiny
from salq.saliency.fisher import fisher_diagonal
from tests.exact import float64_copy, log_probabilities
from tests.helpers import assert_close, random_tokens


def oracle(model: Llama, tokens: Tensor) -> dict[str, Tensor]:
    """By parameter name, from the definition."""
    exact = float64_copy(model)
    weights = {name: weight for name, weight in exact.model.named_parameters() if name.endswith("_proj.weight")}
    total = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for weight in weights.values():
        weight.requires_grad_(True)
    for sample in tokens:
        nll = -log_probabilities(exact, sample).gather(-1, sample[1:, None]).sum()
        for name, gradient in zip(weights, torch.autograd.grad(nll, list(weights.values())), strict=True):
            total[name] += gradient**2
    return {name: value / len(tokens) for name, value in total.items()}


# Grouped heads and tied embeddings; full heads and untied; rope scaling.
@pytest.mark.parametrize("entry", ["smollm2-135m", "llama-2-7b", "llama-3.2-1b"])
def test_every_matrix(entry: str, tmp_path) -> None:
    model = load_model(str(save_tiny(tmp_path, entry)), device="cpu")
    tokens = random_tokens(model.config.vocab_size, n_samples=3, seq_len=16, seed=5)
    wanted = oracle(model, tokens)
    got = drain(fisher_diagonal(model, tokens, batch_size=2))
    for block, matrices in got.items():
        for name, matrix in matrices.items():
            want = wanted[f"model.layers.{block}.{name}.weight"]
            # float32 gradients: 1e-5 of the largest entry covers the entries that are sums of cancelling terms
            assert_close(f"{block} {name}", matrix, want, rtol=1e-3, atol=1e-5 * float(want.max()))
            assert float(matrix.double().sum() / want.sum()) == pytest.approx(1, rel=1e-5)


def test_published_sum_follows_from_the_mean(tiny: Llama, tokens: Tensor) -> None:
    """The released G sums squared gradients of token-mean cross entropies, G = (N / T^2) F with T predicted tokens."""
    exact = float64_copy(tiny)
    weight = exact.linears(1)["mlp.up_proj"].weight.requires_grad_(True)
    published = torch.zeros_like(weight)
    for sample in tokens:
        loss = torch.nn.functional.nll_loss(log_probabilities(exact, sample), sample[1:])
        published += torch.autograd.grad(loss, weight)[0] ** 2
    saliency = drain(fisher_diagonal(tiny, tokens))[1]["mlp.up_proj"]
    predicted = tokens.shape[1] - 1
    assert_close("G", saliency * len(tokens) / predicted**2, published, rtol=1e-3, atol=1e-5 * float(published.max()))
