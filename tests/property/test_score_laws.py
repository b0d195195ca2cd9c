"""Laws of the scores that hold for every pair of predictions and every division into windows."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from salq.evaluation.scores import TokenScores, compare_logits, ratio_estimate, summarise

SEEDS = st.integers(0, 2**20)


def random_logits(seed: int, tokens: int, vocab: int, spread: float) -> Tensor:
    return spread * torch.randn(tokens, vocab, generator=torch.Generator().manual_seed(seed))


@given(seed=SEEDS, tokens=st.integers(1, 9), vocab=st.integers(2, 50), spread=st.floats(0, 60), change=st.floats(0, 60))
def test_kl_is_never_negative_and_zero_for_equal_predictions(seed: int, tokens: int, vocab: int, spread: float, change: float) -> None:
    p = random_logits(seed, tokens, vocab, spread)
    q = p + random_logits(seed + 1, tokens, vocab, change)
    targets = torch.randint(vocab, (tokens,), generator=torch.Generator().manual_seed(seed))
    want = (p.double().softmax(-1) * (p.double().log_softmax(-1) - q.double().log_softmax(-1))).sum(-1)
    _, _, same, agrees = compare_logits(p.clone(), p.clone(), targets)
    assert torch.equal(same, torch.zeros(tokens))
    assert agrees.all()
    _, _, kl, _ = compare_logits(p.clone(), q.clone(), targets)
    assert (kl >= 0).all()
    torch.testing.assert_close(kl.double(), want, rtol=1e-4, atol=1e-4)


@given(seed=SEEDS, shift=st.floats(-50, 50))
def test_a_constant_added_to_the_logits_changes_nothing(seed: int, shift: float) -> None:
    p = random_logits(seed, 4, 20, 3.0)
    _, nll, kl, agrees = compare_logits(p.clone(), p + shift, torch.arange(4))
    torch.testing.assert_close(nll, -p.log_softmax(-1)[torch.arange(4), torch.arange(4)], rtol=0, atol=2e-5)
    assert float(kl.max()) < 1e-4
    assert agrees.all()


@given(seed=SEEDS, cuts=st.lists(st.integers(1, 29), min_size=1, max_size=6, unique=True))
def test_any_division_into_windows_has_the_same_means(seed: int, cuts: list[int]) -> None:
    """Token-weighted: a ragged last window weighs by its tokens, never as a whole window."""
    generator = torch.Generator().manual_seed(seed)
    columns = [torch.rand(30, dtype=torch.float64, generator=generator) for _ in range(3)]
    columns.append((torch.rand(30, generator=generator) < 0.5).double())
    edges = [0, *sorted(cuts), 30]
    windows = [TokenScores(*(column[a:b] for column in columns)) for a, b in pairwise(edges)]
    whole, divided = summarise([TokenScores(*columns)]), summarise(windows)
    for name in ("perplexity", "original_perplexity", "kl", "kl_median", "kl_p99", "top1_agreement", "tokens"):
        assert getattr(divided, name) == pytest.approx(getattr(whole, name))


@given(st.lists(st.tuples(st.floats(0, 1e3), st.integers(1, 100)), min_size=2, max_size=20), st.floats(0.1, 10))
def test_standard_errors_are_never_negative_and_scale_with_the_sums(windows: list[tuple[float, int]], factor: float) -> None:
    sums, tokens = zip(*windows, strict=True)
    plain, scaled = ratio_estimate(sums, tokens), ratio_estimate([factor * s for s in sums], tokens)
    assert plain.standard_error is not None
    assert plain.standard_error >= 0
    assert scaled.value == pytest.approx(factor * plain.value)
    assert scaled.standard_error == pytest.approx(factor * plain.standard_error, abs=1e-9)
    assert ratio_estimate([n * 1.5 for n in tokens], tokens).standard_error == pytest.approx(0, abs=1e-9)
    assert math.isfinite(plain.standard_error)
