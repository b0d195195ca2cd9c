"""From what a person wants scored (an answer with its conversation, or a text of their own) to numbers that a page or a terminal shows.

The arithmetic is `salq.evaluation`'s; here texts become token ids exactly as the chat makes them, and token ids become words again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from salq.chat.loading import sources
from salq.chat.participants import Participant
from salq.chat.prompt import encode_prompt
from salq.chat.text import visible
from salq.core.device import out_of_memory_as_error
from salq.core.errors import ConfigError, TextError
from salq.evaluation.tokens import Candidate, TokenScore, check_same_tokens, totals
from salq.kernels.assemble import execution, quantized_copy
from salq.models.llama import Llama, load_model

MAX_TOKENS = 1024
"""Most tokens of a text that are scored; what is beyond is left out, and said."""

EXECUTOR = "reference"
"""Figures of quality are taken with the specification."""

Json = dict[str, Any]


@dataclass(frozen=True)
class Pair:
    """An original and a quantized model with one tokenizer. `related`: the second is made from the first, block for block."""

    original: Llama
    quantized: Llama
    related: bool


@dataclass(frozen=True)
class Text:
    """Token ids of a text; those from `first` on are scored, those before are its context. `notes`: what a person should know about it."""

    ids: tuple[int, ...]
    first: int
    notes: tuple[str, ...] = ()


def load_pair(original: Participant, quantized: Participant, device: str = "auto") -> Pair:
    """Both models; where they are one model, they share all that quantization leaves alone.

    Raises what `load_participant` raises, and ModelError for different tokenizers, in one sentence.
    """
    first = load_model(original.model, device=device)
    related = quantized.model == original.model
    base = first if related else load_model(quantized.model, device=device)
    check_same_tokens(first, base)
    if quantized.kind == "original":
        return Pair(first, base, related)
    with out_of_memory_as_error(f"Loading {quantized.title}"):
        frozen = {index: source() for index, source in sources(quantized, base.n_blocks).items()}
        return Pair(first, quantized_copy(base, frozen, EXECUTOR), related)


def text_of(llama: Llama, subject: Json) -> Text:
    """The token ids of what is to be scored.

    subject: {"text"} scores all of a text but its first token; {"messages", "answer" | "ids", "max_new_tokens"} scores an answer, as text or as the
    tokens that a model generated, after the prompt that the chat makes of the messages.
    Raises TextError for nothing to score, ConfigError for ids that are no tokens or messages that are none.
    """
    if "messages" in subject:
        return _answer(llama, subject)
    text = str(subject.get("text", ""))
    if not text.strip():
        raise TextError("There is no text to score; type one, or ask something first and score the answer.")
    ids = list(llama.tokenizer(text, split_special_tokens=True).input_ids)
    if len(ids) <= 1:
        raise TextError("The text is a single token, and the first token of a text is not predicted; type a longer text.")
    return _cut(llama, ids, 1, ())


def _answer(llama: Llama, subject: Json) -> Text:
    ids = subject.get("ids")
    if ids is None:
        ids = llama.tokenizer(str(subject.get("answer", "")), split_special_tokens=True, add_special_tokens=False).input_ids
    if not ids:
        raise TextError("The answer is empty, so there is nothing to score; ask again, or type a text.")
    if not all(isinstance(token, int) and 0 <= token < llama.config.vocab_size for token in ids):
        raise ConfigError(f"The answer's tokens are not tokens of {llama.name}; ask again with this model.")
    prompt = encode_prompt(llama, subject["messages"], int(subject.get("max_new_tokens", len(ids))))
    return _cut(llama, [*prompt.ids, *ids], len(prompt.ids), prompt.notes)


def _cut(llama: Llama, ids: list[int], first: int, notes: tuple[str, ...]) -> Text:
    last = min(first + MAX_TOKENS, int(llama.config.max_position_embeddings))
    if len(ids) > last:
        notes = (*notes, f"The text has {len(ids) - first:,} tokens; only its first {last - first:,} were scored.")
    return Text(tuple(ids[:last]), first, notes)


def view(pair: Pair, text: Text, scored: Sequence[TokenScore]) -> Json:
    """A scored text as JSON values: every token in words with its numbers, the totals, what it was measured with, and one sentence."""
    words = Words(pair.original)
    found = totals(scored)
    tokens = [
        one.to_json() | {"text": words.of(one.token_id), "top_original": words.candidates(one.top_original), "top": words.candidates(one.top)}
        for one in scored
    ]
    worst = tokens[found.worst]
    differ = "the likeliest token is the same everywhere" if not found.flips else f"the likeliest token differs at {found.flips} of {found.tokens}"
    reading = (
        f"Over {found.tokens} tokens, KL(original || quantized) is {found.kl:.3g} nats/token on average (median {found.kl_median:.2g}); {differ}. "
        f"The largest KL, {found.kl_most:.3g} nats, is at token {found.worst + 1}, “{worst['text']}”."
    )
    return {
        "tokens": tokens,
        "context_tokens": text.first,
        "count": found.tokens,
        **{name: value for name, value in found.to_json().items() if name != "tokens"},
        "reading": reading,
        "notes": list(text.notes),
        "original": f"{pair.original.name}, {pair.original.reference_label}",
        "execution": execution(pair.quantized),
        "related": pair.related,
    }


def fork(texts: tuple[Text, Text], views: tuple[Json, Json]) -> Json:
    """Two answers to one question: how long they are the same, what stands at the fork, and what each costs under the other model.

    texts, views: the original's answer and the quantized model's. `top_original` and `top` are both models' predictions at the fork; a token there is
    None where an answer has ended.
    """
    one, other = (text.ids[text.first :] for text in texts)
    same_context = texts[0].ids[: texts[0].first] == texts[1].ids[: texts[1].first]
    prefix = next((index for index, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    forked = same_context and prefix < max(len(one), len(other))
    at = [view["tokens"][prefix] if prefix < len(view["tokens"]) else None for view in views]
    known = next((token for token in at if token is not None), None) if forked else None
    result = {
        "same_context": same_context,
        "prefix_tokens": prefix if same_context else 0,
        "prefix": "".join(token["text"] for token in views[0]["tokens"][:prefix]) if same_context else "",
        "forked": forked,
        "token_original": at[0] and at[0]["text"] if forked else None,
        "token": at[1] and at[1]["text"] if forked else None,
        "top_original": known["top_original"] if known else [],
        "top": known["top"] if known else [],
        "answers": [{name: view[name] for name in ("count", "nll_original", "nll", "kl")} for view in views],
    }
    return result | {"reading": _fork_reading(result)}


def _fork_reading(found: Json) -> str:
    own, others = found["answers"]
    cost = (
        f"The original's answer costs {own['nll_original']:.2f} nats/token under the original and {own['nll']:.2f} under the quantized model; "
        f"the quantized model's answer {others['nll']:.2f} under itself and {others['nll_original']:.2f} under the original."
    )
    if not found["same_context"]:
        return f"The two conversations already differ before this answer, so there is no common fork. {cost}"
    if not found["forked"]:
        return f"Both answers are the same, token for token. {cost}"
    said = [f"“{token}”" if token is not None else "nothing more" for token in (found["token_original"], found["token"])]
    shared = {0: "The answers part at their first token", 1: "Both answers begin with the same token, then part"}
    begins = shared.get(found["prefix_tokens"], f"Both answers begin with the same {found['prefix_tokens']} tokens, then part")
    return f"{begins}: the original writes {said[0]}, the quantized model {said[1]}. {cost}"


class Words:
    """Token ids in words, each alone: what cannot be seen is a sign, and a space at the start of a word stays."""

    def __init__(self, llama: Llama) -> None:
        """The words of one tokenizer."""
        self._tokenizer, self._known = llama.tokenizer, dict[int, str]()

    def of(self, token_id: int) -> str:
        """One token; a part of a character is U+FFFD."""
        if token_id not in self._known:
            text = str(self._tokenizer.decode([token_id], clean_up_tokenization_spaces=False))
            raw = self._tokenizer.convert_ids_to_tokens(token_id)
            # SentencePiece marks a space at the start of a word, and decoding a word alone drops it.
            leading = " " if isinstance(raw, str) and raw.startswith("▁") and not text.startswith(" ") else ""
            self._known[token_id] = visible(leading + text)
        return self._known[token_id]

    def candidates(self, found: Sequence[Candidate]) -> list[Json]:
        """Candidates as JSON values, likeliest first."""
        return [{"id": one.token_id, "text": self.of(one.token_id), "probability": one.probability} for one in found]
