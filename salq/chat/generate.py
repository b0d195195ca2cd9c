"""The decode loop: one token at a time from a key-value cache, as text that is never half a character.

Written out instead of calling a library's `generate`, because the page must stop it within a token, measure it token by
token, and run it unchanged on a quantized model. The forward pass is the decode engine's, for original and quantized models alike.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from salq.chat.prompt import Prompt
from salq.chat.sampling import Sampling
from salq.core.device import out_of_memory_as_error
from salq.core.errors import ModelError
from salq.kernels.engine import Decoder, decoder_for
from salq.models.llama import Llama

PREFILL_TOKENS = 256
"""Prompt tokens per forward pass: a stop request is seen between two of them."""

End = Literal["", "end", "length", "context", "stopped"]


@dataclass(frozen=True)
class Token:
    """One generated token: the text that it completes ('' inside a character), and seconds since the prompt was given.

    The last one of a stream has `end` set: 'end' (the model ended its turn), 'length', 'context' (the model's context is
    full) or 'stopped' (on request); its `token_id` is None where no token belongs to it.
    """

    text: str
    token_id: int | None
    seconds: float
    end: End = ""


def stream(
    llama: Llama, prompt: Prompt, sampling: Sampling, stop: Callable[[], bool] = lambda: False, decoder: Decoder | None = None
) -> Iterator[Token]:
    """Generate token by token. Greedy and equal seeds are reproducible; `stop` is asked before every forward pass.

    With a temperature, the token is argmax(p / noise) with exponential noise from `seed` (the exponential race, equal in
    distribution to sampling from p), so two models with close distributions and one seed choose the same tokens.
    `decoder`: one that was made for this model (`kernels.engine.decoder_for`), to keep its memory between answers.
    Raises ModelError when the model's output is not finite, ResourceError when memory runs out.
    """
    started = time.perf_counter()
    ends = end_tokens(llama)
    noise = torch.Generator().manual_seed(sampling.seed)
    text = TextStream(llama.tokenizer, prompt.ids)
    decoder = decoder or decoder_for(llama)
    decoder.reset()
    logits = torch.empty(0)
    for first in range(0, len(prompt.ids), PREFILL_TOKENS):
        if stop():
            yield Token("", None, time.perf_counter() - started, "stopped")
            return
        logits = _advance(decoder, prompt.ids[first : first + PREFILL_TOKENS])
    limit = min(sampling.max_new_tokens, prompt.context - len(prompt.ids))
    for count in range(1, limit + 1):
        token_id = choose(logits, sampling.temperature, noise)
        if token_id in ends:
            yield Token(text.flush(), token_id, time.perf_counter() - started, "end")
            return
        yield Token(text.push(token_id), token_id, time.perf_counter() - started)
        if stop():
            yield Token(text.flush(), None, time.perf_counter() - started, "stopped")
            return
        if count < limit:
            logits = _advance(decoder, (token_id,))
    why: End = "length" if limit == sampling.max_new_tokens else "context"
    yield Token(text.flush(), None, time.perf_counter() - started, why)


def end_tokens(llama: Llama) -> frozenset[int]:
    """Token ids that end an answer: what the model's files name, and the end-of-turn tokens of known chat templates."""
    generation = llama.model.generation_config
    named = [generation.eos_token_id if generation else None, llama.config.eos_token_id, llama.tokenizer.eos_token_id]
    found = {token for value in named if value is not None for token in (value if isinstance(value, list) else [value])}
    vocabulary = llama.tokenizer.get_added_vocab()
    found |= {vocabulary[name] for name in ("<|im_end|>", "<|eot_id|>", "<|end_of_text|>", "</s>") if name in vocabulary}
    return frozenset(found)


def choose(logits: Float[Tensor, " vocab"], temperature: float, noise: torch.Generator) -> int:
    """The next token id: the most likely one at temperature 0, else a draw from softmax(logits / temperature).

    Raises ModelError when a logit is NaN or infinite.
    """
    if not bool(torch.isfinite(logits).all()):
        raise ModelError("The model's output is not finite: its weights are broken (or were broken by quantization); use more bits.")
    if temperature == 0:
        return int(logits.argmax())
    waiting = torch.empty_like(logits).exponential_(generator=noise)
    return int((torch.log_softmax(logits / temperature, dim=-1) - waiting.log()).argmax())


class TextStream:
    """Turns token ids into text as they come; holds back what is not yet a whole character (or a whole word piece)."""

    CONTEXT = 6
    """Prompt tokens decoded along, so that a tokenizer that marks spaces at the start of words keeps the first one."""

    def __init__(self, tokenizer: Any, prompt_ids: tuple[int, ...]) -> None:
        """Start after `prompt_ids`."""
        self._tokenizer = tokenizer
        self._ids = list(prompt_ids[-self.CONTEXT :])
        self._from = 0
        self._read = len(self._ids)

    def push(self, token_id: int) -> str:
        """The text that `token_id` completes."""
        self._ids.append(token_id)
        before, after = self._decode(self._ids[self._from : self._read]), self._decode(self._ids[self._from :])
        if len(after) <= len(before) or after.endswith("\ufffd"):
            return ""
        self._from, self._read = self._read, len(self._ids)
        return after[len(before) :]

    def flush(self) -> str:
        """What is still held back: broken characters appear as U+FFFD."""
        before, after = self._decode(self._ids[self._from : self._read]), self._decode(self._ids[self._from :])
        self._from = self._read = len(self._ids)
        return after[len(before) :]

    def _decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def _advance(decoder: Decoder, ids: tuple[int, ...]) -> Float[Tensor, " vocab"]:
    with out_of_memory_as_error("Generating text"):
        return decoder.advance(ids)
