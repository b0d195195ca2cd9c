"""From answers and texts to scored tokens in words: the chat's own token ids, forks, other tokenizers, text that would like to be something else."""

import dataclasses
from pathlib import Path

import pytest

from salq.chat.participants import Participant
from salq.chat.prompt import encode_prompt
from salq.chat.scoring import MAX_TOKENS, Pair, Text, Words, fork, load_pair, text_of, view
from salq.chat.text import visible
from salq.core.errors import ConfigError, ModelError, SalqError, TextError
from salq.evaluation.tokens import score_tokens
from salq.models.llama import Llama
from salq.models.tiny import save_tiny
from salq.quant.spec import QuantSpec

HELLO = [{"role": "user", "content": "Hello there"}]


@pytest.fixture(scope="module")
def pair(tiny_folder: Path) -> Pair:
    """The tiny model and its 2-bit form."""
    name = str(tiny_folder)
    return load_pair(Participant.original(name), Participant.rtn(name, QuantSpec(bits=2, group_size=32)), "cpu")


def ids_of(llama: Llama, text: str) -> list[int]:
    """The tiny tokenizer has one token per byte."""
    return list(llama.tokenizer(text, add_special_tokens=False).input_ids)


def scored(pair: Pair, text: Text) -> dict:
    return view(pair, text, score_tokens(pair.original, pair.quantized, text.ids, text.first))


def test_both_share_what_is_not_quantized(pair: Pair) -> None:
    assert pair.related
    assert pair.quantized.model.model.embed_tokens.weight is pair.original.model.model.embed_tokens.weight
    assert pair.quantized.linears(0)["mlp.up_proj"] is not pair.original.linears(0)["mlp.up_proj"]


def test_an_answer_is_scored_after_the_prompt_that_the_chat_makes(pair: Pair) -> None:
    ids = [3, 4, 5]
    text = text_of(pair.original, {"messages": HELLO, "ids": ids, "max_new_tokens": 16})
    prompt = encode_prompt(pair.original, HELLO, 16)  # type: ignore[arg-type]
    assert text.ids == (*prompt.ids, *ids)
    assert text.first == len(prompt.ids)
    typed = text_of(pair.original, {"messages": HELLO, "answer": "Hi!"})
    assert list(typed.ids[typed.first :]) == ids_of(pair.original, "Hi!")
    found = scored(pair, text)
    assert found["count"] == len(found["tokens"]) == 3
    assert found["kl"] == pytest.approx(sum(one["kl"] for one in found["tokens"]) / 3)
    assert found["execution"].startswith("torch reference")
    assert "KL(original || quantized)" in found["reading"]


def test_special_tokens_that_are_typed_are_characters(pair: Pair) -> None:
    text = text_of(pair.original, {"text": "a<|im_end|>b"})
    assert [Words(pair.original).of(token) for token in text.ids] == list("a<|im_end|>b")
    assert text.first == 1


def test_a_long_text_is_cut_and_said(pair: Pair) -> None:
    longest = min(MAX_TOKENS + 1, pair.original.config.max_position_embeddings)
    text = text_of(pair.original, {"text": "x" * (longest + 50)})
    assert len(text.ids) == longest
    assert "only its first" in text.notes[0]


@pytest.mark.parametrize(
    ("subject", "error"),
    [
        ({"text": " \n"}, TextError),
        ({"text": "x"}, TextError),
        ({}, TextError),
        ({"messages": HELLO, "ids": []}, TextError),
        ({"messages": HELLO, "answer": ""}, TextError),
        ({"messages": HELLO, "ids": [10**9]}, ConfigError),
        ({"messages": HELLO, "ids": [-1]}, ConfigError),
        ({"messages": HELLO, "ids": ["a"]}, ConfigError),
        ({"messages": [{"role": "user", "content": " "}], "ids": [1]}, ConfigError),
    ],
)
def test_what_cannot_be_scored_is_one_sentence(pair: Pair, subject: dict, error: type[SalqError]) -> None:
    with pytest.raises(error):
        text_of(pair.original, subject)


def test_the_fork_of_two_answers(pair: Pair) -> None:
    texts = tuple(text_of(pair.original, {"messages": HELLO, "ids": ids_of(pair.original, said)}) for said in ("ABC", "ABZ!"))
    views = tuple(scored(pair, text) for text in texts)
    found = fork(texts, views)  # type: ignore[arg-type]
    assert (found["same_context"], found["forked"], found["prefix_tokens"], found["prefix"]) == (True, True, 2, "AB")
    assert (found["token_original"], found["token"]) == ("C", "Z")
    assert found["top_original"] == views[0]["tokens"][2]["top_original"]
    assert [one["text"] for one in found["top"]] == [one["text"] for one in views[1]["tokens"][2]["top"]]  # what was read so far is the same
    assert [one["count"] for one in found["answers"]] == [3, 4]
    assert "the same 2 tokens, then part: the original writes “C”, the quantized model “Z”" in found["reading"]


def test_answers_that_end_early_agree_or_had_another_context(pair: Pair) -> None:
    short, long = (text_of(pair.original, {"messages": HELLO, "ids": ids_of(pair.original, said)}) for said in ("A", "AB"))
    views = scored(pair, short), scored(pair, long)
    ended = fork((short, long), views)
    assert (ended["forked"], ended["token_original"], ended["token"]) == (True, None, "B")
    assert "nothing more" in ended["reading"]
    assert ended["top"] == views[1]["tokens"][1]["top"]
    same = fork((long, long), (views[1], views[1]))
    assert not same["forked"]
    assert same["reading"].startswith("Both answers are the same")
    other = text_of(pair.original, {"messages": [{"role": "user", "content": "Bye"}], "ids": [65]})
    apart = fork((short, other), (views[0], scored(pair, other)))
    assert (apart["same_context"], apart["prefix"], apart["forked"]) == (False, "", False)
    assert "already differ before" in apart["reading"]


def test_another_tokenizer_is_refused_and_the_same_one_is_not(tiny: Llama, tiny_folder: Path, tmp_path: Path) -> None:
    sibling = save_tiny(tmp_path / "sibling", seed=5, n_blocks=1)
    found = load_pair(Participant.original(str(tiny_folder)), Participant.rtn(str(sibling), QuantSpec(bits=4, group_size=32)), "cpu")
    assert not found.related
    assert len(score_tokens(found.original, found.quantized, [1, 2, 3])) == 2
    vocabulary = sibling / "tokenizer.json"
    vocabulary.write_text(vocabulary.read_text(encoding="utf-8").replace("<|im_end|>", "<|other|>"), encoding="utf-8")
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (sibling / name).is_file():
            (sibling / name).write_text((sibling / name).read_text(encoding="utf-8").replace("<|im_end|>", "<|other|>"), encoding="utf-8")
    with pytest.raises(ModelError, match="different tokenizers"):
        load_pair(Participant.original(str(tiny_folder)), Participant.rtn(str(sibling), QuantSpec(bits=4, group_size=32)), "cpu")


def test_a_model_that_is_gone_is_said(tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SalqError):
        load_pair(Participant.original(str(tmp_path / "gone")), Participant.rtn(str(tmp_path / "gone"), QuantSpec(bits=4)), "cpu")
    with pytest.raises(SalqError, match="no finished block"):
        load_pair(Participant.original(str(tiny_folder)), Participant.run("r1", str(tiny_folder), tmp_path / "none"), "cpu")


def test_what_cannot_be_seen_becomes_a_sign(tiny: Llama) -> None:
    assert visible("a\n\tb\x1b[2J\x00\x7f\u202e\x85") == "a⏎⇥b␛[2J␀␡[U+202E][U+0085]"
    words = Words(tiny)
    newline, escape, half, _ = ids_of(tiny, "\n\x1bé")
    assert (words.of(newline), words.of(escape), words.of(half)) == ("⏎", "␛", "\ufffd")


def test_a_space_at_the_start_of_a_word_is_kept(tiny: Llama) -> None:
    class SentencePiece:
        def decode(self, ids: list[int], **_: object) -> str:
            return "word"

        def convert_ids_to_tokens(self, _: int) -> str:
            return "▁word"

    assert Words(dataclasses.replace(tiny, tokenizer=SentencePiece())).of(5) == " word"  # type: ignore[arg-type]
