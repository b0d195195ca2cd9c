"""Perplexity, divergence and their errors: exact in the cases that are known by hand."""

import dataclasses
import json
import math
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from salq.core.drain import drain
from salq.core.errors import ConfigError, ModelError, TextError
from salq.core.events import Event, MetricReported, PhaseDone, PhaseStarted, PhaseStep
from salq.core.progress import fold
from salq.evaluation import scores
from salq.evaluation.scores import TokenScores, evaluate, perplexity, perplexity_of, ratio_estimate, score, score_window, summarise, window_nll
from salq.models.llama import Llama
from salq.models.tiny import tiny_llama
from tests.helpers import assert_close


@pytest.fixture(scope="module")
def noisy(tiny: Llama) -> Llama:
    """`tiny` with a little noise on every linear: a stand-in for a quantized model."""
    copy = dataclasses.replace(tiny, model=deepcopy(tiny.model))
    generator = torch.Generator().manual_seed(1)
    for block in range(copy.n_blocks):
        for linear in copy.linears(block).values():
            linear.weight.data.add_(0.02 * torch.randn(linear.weight.shape, generator=generator))
    return copy


def uniform_copy(tiny: Llama) -> Llama:
    """Every logit zero."""
    copy = dataclasses.replace(tiny, model=deepcopy(tiny.model))
    copy.model.model.norm.weight.data.zero_()
    return copy


def test_a_model_against_itself(tiny: Llama, tokens: Tensor) -> None:
    result = drain(score(tiny, tiny, tokens))
    assert result.kl == result.kl_median == result.kl_p99 == 0
    assert result.top1_agreement == 1
    assert result.perplexity == result.original_perplexity
    assert (result.tokens, result.windows, result.window, result.nonfinite_tokens) == (4 * 23, 4, 24, 0)


def test_a_uniform_model_has_the_perplexity_of_its_vocabulary(tiny: Llama, tokens: Tensor) -> None:
    uniform = uniform_copy(tiny)
    assert perplexity(uniform, tokens).value == pytest.approx(tiny.config.vocab_size, rel=1e-6)
    assert perplexity(uniform, tokens).standard_error == pytest.approx(0, abs=1e-3)


def test_kl_to_uniform_is_the_missing_entropy(tiny: Llama, tokens: Tensor) -> None:
    result = score_window(tiny, uniform_copy(tiny), tokens[0])
    log_p = tiny.model(input_ids=tokens[:1]).logits[0, :-1].double().log_softmax(-1)
    entropy = -(log_p.exp() * log_p).sum(-1)
    assert_close("kl", result.kl, math.log(tiny.config.vocab_size) - entropy, atol=1e-5)


def test_the_perplexity_of_one_model_is_that_of_the_pair(tiny: Llama, noisy: Llama, tokens: Tensor) -> None:
    pair = drain(score(tiny, noisy, tokens))
    assert perplexity(tiny, tokens).value == pytest.approx(pair.original_perplexity, rel=1e-6)
    assert perplexity(noisy, tokens).value == pytest.approx(pair.perplexity, rel=1e-6)
    assert perplexity(noisy, tokens).standard_error == pytest.approx(pair.perplexity_se, rel=1e-4)


def test_the_head_in_pieces_gives_the_same(tiny: Llama, noisy: Llama, tokens: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, nll = score_window(tiny, noisy, tokens[0]), window_nll(noisy, tokens[0])
    monkeypatch.setattr(scores, "HEAD_BYTES", 16 * 5 * tiny.config.vocab_size)  # 5 tokens at a time
    for name, want in whole._asdict().items():
        assert_close(name, getattr(score_window(tiny, noisy, tokens[0]), name), want, atol=1e-6)
    assert_close("nll", window_nll(noisy, tokens[0]), nll, atol=1e-6)


def test_windows_of_different_lengths_weigh_by_their_tokens(tiny: Llama, noisy: Llama, tokens: Tensor) -> None:
    ragged = [tokens[0], tokens[1, :9], tokens[2, :2]]
    result = drain(score(tiny, noisy, ragged))
    each = [score_window(tiny, noisy, window) for window in ragged]
    assert result.per_window["tokens"] == [23, 8, 1]
    assert result.kl == pytest.approx(float(torch.cat([one.kl for one in each]).mean()))
    assert result.perplexity == pytest.approx(math.exp(torch.cat([one.nll for one in each]).mean()))
    assert result.window == 24


def test_events_are_a_whole_phase_and_metrics_are_json(tiny: Llama, noisy: Llama, tokens: Tensor) -> None:
    events: list[Event] = list(score(tiny, noisy, tokens, text="random bytes"))
    assert events[0] == PhaseStarted("evaluation", of=4, unit="windows")
    assert [event.done for event in events if isinstance(event, PhaseStep)] == [1, 2, 3, 4]
    assert isinstance(events[-1], PhaseDone)
    metrics = fold(events).metrics
    assert {"perplexity", "perplexity_se", "perplexity_original", "kl", "kl_median", "kl_p99", "top1_agreement", "per_window"} <= metrics.keys()
    assert (metrics["text"], metrics["windows"], metrics["window"]) == ("random bytes", 4, 24)
    assert metrics["perplexity"] > 1
    assert sum(metrics["per_window"]["kl"]) / metrics["tokens"] == pytest.approx(metrics["kl"])
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics
    assert sum(isinstance(event, MetricReported) for event in events) == len(metrics)


def test_no_mode_leaks_between_windows(tiny: Llama, tokens: Tensor) -> None:
    events = score(tiny, tiny, tokens)
    next(events)
    next(events)
    assert torch.is_grad_enabled()


def test_nonfinite_predictions_are_counted_and_not_averaged_away(tiny: Llama, tokens: Tensor) -> None:
    broken = dataclasses.replace(tiny, model=deepcopy(tiny.model))
    broken.model.model.norm.weight.data[0] = torch.nan
    result = drain(score(tiny, broken, tokens))
    assert result.nonfinite_tokens == result.tokens
    assert math.isnan(result.perplexity)
    assert math.isnan(result.kl)
    assert math.isfinite(result.original_perplexity)
    metrics = result.metrics()
    assert metrics["perplexity"] is None
    assert metrics["nonfinite_tokens"] == result.tokens
    json.dumps(metrics, allow_nan=False)


def test_a_single_window_has_no_standard_error(tiny: Llama, noisy: Llama, tokens: Tensor) -> None:
    result = drain(score(tiny, noisy, tokens[:1]))
    assert result.perplexity_se is None
    assert result.kl_se is None


def test_the_standard_error_of_equal_windows_is_that_of_their_means() -> None:
    sums, tokens = [10.0, 14.0, 9.0, 12.0], [5, 5, 5, 5]
    means = np.array(sums) / 5
    estimate = ratio_estimate(sums, tokens)
    assert estimate.value == pytest.approx(means.mean())
    assert estimate.standard_error == pytest.approx(means.std(ddof=1) / 2)
    exp = perplexity_of(sums, tokens)
    assert exp.value == pytest.approx(math.exp(means.mean()))
    assert exp.standard_error == pytest.approx(exp.value * estimate.standard_error)


def test_a_hopeless_model_has_infinite_perplexity_not_an_overflow() -> None:
    assert perplexity_of([8000.0], [10]).value == math.inf


def test_quantiles_are_over_tokens_not_windows() -> None:
    kl = [torch.arange(0.0, 99.0, dtype=torch.float64), torch.tensor([1000.0], dtype=torch.float64)]
    windows = [TokenScores(torch.zeros_like(part), torch.zeros_like(part), part, torch.ones_like(part)) for part in kl]
    result = summarise(windows)
    assert result.kl_median == pytest.approx(49.5)
    assert result.kl_p99 == pytest.approx(98 + 0.01 * (1000 - 98))


@pytest.mark.parametrize("shape", [(0, 8), (2, 1)])
def test_windows_without_a_prediction_are_refused(tiny: Llama, shape: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match="at least one window of 2 to"):
        next(score(tiny, tiny, torch.zeros(shape, dtype=torch.long)))


def test_windows_beyond_the_context_are_refused(tiny: Llama) -> None:
    too_long = tiny.config.max_position_embeddings + 1
    with pytest.raises(ConfigError, match=f"got {too_long} to {too_long} tokens"):
        perplexity(tiny, torch.zeros(1, too_long, dtype=torch.long))


def test_models_with_other_tokens_are_refused(tiny: Llama, tokens: Tensor) -> None:
    config = deepcopy(tiny.config)
    other = dataclasses.replace(tiny, name="other", model=tiny_llama(config))
    other.model.config.vocab_size += 1
    with pytest.raises(ModelError, match="same tokenizer"):
        next(score(tiny, other, tokens))


def test_a_bfloat16_model_is_scored_in_float32(tiny: Llama, tokens: Tensor) -> None:
    half = dataclasses.replace(tiny, model=deepcopy(tiny.model).bfloat16())
    result = drain(score(tiny, half, tokens))
    assert result.perplexity == pytest.approx(result.original_perplexity, rel=0.02)
    assert 0 < result.kl < 1e-3


def test_the_python_call_draws_consecutive_windows_of_a_file(tiny: Llama, noisy: Llama, tmp_path: Path) -> None:
    path = tmp_path / "numbers.txt"
    path.write_text(" ".join(map(str, range(1000))), encoding="utf-8")
    result = evaluate(tiny, noisy, text=str(path), windows=3, window=32)
    assert (result.windows, result.window, result.tokens) == (3, 32, 3 * 31)
    assert result.text.startswith("numbers.txt")
    assert result.kl > 0
    with pytest.raises(TextError):
        evaluate(tiny, noisy, text=str(path), windows=1000, window=32)
