"""Judging answers: the likelihood is the original's own, repetition is counted, and different vocabularies are refused."""

import pytest
import torch

from salq.chat.judge import PROMPTS, answer_nll, judge, repeated_ngrams
from salq.core.errors import ConfigError
from salq.kernels.assemble import quantized_copy, rtn_blocks
from salq.models.llama import Llama
from salq.quant.spec import QuantSpec


def test_the_likelihood_is_that_of_the_whole_sequence(tiny: Llama) -> None:
    prompt, answer = [5, 6, 7], [8, 9, 10, 11]
    logits = tiny.model(input_ids=torch.tensor([[*prompt, *answer]])).logits[0].double()
    want = [-float(logits[position - 1].log_softmax(-1)[token]) for position, token in enumerate([*prompt, *answer]) if position >= len(prompt)]
    assert answer_nll(tiny, prompt, answer).tolist() == pytest.approx(want, rel=1e-5)
    assert answer_nll(tiny, prompt, []).tolist() == []


def test_repetition() -> None:
    assert repeated_ngrams([1, 2, 3]) == (0, 0)
    assert repeated_ngrams([1, 2, 3, 4, 5]) == (0, 2)
    assert repeated_ngrams([1] * 10) == (6, 7)


def test_a_broken_model_is_less_likely_to_the_original_than_the_original_itself(tiny: Llama) -> None:
    own = list(judge(tiny, tiny, n_prompts=3, max_new_tokens=12))
    broken = list(judge(tiny, quantized_copy(tiny, rtn_blocks(tiny, QuantSpec(bits=2, group_size=32))), n_prompts=3, max_new_tokens=12))
    assert [judged.prompts for judged in own] == [1, 2, 3]
    assert broken[-1].nll > own[-1].nll
    assert own[-1].tokens <= 36


def test_more_prompts_than_there_are(tiny: Llama) -> None:
    assert len(PROMPTS) == len(set(PROMPTS)) == 20
    with pytest.raises(ConfigError, match="1 to 20"):
        next(judge(tiny, tiny, n_prompts=21))
