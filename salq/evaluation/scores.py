"""Perplexity of a model, and how far a quantized model's predictions are from the original's.

For the end of every calibration run, `python -m salq evaluate` and the page; the per-window sums are what paired statistics resample.
Everything is teacher-forced: token t+1 of a window is predicted from the window's true tokens 1..t, windows do not see each other.
"""

import math
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor, nn

from salq.core.device import HEAD_BYTES, out_of_memory_as_error
from salq.core.drain import drain
from salq.core.errors import ConfigError, ModelError
from salq.core.events import Event, MetricReported, PhaseDone, PhaseStarted, PhaseStep
from salq.data.sources import load_text
from salq.data.windows import evaluation_windows
from salq.models.llama import Llama

Windows = Int[Tensor, "windows window"] | Sequence[Int[Tensor, " _"]]
"""Token windows; a sequence may hold windows of different lengths."""

TILE = 16
"""Matrix products are fastest for whole tiles of rows."""


class TokenScores(NamedTuple):
    """One window, one entry per predicted token (its length less one), float64 on the CPU, in nats.

    nll_original, nll: negative log-likelihood of the true token under each model. kl: KL(original || quantized) of the prediction.
    agrees: 1.0 where both models' most likely token is the same, else 0.0.
    """

    nll_original: Float64[Tensor, " tokens"]
    nll: Float64[Tensor, " tokens"]
    kl: Float64[Tensor, " tokens"]
    agrees: Float64[Tensor, " tokens"]


@dataclass(frozen=True)
class Estimate:
    """A mean per token and its standard error, which is None with a single window."""

    value: float
    standard_error: float | None


@dataclass(frozen=True)
class Scores:
    """A quantized model against its original on `windows` windows of `window` tokens of `text`; `tokens` of them were predicted.

    perplexity, original_perplexity: exp(mean nll per token). kl, kl_median, kl_p99: mean, median and 99th percentile over tokens of
    KL(original || quantized), nats per token. top1_agreement: share of tokens whose most likely prediction is the same.
    *_se: standard errors over windows (`ratio_estimate`, `perplexity_of`), None with a single window.
    per_window: sums over the tokens of each window, by name (tokens, nll, nll_original, kl, agrees).
    nonfinite_tokens: tokens whose nll or KL is not finite. They are not left out: the means they enter are then not finite either.
    """

    perplexity: float
    perplexity_se: float | None
    original_perplexity: float
    original_perplexity_se: float | None
    kl: float
    kl_se: float | None
    kl_median: float
    kl_p99: float
    top1_agreement: float
    nonfinite_tokens: int
    tokens: int
    windows: int
    window: int
    text: str
    per_window: dict[str, list[float]]

    def metrics(self) -> dict[str, Any]:
        """JSON values by their stable names, in the order of reading; null stands for what is not finite."""
        values = {
            "perplexity": self.perplexity,
            "perplexity_se": self.perplexity_se,
            "perplexity_original": self.original_perplexity,
            "perplexity_original_se": self.original_perplexity_se,
            "kl": self.kl,
            "kl_se": self.kl_se,
            "kl_median": self.kl_median,
            "kl_p99": self.kl_p99,
            "top1_agreement": self.top1_agreement,
            "nonfinite_tokens": self.nonfinite_tokens,
            "tokens": self.tokens,
            "windows": self.windows,
            "window": self.window,
            "text": self.text,
        }
        plain = {name: _finite(value) for name, value in values.items()}
        return plain | {"per_window": {name: [_finite(value) for value in sums] for name, sums in self.per_window.items()}}


def evaluate(original: Llama, quantized: Llama, *, text: str = "auto", windows: int = 8, window: int = 512) -> Scores:
    """Score `quantized` against `original` on `windows` consecutive windows of `window` tokens of the evaluation text.

    perplexity = exp(mean nll),  kl = mean over tokens of sum_v p_v (log p_v - log q_v), p the original's prediction; nats per token.
    text: auto, bundled, wikitext2, c4 or the path of a UTF-8 file, of which the last 20 % are read: its start may have been
    calibrated on. Raises TextError, ConfigError, ModelError, ResourceError.
    """
    chosen = load_text(text, "evaluation")
    return drain(score(original, quantized, evaluation_windows(chosen, original.tokenizer, windows, window), text=chosen.name))


def score(original: Llama, quantized: Llama, windows: Windows, *, text: str = "") -> Generator[Event, None, Scores]:
    """The phase "evaluation": one PhaseStep per window, then one MetricReported per entry of `Scores.metrics`; returns the Scores.

    Raises ConfigError for windows that a model cannot take and ModelError when the models' vocabularies differ.
    """
    _check(original, windows)
    if original.config.vocab_size != quantized.config.vocab_size:
        raise ModelError(
            f"{original.name} has {original.config.vocab_size} tokens and {quantized.name} {quantized.config.vocab_size}; "
            "predictions can be compared only between models with the same tokenizer."
        )
    started = time.monotonic()
    yield PhaseStarted("evaluation", of=len(windows), unit="windows")
    scored: list[TokenScores] = []
    for window in windows:
        scored.append(score_window(original, quantized, window))
        yield PhaseStep("evaluation", len(scored))
    scores = summarise(scored, text)
    for name, value in scores.metrics().items():
        yield MetricReported(name, value)
    yield PhaseDone("evaluation", time.monotonic() - started)
    return scores


def perplexity(model: Llama, windows: Windows) -> Estimate:
    """Perplexity of one model: exp(mean nll per predicted token). Raises ConfigError for windows that the model cannot take."""
    _check(model, windows)
    sums = [window_nll(model, window) for window in windows]
    return perplexity_of([float(nll.sum()) for nll in sums], [len(nll) for nll in sums])


@torch.no_grad()
def window_nll(model: Llama, window: Int[Tensor, " window"]) -> Float64[Tensor, " tokens"]:
    """Negative log-likelihood in nats of every token of one window but the first. Cross entropy in float32, returned in float64."""
    with out_of_memory_as_error(f"Scoring a window of {len(window)} tokens"):
        hidden = hidden_states(model, window)
        targets = window[1:].to(model.device)
        parts = [
            nn.functional.cross_entropy(head_logits(model, hidden[part]), targets[part], reduction="none")
            for part in token_slices(len(targets), model.config.vocab_size)
        ]
    return torch.cat(parts).double().cpu()


@torch.no_grad()
def score_window(original: Llama, quantized: Llama, window: Int[Tensor, " window"]) -> TokenScores:
    """Both models on one window. The two models may be on different devices.

    Only the final hidden states of the window are held; logits exist for HEAD_BYTES worth of tokens at a time. Log-probabilities are
    float32, sums over tokens float64.
    """
    with out_of_memory_as_error(f"Scoring a window of {len(window)} tokens"):
        hidden, hidden_quantized = hidden_states(original, window), hidden_states(quantized, window)
        targets = window[1:].to(original.device)
        parts = [
            compare_logits(head_logits(original, hidden[part]), head_logits(quantized, hidden_quantized[part]).to(original.device), targets[part])
            for part in token_slices(len(targets), original.config.vocab_size)
        ]
    return TokenScores(*(torch.cat(column).double().cpu() for column in zip(*parts, strict=True)))


def summarise(scored: Sequence[TokenScores], text: str = "") -> Scores:
    """Fold the token scores of all windows into the reported numbers; every token weighs the same, whatever its window's length."""
    tokens = [len(window.nll) for window in scored]
    sums = {name: [float(getattr(window, name).sum()) for window in scored] for name in TokenScores._fields}
    every = TokenScores(*(torch.cat(column) for column in zip(*scored, strict=True)))
    quantized, original = perplexity_of(sums["nll"], tokens), perplexity_of(sums["nll_original"], tokens)
    kl = ratio_estimate(sums["kl"], tokens)
    median, p99 = np.quantile(every.kl.numpy(), [0.5, 0.99])
    finite = torch.isfinite(every.nll) & torch.isfinite(every.nll_original) & torch.isfinite(every.kl)
    return Scores(
        perplexity=quantized.value,
        perplexity_se=quantized.standard_error,
        original_perplexity=original.value,
        original_perplexity_se=original.standard_error,
        kl=kl.value,
        kl_se=kl.standard_error,
        kl_median=float(median),
        kl_p99=float(p99),
        top1_agreement=sum(sums["agrees"]) / sum(tokens),
        nonfinite_tokens=int((~finite).sum()),
        tokens=sum(tokens),
        windows=len(scored),
        window=max(tokens) + 1,
        text=text,
        per_window={"tokens": [float(count) for count in tokens], **sums},
    )


def perplexity_of(nll_sums: Sequence[float], tokens: Sequence[int]) -> Estimate:
    """exp of the mean nll per token, from per-window sums, with its standard error by the delta method: se(exp m) = exp(m) se(m)."""
    mean = ratio_estimate(nll_sums, tokens)
    value = _exp(mean.value)
    return Estimate(value, None if mean.standard_error is None else value * mean.standard_error)


def ratio_estimate(sums: Sequence[float], tokens: Sequence[int]) -> Estimate:
    """Mean per token m = sum(s) / sum(n) of windows with sums s and n tokens each, and its standard error.

    se(m) = sqrt(W / (W - 1) * sum_w (s_w - m n_w)^2) / sum(n), the delta method for a ratio of means; for W windows of equal length it
    is the sample standard deviation of the window means over sqrt(W). Windows, not tokens, are the independent units: tokens of one
    window share a context. None for a single window.
    """
    count, total = len(sums), sum(tokens)
    mean = math.fsum(sums) / total
    if count == 1:
        return Estimate(mean, None)
    residual = math.fsum((s - mean * n) ** 2 for s, n in zip(sums, tokens, strict=True))
    return Estimate(mean, math.sqrt(count / (count - 1) * residual) / total)


def compare_logits(
    logits: Float[Tensor, "tokens vocab"], logits_quantized: Float[Tensor, "tokens vocab"], targets: Int[Tensor, " tokens"]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The columns of `TokenScores` for a few tokens, in the dtype of the logits (float32).

    Both logits are overwritten, so that four arrays with a vocabulary axis are the most that exist at once.
    """
    agrees = logits.argmax(-1) == logits_quantized.argmax(-1)
    log_p, log_q = logits.log_softmax(-1), logits_quantized.log_softmax(-1)
    index = targets.unsqueeze(-1)
    nll, nll_quantized = -log_p.gather(-1, index).squeeze(-1), -log_q.gather(-1, index).squeeze(-1)
    difference = torch.sub(log_p, log_q, out=logits_quantized)
    kl = torch.linalg.vecdot(torch.exp(log_p, out=logits), difference)
    # Gibbs' inequality holds up to rounding; clamp keeps NaN as it is.
    return nll, nll_quantized, kl.clamp(min=0), agrees


def hidden_states(model: Llama, window: Int[Tensor, " window"]) -> Float[Tensor, "tokens hidden"]:
    """Final hidden states from which the second and later tokens of the window are predicted."""
    return model.model.model(input_ids=window[None, :-1].to(model.device), use_cache=False).last_hidden_state[0]


def head_logits(model: Llama, hidden: Float[Tensor, "tokens hidden"]) -> Float[Tensor, "tokens vocab"]:
    """float32 logits of final hidden states."""
    return model.model.lm_head(hidden).float()


def token_slices(tokens: int, vocab: int) -> list[slice]:
    """Consecutive slices so small that four float32 arrays [slice, vocab] fit HEAD_BYTES, in whole tiles where that many fit."""
    step = max(1, int(HEAD_BYTES // (4 * 4 * vocab)))
    step -= step % TILE if step > TILE else 0
    return [slice(start, min(start + step, tokens)) for start in range(0, tokens, step)]


def _check(model: Llama, windows: Windows) -> None:
    longest = model.config.max_position_embeddings
    lengths = [len(window) for window in windows]
    if not lengths or min(lengths) < 2 or max(lengths) > longest:
        got = f"{min(lengths)} to {max(lengths)} tokens" if lengths else "none"
        raise ConfigError(f"Evaluation on {model.name} needs at least one window of 2 to {longest} tokens; got {got}.")


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _exp(value: float) -> float:
    """e^value; infinite where math.exp would raise OverflowError, NaN stays NaN."""
    return math.exp(value) if value < 709 or math.isnan(value) else math.inf
