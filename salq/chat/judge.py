"""How good a quantized model's own answers are, judged by the original: are they likely to it, and do they repeat themselves?

Perplexity follows a text that somebody else wrote, so a model that falls into a loop as soon as it speaks for itself can still look fine.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from salq.chat.generate import stream
from salq.chat.prompt import Message, encode_prompt
from salq.chat.sampling import Sampling
from salq.core.errors import ConfigError, ModelError
from salq.models.llama import Llama

NGRAM = 4
PROMPTS = (
    "What is the capital of France, and what is it known for?", "Explain to a child why the sky is blue.", "Write of a lighthouse.",
    "How do bees make honey?", "Give me a simple recipe for pancakes.", "What should I pack for a week in the mountains?",
    "Why do we have leap years?", "Tell me a short story about a fox and a river.", "What does a compiler do?", "How can I learn to play the guitar?",
    "Describe the life of a star.", "What is the difference between weather and climate?", "Write a polite letter to ask for a day off.",
    "Why is sleep important?", "How does a bicycle stay upright?", "Name some uses of a paper clip.", "What happened on the first trip to the Moon?",
    "How do I keep a houseplant alive?", "Explain supply and demand with an example.", "What makes a good friend?",
)  # fmt: skip
"""Everyday questions in the order in which they are asked; none is in the bundled texts."""


@dataclass(frozen=True)
class Judged:
    """Greedy answers of one model to `prompts` prompts, `tokens` tokens in all.

    nll: mean negative log-likelihood of the answers' tokens under the original, given the prompt, in nats per token.
    repeated: share of the answers' 4-grams of tokens that occurred before in the same answer.
    """

    prompts: int
    tokens: int
    nll: float
    repeated: float

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def judge(original: Llama, answering: Llama, *, n_prompts: int = 20, max_new_tokens: int = 64) -> Iterator[Judged]:
    """The verdict after each prompt, the last one over all. The two models must share a tokenizer.

    Raises ConfigError for a number of prompts that there are not, ModelError for different vocabularies.
    """
    if not 1 <= n_prompts <= len(PROMPTS):
        raise ConfigError(f"There are {len(PROMPTS)} prompts; got {n_prompts}, use 1 to {len(PROMPTS)}.")
    if original.config.vocab_size != answering.config.vocab_size:
        raise ModelError(f"{answering.name} has another vocabulary than {original.name}; its answers cannot be judged token by token.")
    sampling = Sampling(max_new_tokens=max_new_tokens)
    nll, tokens, repeats, ngrams = 0.0, 0, 0, 0
    for count, question in enumerate(PROMPTS[:n_prompts], start=1):
        prompt = encode_prompt(answering, [Message(role="user", content=question)], max_new_tokens)
        answer = [token.token_id for token in stream(answering, prompt, sampling) if token.token_id is not None]
        nll += float(answer_nll(original, prompt.ids, answer).sum())
        tokens += len(answer)
        repeated, of = repeated_ngrams(answer)
        repeats, ngrams = repeats + repeated, ngrams + of
        yield Judged(count, tokens, nll / max(tokens, 1), repeats / max(ngrams, 1))


@torch.no_grad()
def answer_nll(model: Llama, prompt: Sequence[int], answer: Sequence[int]) -> Tensor:
    """-log p(token | everything before) of every token of `answer`, float64 `[answer]`, nats."""
    if not answer:
        return torch.zeros(0, dtype=torch.float64)
    ids = torch.tensor([[*prompt, *answer]], device=model.device)
    logits = model.model(input_ids=ids[:, :-1], use_cache=False, logits_to_keep=len(answer)).logits[0].float()
    return nn.functional.cross_entropy(logits, ids[0, -len(answer) :], reduction="none").double().cpu()


def repeated_ngrams(tokens: Sequence[int], n: int = NGRAM) -> tuple[int, int]:
    """(how many n-grams occurred before in `tokens`, how many there are)."""
    ngrams = [tuple(tokens[start : start + n]) for start in range(len(tokens) - n + 1)]
    return len(ngrams) - len(set(ngrams)), len(ngrams)
