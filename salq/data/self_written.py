"""Calibration text that a model writes itself: no data needed beyond the model.

A document (LLM-QAT, arXiv 2305.17888, sec. 3.1) starts with a random word of the vocabulary, continues greedily for a few tokens,
and is then sampled from the model's own distribution. LLM-QAT's hybrid of greedy and sampled tokens keeps the start sensible and the
rest diverse. Two things are added here: the tail of the distribution is cut (`top_p`), and documents that are loops or not English are
dropped.

A chat (Magpie, arXiv 2406.08464, sec. 2) starts with all that a chat template puts before the user's first word; the model, going on,
writes the question of a user, ends that turn, and answers.
"""

import re
import zlib
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from jinja2 import TemplateError
from torch import Tensor

from salq.core.errors import TextError
from salq.core.files import atomic_path
from salq.core.settings import texts_dir
from salq.data.names import Form
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


WRITINGS: dict[Form, Writing] = {"self": Writing(), "chats": Writing(seq_len=320, greedy=0, temperature=0.8)}
"""Chats are shorter, and nearer to what the model says when it is asked: people ask it greedily, or nearly so."""
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
QUESTION = "QUESTION"
"""Stands for a user's words in a chat template, to see what it puts around them."""


def self_written_text(model: Writer, n_tokens: int, form: Form = "self", seed: int = 0) -> Text:
    """`n_tokens` of text by `model`, kept in salq's home: the same model, form, count and seed are written once."""
    path = texts_dir() / f"{form}-{model.source.fingerprint[:16]}-{n_tokens}-{seed}.txt"
    if path.is_file():
        content = path.read_text(encoding="utf-8")
    else:
        content = write_text(model, n_tokens, form=form, seed=seed)
        with atomic_path(path) as temporary:
            temporary.write_text(content, encoding="utf-8")
    title = f"{n_tokens} tokens {'of chats ' if form == 'chats' else ''}written by {model.name} itself"
    return Text.of(f"{form}:{n_tokens}", title, content, licence="that of the model", origin=f"written by {model.name}, seed {seed}")


def write_text(model: Writer, n_tokens: int, *, form: Form = "self", seed: int = 0, writing: Writing | None = None) -> str:
    """At least `n_tokens` tokens of documents or chats separated by blank lines; valid UTF-8, mostly ASCII, no loops.

    The same seed on the same machine gives the same text. Raises TextError when the model writes nothing usable, or has no chat template.
    """
    writing = writing or WRITINGS[form]
    generator = torch.Generator(device=model.device).manual_seed(seed)
    opening = _chat_opening(model) if form == "chats" else _document_opening(model)
    written: list[str] = []
    count = empty = 0
    while count < n_tokens:
        found = [piece for row in _write_batch(model, opening, generator, writing).tolist() if (piece := _piece(model.tokenizer, opening, row))]
        empty = 0 if found else empty + 1
        if empty == MOST_EMPTY_BATCHES:
            raise TextError(f"{model.name} writes no usable text by itself (loops, or an end at once); use the bundled text.")
        written += [text for text, _ in found]
        count += sum(length for _, length in found)
    return "\n\n".join(written) + "\n"


@dataclass(frozen=True)
class Opening:
    """How every piece begins, and where it ends.

    before: tokens in front of it. starts: int64 `[choices]`, one of them is its first token. between: what a chat must hold between question and
    answer, "" for a document, which is kept without `before`. It is over after `ends` of the `special` tokens.
    """

    before: tuple[int, ...]
    starts: Tensor
    between: str
    ends: int
    special: frozenset[int]


def _document_opening(model: Writer) -> Opening:
    before = _document_start(model.tokenizer)
    starts = _starting_words(model.tokenizer).to(model.device)
    return Opening(() if before is None else (before,), starts, between="", ends=1, special=_special_ids(model.tokenizer))


def _chat_opening(model: Writer) -> Opening:
    """All that the chat template puts before a user's first word; the answer's turn is what it puts after the last."""
    tokenizer = model.tokenizer
    if tokenizer.chat_template is None:
        raise TextError(f"{model.name} has no chat template, so it writes no chats; use self:N, its own documents.")
    try:
        asked = tokenizer.apply_chat_template([{"role": "user", "content": QUESTION}], tokenize=False, add_generation_prompt=True)
    except (TemplateError, ValueError) as error:
        raise TextError(f"The chat template of {model.name} refuses a single question ({error}); use self:N, its own documents.") from error
    before, _, between = (part.strip(" ") for part in asked.partition(QUESTION))
    if not before or not between.strip():
        raise TextError(f"The chat template of {model.name} marks no turns, so nobody could tell question and answer apart; use self:N.")
    *ids, last = tokenizer(before, add_special_tokens=False).input_ids
    special = _special_ids(tokenizer)
    turn = sum(token in special for token in tokenizer(between, add_special_tokens=False).input_ids)
    return Opening(tuple(ids), torch.tensor([last], device=model.device), between.strip(), turn + 1, special)


def _piece(tokenizer: Any, opening: Opening, row: list[int]) -> tuple[str, int] | None:
    """(text, number of tokens) of one row, up to where it ends; None when it is not worth keeping, or a chat without an answer."""
    ends = [index for index, token in enumerate(row[1:], start=1) if token in opening.special]
    length = ends[opening.ends - 1] if len(ends) >= opening.ends else len(row)
    if not opening.between:
        text = tokenizer.decode(row[:length]).strip()
        return (text, length) if _is_clean(text, length) else None
    question, _, answer = tokenizer.decode(row[1:length]).partition(opening.between)
    if not question.strip() or not answer.strip() or not _is_clean(question + answer, length):
        return None
    chat = [*opening.before, *row[: length + 1]]  # with the end of the answer, which is worth learning too
    return tokenizer.decode(chat).strip(), len(chat)


@torch.no_grad()
def _write_batch(model: Writer, opening: Opening, generator: torch.Generator, writing: Writing) -> Tensor:
    """`[batch_size, up to seq_len]` tokens. Rows that have ended go on and are cut later; the batch ends when all rows have."""
    chosen = torch.randint(len(opening.starts), (writing.batch_size, 1), generator=generator, device=opening.starts.device)
    rows = opening.starts[chosen]
    special = torch.tensor(sorted(opening.special), device=rows.device)
    left = torch.full((len(rows),), opening.ends, device=rows.device)
    tokens = torch.cat([torch.tensor(opening.before, dtype=torch.int64, device=rows.device).expand(len(rows), -1), rows], dim=1)
    cache = None
    while rows.shape[1] < writing.seq_len and bool((left > 0).any()):
        output = model.model(input_ids=tokens, past_key_values=cache, use_cache=True)
        logits, cache = output.logits[:, -1].float(), output.past_key_values
        is_greedy = rows.shape[1] <= writing.greedy
        tokens = logits.argmax(-1, keepdim=True) if is_greedy else _sample(logits, generator, writing)
        rows = torch.cat([rows, tokens], dim=1)
        left -= torch.isin(tokens[:, 0], special).long()
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


def _special_ids(tokenizer: Any) -> frozenset[int]:
    """Ids that are not text: begin, end, padding, turns of a chat."""
    return frozenset({*tokenizer.all_special_ids, *(index for index, token in tokenizer.added_tokens_decoder.items() if token.special)})


def _is_clean(document: str, length: int) -> bool:
    """True for text worth calibrating on: long enough, whole characters only, nearly all ASCII, not a loop, fit to be shown."""
    if length < MIN_DOCUMENT or "\ufffd" in document or UNFIT.search(document):
        return False
    printable = sum(character.isascii() and (character.isprintable() or character in "\n\t") for character in document)
    compressed = len(zlib.compress(document.encode()))
    return printable >= 0.98 * len(document) and compressed >= LEAST_ENTROPY * len(document)
