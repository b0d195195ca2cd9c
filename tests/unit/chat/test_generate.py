"""The decode loop against the library's own, its text against the tokenizer's, and its stop."""

import copy
import dataclasses
import itertools

import pytest
import torch

from salq.chat.generate import TextStream, Token, choose, end_tokens, stream
from salq.chat.prompt import Prompt, encode_prompt
from salq.chat.sampling import Sampling
from salq.core.errors import ConfigError, ModelError
from salq.models.llama import Llama


@pytest.fixture
def prompt(tiny: Llama) -> Prompt:
    return encode_prompt(tiny, [{"role": "user", "content": "What is a quantized model?"}], 40)


def ids_of(tokens: list[Token]) -> list[int]:
    return [token.token_id for token in tokens if token.token_id is not None]


def test_greedy_equals_the_library(tiny: Llama, prompt: Prompt) -> None:
    own = list(stream(tiny, prompt, Sampling(max_new_tokens=24)))
    with torch.no_grad():
        full = tiny.model.generate(
            torch.tensor([prompt.ids]), max_new_tokens=24, do_sample=False, pad_token_id=0, eos_token_id=sorted(end_tokens(tiny))
        )
    assert ids_of(own) == full[0, len(prompt.ids) :].tolist()


def test_a_long_prompt_in_pieces_gives_the_same_tokens(tiny: Llama, monkeypatch: pytest.MonkeyPatch) -> None:
    long = encode_prompt(tiny, [{"role": "user", "content": "word " * 60}], 16)
    whole = ids_of(list(stream(tiny, long, Sampling(max_new_tokens=12))))
    monkeypatch.setattr("salq.chat.generate.PREFILL_TOKENS", 50)
    assert ids_of(list(stream(tiny, long, Sampling(max_new_tokens=12)))) == whole


def test_the_text_is_the_tokenizers_and_no_character_is_torn(tiny: Llama, prompt: Prompt) -> None:
    tokens = list(stream(tiny, prompt, Sampling(max_new_tokens=40)))
    assert tokens[-1].end
    assert all(not token.end for token in tokens[:-1])
    whole = tiny.tokenizer.decode(ids_of(tokens), skip_special_tokens=True)
    assert "".join(token.text for token in tokens) == whole
    assert all(a.seconds <= b.seconds for a, b in itertools.pairwise(tokens))


def test_a_character_of_several_tokens_comes_whole(tiny: Llama) -> None:
    text = TextStream(tiny.tokenizer, ())
    pieces = [text.push(token) for token in tiny.tokenizer("é👩‍🔬!").input_ids]
    assert "".join(pieces) == "é👩‍🔬!"
    assert "\ufffd" not in "".join(pieces)
    assert pieces[0] == ""


def test_a_torn_character_at_the_end_is_flushed(tiny: Llama) -> None:
    text = TextStream(tiny.tokenizer, ())
    assert text.push(tiny.tokenizer("é").input_ids[0]) == ""
    assert text.flush() == "\ufffd"
    assert text.flush() == ""


def test_the_seed_decides_above_temperature_zero(tiny: Llama, prompt: Prompt) -> None:
    def ids(seed: int, temperature: float) -> list[int]:
        return ids_of(list(stream(tiny, prompt, Sampling(max_new_tokens=20, temperature=temperature, seed=seed))))

    assert ids(1, 1.0) == ids(1, 1.0)
    assert ids(1, 1.0) != ids(2, 1.0)
    assert ids(1, 0.0) == ids(2, 0.0)


def test_sampling_follows_the_distribution() -> None:
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.tensor([0.6, 0.3, 0.1])
    draws = torch.tensor([choose(probabilities.log(), 1.0, generator) for _ in range(4000)])
    share = torch.bincount(draws, minlength=3) / 4000
    # 4 standard deviations of a binomial share at n = 4000
    assert ((share - probabilities).abs() < 4 * (probabilities * (1 - probabilities) / 4000).sqrt()).all()


def test_stop_is_seen_within_a_token(tiny: Llama, prompt: Prompt) -> None:
    asked = itertools.count()
    seen = list(stream(tiny, prompt, Sampling(max_new_tokens=40), stop=lambda: next(asked) >= 3))
    assert len(ids_of(seen)) <= 4
    assert seen[-1].end == "stopped"


def test_stop_before_the_first_token(tiny: Llama, prompt: Prompt) -> None:
    assert [token.end for token in stream(tiny, prompt, Sampling(), stop=lambda: True)] == ["stopped"]


def test_length_and_context_end_an_answer(tiny: Llama, prompt: Prompt) -> None:
    assert list(stream(tiny, prompt, Sampling(max_new_tokens=2)))[-1].end == "length"
    full = dataclasses.replace(prompt, context=len(prompt.ids) + 3)
    tokens = list(stream(tiny, full, Sampling(max_new_tokens=30)))
    assert len(ids_of(tokens)) == 3
    assert tokens[-1].end == "context"


def test_the_end_token_ends_an_answer_and_is_not_shown(tiny: Llama, prompt: Prompt) -> None:
    first = ids_of(list(stream(tiny, prompt, Sampling(max_new_tokens=1))))[0]
    model = copy.copy(tiny.model)
    model.config = copy.copy(tiny.config)
    model.config.eos_token_id = [first]
    ending = dataclasses.replace(tiny, model=model)
    tokens = list(stream(ending, prompt, Sampling(max_new_tokens=5)))
    assert [(token.text, token.token_id, token.end) for token in tokens] == [("", first, "end")]


def test_broken_weights_give_one_sentence(tiny: Llama, prompt: Prompt) -> None:
    with pytest.raises(ModelError, match="not finite"):
        choose(torch.tensor([0.0, float("nan")]), 0.0, torch.Generator())


def test_generating_leaves_gradients_on(tiny: Llama, prompt: Prompt) -> None:
    tokens = stream(tiny, prompt, Sampling(max_new_tokens=3))
    next(tokens)
    assert torch.is_grad_enabled()
    tokens.close()
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_new_tokens": 0},
        {"max_new_tokens": 10**9},
        {"max_new_tokens": 2.5},
        {"temperature": -1},
        {"temperature": float("nan")},
        {"seed": -1},
        {"seed": "x"},
    ],
)
def test_sampling_outside_its_bounds_is_refused(wrong: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Sampling(**wrong)
