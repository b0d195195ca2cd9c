"""Token by token: how far a quantized model's predictions are from the original's on one text, and what each would have said instead.

Teacher-forced: every token is predicted from the text before it as it stands, by both models, so that differences are the models' and not those of
two texts that went different ways.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from salq.core.device import out_of_memory_as_error
from salq.core.errors import ConfigError, ModelError
from salq.evaluation.scores import compare_logits, head_logits, hidden_states, token_slices
from salq.models.llama import Llama

TOP = 5
"""Candidates kept of each prediction."""


class Candidate(NamedTuple):
    """One of the likeliest next tokens: its id and its probability."""

    token_id: int
    probability: float


@dataclass(frozen=True)
class TokenScore:
    """One token of the text as both models predicted it.

    log_probability_*: of the token, nats. kl: KL(original || quantized) of the whole prediction, nats. rank_*: 1 for the likeliest token of the
    vocabulary; equal logits share the better rank. flipped: the two likeliest tokens differ. top_*: the TOP likeliest tokens, likeliest first.
    """

    token_id: int
    log_probability_original: float
    log_probability: float
    kl: float
    rank_original: int
    rank: int
    flipped: bool
    top_original: tuple[Candidate, ...]
    top: tuple[Candidate, ...]

    @property
    def change(self) -> float:
        """log-probability under the quantized model minus that under the original, nats: below 0 the token became less likely."""
        return self.log_probability - self.log_probability_original

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self) | {"change": self.change}


@dataclass(frozen=True)
class Totals:
    """A scored text in a few numbers.

    kl, kl_median, kl_most: mean, median and largest KL over its tokens, nats. nll_original, nll: mean negative log-likelihood, nats per token.
    flips: how many likeliest tokens differ. worst: index of the token with the largest KL.
    """

    tokens: int
    kl: float
    kl_median: float
    kl_most: float
    worst: int
    flips: int
    nll_original: float
    nll: float

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def check_same_tokens(original: Llama, quantized: Llama) -> None:
    """Raise ModelError when token ids mean different things to the two models: their predictions are then over different lists of tokens."""
    one, other = original.tokenizer.get_vocab(), quantized.tokenizer.get_vocab()
    if original.config.vocab_size != quantized.config.vocab_size or one != other:
        raise ModelError(
            f"{original.name} and {quantized.name} have different tokenizers ({len(one):,} and {len(other):,} tokens), so their predictions are "
            "about different tokens and cannot be compared one by one; choose a run of the same model."
        )


@torch.no_grad()
def score_tokens(original: Llama, quantized: Llama, ids: Sequence[int], first: int = 1) -> list[TokenScore]:
    """Both models on the tokens `ids[first:]`, each predicted from all tokens before it.

    KL(p || q) = sum_v p_v (log p_v - log q_v), p the original's prediction, in float32 and summed over the vocabulary in float32, as `score_window`
    does it. Final hidden states of the whole text are held, logits for HEAD_BYTES worth of tokens at a time, never of the whole text.
    Raises ConfigError for a text without a token to predict or longer than a context, ModelError for different tokenizers or predictions
    that are not finite, ResourceError.
    """
    check_length(original, len(ids), first)
    check_length(quantized, len(ids), first)
    check_same_tokens(original, quantized)
    window = torch.tensor(ids)
    scored: list[TokenScore] = []
    with out_of_memory_as_error(f"Scoring {len(ids)} tokens"):
        hidden, hidden_quantized = hidden_states(original, window)[first - 1 :], hidden_states(quantized, window)[first - 1 :]
        targets = window[first:].to(original.device)
        for part in token_slices(len(targets), original.config.vocab_size):
            logits = head_logits(original, hidden[part])
            logits_quantized = head_logits(quantized, hidden_quantized[part]).to(original.device)
            scored += _scored(logits, logits_quantized, targets[part])
    if not all(math.isfinite(one.kl + one.log_probability) for one in scored):
        raise ModelError(f"The predictions of {quantized.name} are not finite: its weights are broken (or quantization broke them); use more bits.")
    return scored


def totals(scored: Sequence[TokenScore]) -> Totals:
    """The text in a few numbers. Raises ConfigError for no tokens."""
    if not scored:
        raise ConfigError("No token was scored; give a text of at least two tokens, or an answer of at least one.")
    kl = [one.kl for one in scored]
    return Totals(
        tokens=len(scored),
        kl=statistics.fmean(kl),
        kl_median=statistics.median(kl),
        kl_most=max(kl),
        worst=kl.index(max(kl)),
        flips=sum(one.flipped for one in scored),
        nll_original=-statistics.fmean(one.log_probability_original for one in scored),
        nll=-statistics.fmean(one.log_probability for one in scored),
    )


def check_length(model: Llama, tokens: int, first: int) -> None:
    """Raise ConfigError when `tokens` tokens, of which those from `first` on are predicted, are no text for `model`."""
    longest = int(model.config.max_position_embeddings)
    if not 1 <= first < tokens <= longest:
        raise ConfigError(
            f"Scoring on {model.name} needs a text of 2 to {longest:,} tokens; got {tokens:,}, of which {max(tokens - first, 0):,} to predict."
        )


def _scored(
    logits: Float[Tensor, "tokens vocab"], logits_quantized: Float[Tensor, "tokens vocab"], targets: Int[Tensor, " tokens"]
) -> list[TokenScore]:
    """The scores of a few tokens. Both logits are overwritten."""
    index = targets.unsqueeze(-1)
    own, own_quantized = logits.gather(-1, index), logits_quantized.gather(-1, index)
    rank, rank_quantized = ((logits > own).sum(-1) + 1).tolist(), ((logits_quantized > own_quantized).sum(-1) + 1).tolist()
    top, top_quantized = logits.topk(min(TOP, logits.shape[-1])), logits_quantized.topk(min(TOP, logits.shape[-1]))
    nll, nll_quantized, kl, agrees = compare_logits(logits, logits_quantized, targets)
    # log softmax of any logit z is z less the target's logit plus the target's log-probability: no further array with a vocabulary axis.
    candidates = _candidates(top.values - own - nll.unsqueeze(-1), top.indices)
    candidates_quantized = _candidates(top_quantized.values - own_quantized - nll_quantized.unsqueeze(-1), top_quantized.indices)
    columns = (targets.tolist(), (-nll).tolist(), (-nll_quantized).tolist(), kl.tolist(), rank, rank_quantized, (~agrees).tolist())
    return [TokenScore(*values) for values in zip(*columns, candidates, candidates_quantized, strict=True)]


def _candidates(log_probabilities: Float[Tensor, "tokens top"], ids: Int[Tensor, "tokens top"]) -> list[tuple[Candidate, ...]]:
    probabilities = log_probabilities.exp().clamp(max=1.0).tolist()
    return [tuple(Candidate(*one) for one in zip(*row, strict=True)) for row in zip(ids.tolist(), probabilities, strict=True)]
