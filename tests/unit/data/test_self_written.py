"""Text that a model writes itself: seeded, cached, cut at special tokens, cleaned; sampled as the equations say."""

import dataclasses
import re
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from salq.core.errors import TextError
from salq.core.settings import texts_dir
from salq.data import self_written
from salq.data.self_written import Opening, Writing, _is_clean, _sample, _starting_words, _write_batch, self_written_text, write_text
from salq.models.llama import Llama
from salq.models.tiny import byte_tokenizer

SHORT = Writing(seq_len=96, batch_size=4)


class LettersOnly(nn.Module):
    """A model that can only say small letters and spaces: a random tiny model would write bytes that are no text."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner
        self.model = inner.model  # where a Llama looks for its device

    def forward(self, **keywords: Any) -> Any:
        output = self.inner(**keywords)
        allowed = torch.zeros(output.logits.shape[-1], dtype=torch.bool)
        allowed[[*range(ord("a") - 33, ord("z") - 32), 220]] = True  # byte-level ids: printable ASCII in order, the space after it
        output.logits = output.logits.masked_fill(~allowed, -torch.inf)
        return output


@pytest.fixture
def writer(tiny: Llama) -> Llama:
    space = tiny.tokenizer(" ", add_special_tokens=False).input_ids
    assert (tiny.tokenizer.decode(list(range(ord("a") - 33, ord("z") - 32))), space) == ("abcdefghijklmnopqrstuvwxyz", [220])
    return dataclasses.replace(tiny, model=LettersOnly(tiny.model))  # type: ignore[arg-type]


def test_own_words_repeat_by_seed(writer: Llama) -> None:
    first, again, other = (write_text(writer, 300, seed=seed, writing=SHORT) for seed in (1, 1, 2))
    assert first == again != other
    documents = first.strip().split("\n\n")
    assert sum(len(document) for document in documents) >= 280
    assert all(len(document) > 60 for document in documents)


def test_own_words_are_written_once(writer: Llama, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_written, "write_text", partial(write_text, writing=SHORT))  # 64 documents of 512 tokens take six seconds
    text = self_written_text(writer, 200, seed=0)
    (kept,) = texts_dir().iterdir()
    assert kept.read_text() == text.content
    kept.write_text("kept words")
    assert self_written_text(writer, 200, seed=0).content == "kept words"
    assert (text.name, "itself" in text.title) == ("self:200", True)


def test_a_model_that_writes_nonsense_is_refused(tiny: Llama) -> None:
    with pytest.raises(TextError, match="writes no usable text by itself"):
        write_text(tiny, 100, writing=Writing(seq_len=70, batch_size=2))


def test_the_cache_changes_nothing(tiny: Llama) -> None:
    """Greedy tokens of the batched, cached loop are the most likely ones of a full forward pass."""
    mark = tiny.tokenizer.convert_tokens_to_ids("<|endoftext|>")
    opening = Opening((mark,), torch.tensor([5, 6, 7]), "", 1, frozenset({mark}))
    rows = _write_batch(tiny, opening, torch.Generator().manual_seed(0), Writing(seq_len=12, batch_size=3, greedy=12))
    with_mark = torch.cat([torch.full((3, 1), mark), rows], dim=1)
    most_likely = tiny.model(with_mark).logits.argmax(-1)
    assert torch.equal(most_likely[:, 1:-1], rows[:, 1:])


class Interviewer(LettersOnly):
    """As LettersOnly, but after 40 letters the user's turn ends and the answer's begins, which ends after 60 more."""

    def __init__(self, inner: Any, tokenizer: Any) -> None:
        super().__init__(inner)
        turn, end = ("<|im_end|>\n<|im_start|>assistant\n", "<|im_end|>")
        said = [None] * 40 + tokenizer(turn).input_ids + [None] * 60 + tokenizer(end).input_ids
        self.said = said + [None] * 200
        self.at = 0

    def forward(self, **keywords: Any) -> Any:
        output = super().forward(**keywords)
        self.at = 0 if keywords["past_key_values"] is None else self.at + 1
        if (forced := self.said[self.at]) is not None:
            output.logits = torch.full_like(output.logits, -torch.inf)
            output.logits[..., forced] = 0.0
        return output


def test_a_chat_is_a_question_and_its_whole_answer(tiny: Llama) -> None:
    interviewer = dataclasses.replace(tiny, model=Interviewer(tiny.model, tiny.tokenizer))  # type: ignore[arg-type]
    text = write_text(interviewer, 500, form="chats", seed=3, writing=Writing(seq_len=200, batch_size=2, greedy=0))
    chats = text.strip().split("\n\n")
    assert len(chats) >= 2
    for chat in chats:
        assert re.fullmatch(r"<\|im_start\|>user\n[a-z ]{40}<\|im_end\|>\n<\|im_start\|>assistant\n[a-z ]{60}<\|im_end\|>", chat)
    ids = tiny.tokenizer(text, add_special_tokens=False).input_ids
    assert ids.count(tiny.tokenizer.convert_tokens_to_ids("<|im_end|>")) == 2 * len(chats), "turns are special tokens again when it is read"


def test_chats_need_a_chat_template(tiny: Llama, writer: Llama) -> None:
    plain = dataclasses.replace(tiny, tokenizer=byte_tokenizer(chat=False))
    with pytest.raises(TextError, match="has no chat template, so it writes no chats; use self:N"):
        write_text(plain, 100, form="chats")
    unmarked = dataclasses.replace(tiny, tokenizer=byte_tokenizer())
    unmarked.tokenizer.chat_template = "{{ messages[0]['content'] }}"
    with pytest.raises(TextError, match="marks no turns"):
        write_text(unmarked, 100, form="chats")
    unmarked.tokenizer.chat_template = "{{ raise_exception('a system turn first') }}"
    with pytest.raises(TextError, match="refuses a single question"):
        write_text(unmarked, 100, form="chats")
    with pytest.raises(TextError, match="writes no usable text by itself"):  # letters for ever: no question ends
        write_text(writer, 100, form="chats", writing=Writing(seq_len=70, batch_size=2))


def drawn(logits: Tensor, writing: Writing, count: int = 4000) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    tokens = _sample(logits.expand(count, -1), generator, writing)
    return torch.bincount(tokens[:, 0], minlength=logits.shape[-1]) / count


def test_sampling_follows_the_distribution() -> None:
    logits = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05]))
    assert torch.allclose(drawn(logits, Writing(top_p=1.0)), torch.tensor([0.5, 0.3, 0.15, 0.05]), atol=0.03)
    # the smallest set that reaches 0.7 is {0, 1}, renormalized
    assert torch.allclose(drawn(logits, Writing(top_p=0.7)), torch.tensor([0.625, 0.375, 0, 0]), atol=0.03)
    squared = torch.tensor([0.25, 0.09, 0.0225, 0.0025])
    assert torch.allclose(drawn(logits, Writing(top_p=1.0, temperature=0.5)), squared / squared.sum(), atol=0.03)


def test_what_is_worth_keeping() -> None:
    prose = "It was raining in the harbour, and the boats that had gone out at four came back one after another, low and late. " * 2
    assert _is_clean(prose, 64)
    assert not _is_clean(prose, 63)
    assert not _is_clean(prose + "\ufffd", 64)
    assert not _is_clean(prose + "Pornographic", 64)
    assert not _is_clean("ha " * 300, 300)
    assert not _is_clean("Привет, как дела? Сегодня хорошая погода, и мы гуляем по городу вместе с друзьями.", 90)


def test_starting_words_fall_back_to_every_plain_token(tiny: Llama) -> None:
    assert len(_starting_words(tiny.tokenizer)) == 256
