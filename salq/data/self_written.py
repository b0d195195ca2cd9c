"""Calibration text that a model writes itself: no data needed beyond the model (LLM-QAT, arXiv 2305.17888, sec. 3.1).

Each document starts with a random word of the vocabulary, continues greedily for a few tokens, and is then sampled from the
model's own distribution. LLM-QAT's hybrid of greedy and sampled tokens keeps the start sensible and the rest diverse. Two things
are added here: the tail of the distribution is cut (`top_p`), and documents that are loops or not English are dropped.
"""

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from salq.core.errors import TextError
from salq.core.files import atomic_path
from salq.core.settings import texts_dir
from salq.data.text import Text


class Writer(Protocol):
    """What is needed of a model to write; `salq.models.llama.Llama` has it."""

    @property
    def name(self) -> str:
        """Name for people."""

    @property
    def model(self) -> Any:
        """The causal model: called with input_ids and a KV cache, it gives logits and the longer cache."""

    @property
    def tokenizer(self) -> Any:
        """Its tokenizer."""

    @property
    def source(self) -> Any:
        """Where it came from; `source.fingerprint` is a stable id of config, tokenizer and weights."""

    @property
    def device(self) -> torch.device:
        """Where its tokens go."""


@dataclass(frozen=True)
class Writing:
    """How text is written. Lengths are in tokens; `greedy` counts the tokens after the first that are the most likely ones."""

    seq_len: int = 512
    batch_size: int = 64
    greedy: int = 3
    temperature: float = 1.0
    top_p: float = 0.95


MOST_CANDIDATES = 1024
"""Tokens among which `top_p` chooses: sorting a whole vocabulary costs more than the model's own step."""
DOCUMENT_MARK = "<|endoftext|>"
"""Separates documents in the training data of models with a GPT-2 style tokenizer, so it is what precedes one."""
MIN_DOCUMENT = 64
"""Tokens below which a document is dropped: it ended before it said anything."""
LEAST_ENTROPY = 0.25
"""Compressed size over size, below which a document is a loop."""
UNFIT = re.compile(r"\b(porn|bdsm)", re.IGNORECASE)
"""What has no place in a text that is shown to everybody: such a document is dropped."""
MOST_EMPTY_BATCHES = 8


def self_written_text(model: Writer, n_tokens: int, seed: int = 0) -> Text:
    """`n_tokens` of text by `model`, kept in salq's home: the same model, count and seed are written once."""
    path = texts_dir() / f"self-{model.source.fingerprint[:16]}-{n_tokens}-{seed}.txt"
    if path.is_file():
        content = path.read_text(encoding="utf-8")
    else:
        content = write_text(model, n_tokens, seed=seed)
        with atomic_path(path) as temporary:
            temporary.write_text(content, encoding="utf-8")
    title = f"{n_tokens} tokens written by {model.name} itself"
    return Text.of(f"self:{n_tokens}", title, content, licence="that of the model", origin=f"written by {model.name}, seed {seed}")


def write_text(model: Writer, n_tokens: int, *, seed: int = 0, writing: Writing | None = None) -> str:
    """At least `n_tokens` tokens of documents separated by blank lines; valid UTF-8, mostly ASCII, no loops.

    The same seed on the same machine gives the same text. Raises TextError when the model writes nothing usable.
    """
    writing = writing or Writing()
    generator = torch.Generator(device=model.device).manual_seed(seed)
    starts = _starting_words(model.tokenizer).to(model.device)
    documents: list[str] = []
    count = empty = 0
    while count < n_tokens:
        found = [(document, length) for document, length in _documents(model, starts, generator, writing) if _is_clean(document, length)]
        empty = 0 if found else empty + 1
        if empty == MOST_EMPTY_BATCHES:
            raise TextError(f"{model.name} writes no usable text by itself (loops, or documents that end at once); use the bundled text.")
        documents += [document for document, _ in found]
        count += sum(length for _, length in found)
    return "\n\n".join(documents) + "\n"


def _documents(model: Writer, starts: Tensor, generator: torch.Generator, writing: Writing) -> Iterator[tuple[str, int]]:
    """(text, number of tokens) of one batch of documents, each cut before its first special token."""
    rows = _write_batch(model, starts, generator, writing)
    special = _special_ids(model.tokenizer)
    for row in rows.tolist():
        length = next((index for index, token in enumerate(row) if token in special), len(row))
        yield model.tokenizer.decode(row[:length]).strip(), length


@torch.no_grad()
def _write_batch(model: Writer, starts: Tensor, generator: torch.Generator, writing: Writing) -> Tensor:
    """`[batch_size, up to seq_len]` tokens. Rows that have ended go on and are cut later; the batch ends when all rows have."""
    chosen = torch.randint(len(starts), (writing.batch_size, 1), generator=generator, device=starts.device)
    rows = starts[chosen]
    special = torch.tensor(sorted(_special_ids(model.tokenizer)), device=rows.device)
    ended = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
    before = _document_start(model.tokenizer)
    tokens = rows if before is None else torch.cat([torch.full_like(rows, before), rows], dim=1)
    cache = None
    while rows.shape[1] < writing.seq_len and not bool(ended.all()):
        output = model.model(input_ids=tokens, past_key_values=cache, use_cache=True)
        logits, cache = output.logits[:, -1].float(), output.past_key_values
        is_greedy = rows.shape[1] <= writing.greedy
        tokens = logits.argmax(-1, keepdim=True) if is_greedy else _sample(logits, generator, writing)
        rows = torch.cat([rows, tokens], dim=1)
        ended |= torch.isin(tokens[:, 0], special)
    return rows


def _sample(logits: Tensor, generator: torch.Generator, writing: Writing) -> Tensor:
    """One token per row, `[batch, 1]`, from the softmax at `temperature`, within the smallest set whose probability reaches `top_p`."""
    candidates, order = torch.softmax(logits / writing.temperature, dim=-1).topk(min(MOST_CANDIDATES, logits.shape[-1]))
    outside = candidates.cumsum(-1) - candidates >= writing.top_p
    chosen = torch.multinomial(candidates.masked_fill(outside, 0.0), 1, generator=generator)
    return order.gather(-1, chosen)


def _document_start(tokenizer: Any) -> int | None:
    """The token that comes before a document: the end of the last one, else the tokenizer's begin token, else nothing."""
    return tokenizer.get_vocab().get(DOCUMENT_MARK, tokenizer.bos_token_id)


def _starting_words(tokenizer: Any) -> Tensor:
    """Ids of tokens that are whole English words with a capital (their small form is a token too); every plain token if there are none."""
    special = _special_ids(tokenizer)
    texts = {index: tokenizer.decode([index]) for index in range(len(tokenizer)) if index not in special}
    known = set(texts.values())
    words = [index for index, text in texts.items() if len(text) > 2 and text.isascii() and text.istitle() and f" {text.lower()}" in known]
    return torch.tensor(words or list(texts))


def _special_ids(tokenizer: Any) -> set[int]:
    """Ids that are not text: begin, end, padding, turns of a chat."""
    return {*tokenizer.all_special_ids, *(index for index, token in tokenizer.added_tokens_decoder.items() if token.special)}


def _is_clean(document: str, length: int) -> bool:
    """True for text worth calibrating on: long enough, whole characters only, nearly all ASCII, not a loop, fit to be shown."""
    if length < MIN_DOCUMENT or "\ufffd" in document or UNFIT.search(document):
        return False
    printable = sum(character.isascii() and (character.isprintable() or character in "\n\t") for character in document)
    compressed = len(zlib.compress(document.encode()))
    return printable >= 0.98 * len(document) and compressed >= LEAST_ENTROPY * len(document)
