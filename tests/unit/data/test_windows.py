"""Windows of tokens: what they hold, that they repeat, and what is said when the text is too short."""

import pytest
import torch

from salq.core.errors import ConfigError, TextError
from salq.data.text import Text
from salq.data.windows import evaluation_windows, sample_windows, tokenize
from salq.models.llama import Llama


def text_of(length: int) -> Text:
    return Text.of("test", "a test text", "".join(chr(ord("a") + index * 7 % 26) for index in range(length)), licence="-", origin="-")


def test_evaluation_windows_are_consecutive(tiny: Llama) -> None:
    text = text_of(100)
    windows = evaluation_windows(text, tiny.tokenizer, 4, 20)
    assert windows.shape == (4, 20)
    assert windows.dtype == torch.int64
    assert tiny.tokenizer.decode(windows.flatten().tolist()) == text.content[:80]


def test_samples_are_crops_of_the_text(tiny: Llama) -> None:
    text = text_of(300)
    samples = sample_windows(text, tiny.tokenizer, 16, 30, seed=0)
    assert samples.shape == (16, 30)
    assert all(tiny.tokenizer.decode(row.tolist()) in text.content for row in samples)


def test_samples_repeat_by_seed_and_are_distinct(tiny: Llama) -> None:
    text = text_of(60)
    first, again, other = (sample_windows(text, tiny.tokenizer, 31, 30, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    starts = {tiny.tokenizer.decode(row.tolist()) for row in first}
    assert len(starts) == len({text.content[index : index + 30] for index in range(31)})  # every crop there is, once


def test_no_special_tokens_are_added(tiny: Llama) -> None:
    assert len(tokenize(text_of(50), tiny.tokenizer)) == 50


@pytest.mark.parametrize(
    ("n_samples", "seq_len", "advice"),
    [(8, 200, "use samples of at most 93 tokens, fewer samples, or a longer text"), (500, 20, "use fewer samples or a longer text")],
)
def test_too_short_for_samples(tiny: Llama, n_samples: int, seq_len: int, advice: str) -> None:
    with pytest.raises(TextError, match=f"has 100 tokens, too few for {n_samples} different samples of {seq_len}: {advice}"):
        sample_windows(text_of(100), tiny.tokenizer, n_samples, seq_len, seed=0)
    if "at most 93" in advice:
        assert sample_windows(text_of(100), tiny.tokenizer, n_samples, 93, seed=0).shape == (8, 93)


@pytest.mark.parametrize(("windows", "window", "advice"), [(8, 30, "3 windows of 30 fit"), (1, 200, "one window of 100 fits")])
def test_too_short_for_evaluation(tiny: Llama, windows: int, window: int, advice: str) -> None:
    with pytest.raises(TextError, match=f"has 100 tokens, too few for {windows} windows of {window}: {advice}"):
        evaluation_windows(text_of(100), tiny.tokenizer, windows, window)


@pytest.mark.parametrize(("count", "length"), [(0, 10), (-1, 10), (4, 1), (4, 0)])
def test_absurd_numbers(tiny: Llama, count: int, length: int) -> None:
    with pytest.raises(ConfigError, match="it must be at least"):
        sample_windows(text_of(100), tiny.tokenizer, count, length, seed=0)
    with pytest.raises(ConfigError, match="it must be at least"):
        evaluation_windows(text_of(100), tiny.tokenizer, count, length)
