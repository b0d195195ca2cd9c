"""Zero-shot tasks: log-likelihoods against perplexity's own, and, where lm-evaluation-harness is installed, a task of four questions for real."""

import dataclasses
import importlib.util
import json
import sys
from copy import deepcopy
from pathlib import Path

import pytest
import torch

from salq.core.errors import ConfigError, TextError
from salq.evaluation.scores import window_nll
from salq.evaluation.tasks import check_harness, continuation, rolling, written, zero_shot
from salq.kernels.assemble import quantized_copy, rtn_blocks
from salq.models.llama import Llama
from salq.quant.spec import QuantSpec
from tests.helpers import random_tokens

QUESTIONS = (
    ("The sky is", ["blue", "made of cheese and wire"], 0),
    ("Two and two make", ["a green lamp", "four"], 1),
    ("A cat says", ["meow", "quarterly report"], 0),
    ("Water is", ["dry", "wet"], 1),
)
needs_harness = pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None, reason="lm-evaluation-harness is an optional extra, not installed here"
)


def task_file(folder: Path) -> Path:
    """A multiple-choice task whose data lie beside it."""
    lines = [json.dumps({"question": question, "choices": choices, "label": label}) for question, choices, label in QUESTIONS]
    (folder / "data.jsonl").write_text("\n".join(lines) + "\n")
    path = folder / "four.yaml"
    path.write_text(
        "task: four_questions\ndataset_path: json\ndataset_kwargs:\n  data_files:\n    validation: data.jsonl\n"
        "output_type: multiple_choice\nvalidation_split: validation\ntest_split: null\ntraining_split: null\n"
        "doc_to_text: '{{question}}'\ndoc_to_choice: choices\ndoc_to_target: label\n"
        "metric_list:\n  - metric: acc\n    aggregation: mean\n    higher_is_better: true\n"
    )
    return path


def test_a_continuation_is_the_perplexity_of_its_tokens(tiny: Llama) -> None:
    tokens = random_tokens(tiny.config.vocab_size, n_samples=1, seq_len=20)[0]
    nll = window_nll(tiny, tokens)
    total, _ = continuation(tiny, tokens[:12].tolist(), tokens[12:].tolist())
    assert total == pytest.approx(-float(nll[11:].sum()), rel=1e-5)
    assert rolling(tiny, int(tokens[0]), tokens[1:].tolist()) == pytest.approx(-float(nll.sum()), rel=1e-5)


def test_greedy_is_what_the_model_would_write(tiny: Llama) -> None:
    prompt = random_tokens(tiny.config.vocab_size, n_samples=1, seq_len=6, seed=3)[0].tolist()
    following: list[int] = []
    for _ in range(4):
        logits = tiny.model(torch.tensor([[*prompt, *following]])).logits[0, -1]
        following.append(int(logits.argmax()))
    assert continuation(tiny, prompt, following)[1]
    assert not continuation(tiny, prompt, [(following[0] + 1) % tiny.config.vocab_size, *following[1:]])[1]
    text = written(tiny, prompt, {"max_gen_toks": 4})
    assert text == tiny.tokenizer.decode(following, skip_special_tokens=True)
    assert written(tiny, prompt, {"max_gen_toks": 4, "until": [text[1:2]]}) == text[: text.index(text[1:2])]


def test_a_context_that_is_too_long_loses_its_beginning(tiny: Llama) -> None:
    short, longest = dataclasses.replace(tiny, model=deepcopy(tiny.model)), 32
    short.config.max_position_embeddings = longest
    tokens = random_tokens(tiny.config.vocab_size, n_samples=1, seq_len=longest + 8)[0].tolist()
    assert continuation(short, tokens[:-4], tokens[-4:]) == continuation(short, tokens[7:-4], tokens[-4:])
    assert continuation(short, tokens[:-4], tokens[-4:]) != continuation(short, tokens[8:-4], tokens[-4:])
    windows = (([0], tokens[:longest]), ([tokens[longest - 1]], tokens[longest:]))
    assert rolling(short, 0, tokens) == pytest.approx(sum(continuation(tiny, before, part)[0] for before, part in windows))


def test_without_the_harness_one_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tiny: Llama) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    for attempt in (check_harness, lambda: zero_shot(tiny, ["piqa"])):
        with pytest.raises(ConfigError, match=r"not installed; pip install 'salq\[tasks\]'"):
            attempt()


@needs_harness
def test_a_task_of_a_file_with_its_data_beside_it(tiny: Llama, tmp_path: Path) -> None:
    path = task_file(tmp_path)
    found = zero_shot(tiny, [], path)["four_questions"]
    right = 0
    for question, choices, label in QUESTIONS:
        encoded = [tiny.tokenizer(text, add_special_tokens=False).input_ids for text in (question, *(f"{question} {choice}" for choice in choices))]
        sums = [continuation(tiny, encoded[0], one[len(encoded[0]) :])[0] for one in encoded[1:]]
        right += sums.index(max(sums)) == label
    assert found["questions"] == 4
    assert found["metrics"]["acc"]["value"] == pytest.approx(right / 4)
    assert found["metrics"]["acc"]["standard_error"] is not None
    coarse = quantized_copy(tiny, rtn_blocks(tiny, QuantSpec(bits=2, group_size=32)))
    assert zero_shot(coarse, [], path, limit=2)["four_questions"]["questions"] == 2


@needs_harness
def test_what_is_no_task_is_one_sentence(tiny: Llama, tmp_path: Path) -> None:
    with pytest.raises(TextError, match="does not exist"):
        check_harness(tmp_path / "nothing.yaml")
    for text in ("[1, 2", "task: 3", "just words"):
        (tmp_path / "bad.yaml").write_text(text)
        with pytest.raises(ConfigError, match="is no task"):
            zero_shot(tiny, [], tmp_path / "bad.yaml")
    with pytest.raises(ConfigError, match="no_such_task cannot be run"):
        zero_shot(tiny, ["no_such_task"])
