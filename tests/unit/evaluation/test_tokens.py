"""Scores of single tokens against their equations in float64, and what is refused."""

import dataclasses
import math
from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import Tensor

from salq.core.errors import ConfigError, ModelError
from salq.evaluation import scores
from salq.evaluation.scores import score_window
from salq.evaluation.tokens import TOP, score_tokens, totals
from salq.kernels.assemble import quantized_copy, rtn_blocks
from salq.models.llama import Llama
from salq.quant.spec import QuantSpec
from tests.exact import float64_copy


@pytest.fixture(scope="module")
def rounded(tiny: Llama) -> Llama:
    """`tiny` at 2 bits, run by the reference."""
    return quantized_copy(tiny, rtn_blocks(tiny, QuantSpec(bits=2, group_size=32)))


def plain(tiny: Llama, spec: QuantSpec) -> Llama:
    """The same as dense float64 weights."""
    dense = dataclasses.replace(tiny, model=deepcopy(tiny.model))
    for index, block in rtn_blocks(tiny, spec).items():
        for name, frozen in block.items():
            dense.linears(index)[name].weight.data.copy_(frozen.effective_weight())
    return float64_copy(dense)


def oracle(model: Llama, ids: list[int]) -> np.ndarray:
    """log p [tokens, vocab] in float64, written out."""
    logits = model.model(input_ids=torch.tensor([ids])).logits[0].numpy()
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


@pytest.mark.parametrize("first", [1, 7, 23])
def test_every_number_of_every_token(tiny: Llama, rounded: Llama, tokens: Tensor, first: int) -> None:
    ids = tokens[0].tolist()
    log_p, log_q = oracle(float64_copy(tiny), ids), oracle(plain(tiny, QuantSpec(bits=2, group_size=32)), ids)
    scored = score_tokens(tiny, rounded, ids, first)
    assert [one.token_id for one in scored] == ids[first:]
    for at, one in enumerate(scored, first - 1):
        p, q, token = log_p[at], log_q[at], ids[at + 1]
        assert one.log_probability_original == pytest.approx(p[token], abs=2e-4)
        assert one.log_probability == pytest.approx(q[token], abs=2e-4)
        assert one.change == pytest.approx(q[token] - p[token], abs=4e-4)
        assert one.kl == pytest.approx(sum(math.exp(a) * (a - b) for a, b in zip(p, q, strict=True)), rel=2e-3, abs=2e-6)
        assert one.rank_original == 1 + sum(value > p[token] for value in p)
        assert one.rank == 1 + sum(value > q[token] for value in q)
        assert one.flipped == (p.argmax() != q.argmax())
        for got, want in ((one.top_original, p), (one.top, q)):
            likeliest = np.argsort(-want)[:TOP]
            assert [candidate.token_id for candidate in got] == likeliest.tolist()
            assert [candidate.probability for candidate in got] == pytest.approx(np.exp(want[likeliest]).tolist(), rel=1e-3)


def test_the_same_numbers_as_the_evaluation(tiny: Llama, rounded: Llama, tokens: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    window = score_window(tiny, rounded, tokens[0])
    monkeypatch.setattr(scores, "HEAD_BYTES", 16 * 5 * tiny.config.vocab_size)  # 5 tokens at a time
    scored = score_tokens(tiny, rounded, tokens[0].tolist())
    assert [one.kl for one in scored] == pytest.approx(window.kl.tolist(), abs=1e-6)
    assert [one.log_probability for one in scored] == pytest.approx((-window.nll).tolist(), abs=1e-5)
    found = totals(scored)
    assert found.kl == pytest.approx(float(window.kl.mean()), rel=1e-4)
    assert found.flips == int((1 - window.agrees).sum())
    assert found.kl_most == scored[found.worst].kl == max(one.kl for one in scored)
    assert found.nll == pytest.approx(float(window.nll.mean()), rel=1e-5)


def test_a_model_beside_itself(tiny: Llama, tokens: Tensor) -> None:
    for one in score_tokens(tiny, tiny, tokens[1].tolist()):
        assert (one.kl, one.change, one.flipped) == (0.0, 0.0, False)
        assert one.top == one.top_original
        assert one.rank == one.rank_original


def test_what_cannot_be_scored_is_said(tiny: Llama, rounded: Llama) -> None:
    with pytest.raises(ConfigError, match="needs a text of 2"):
        score_tokens(tiny, rounded, [3])
    with pytest.raises(ConfigError, match="0 to predict"):
        score_tokens(tiny, rounded, [3, 4], first=2)
    with pytest.raises(ConfigError, match="needs a text"):
        score_tokens(tiny, rounded, [1] * (tiny.config.max_position_embeddings + 1))
    with pytest.raises(ConfigError, match="No token was scored"):
        totals([])


def test_another_tokenizer_is_refused_in_one_sentence(tiny: Llama, rounded: Llama) -> None:
    class Other:
        def get_vocab(self) -> dict[str, int]:
            return {"a": 0}

    other = dataclasses.replace(rounded, tokenizer=Other())  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=r"different tokenizers \([\d,]+ and 1 tokens\)"):
        score_tokens(tiny, other, [1, 2, 3])


def test_a_broken_model_is_said(tiny: Llama) -> None:
    broken = dataclasses.replace(tiny, model=deepcopy(tiny.model))
    broken.model.model.norm.weight.data.fill_(math.nan)
    with pytest.raises(ModelError, match="not finite"):
        score_tokens(tiny, broken, [1, 2, 3])
