"""The Python way: a model and a recipe in, a calibrated model out."""

from pathlib import Path

import pytest

import salq
from salq.core import events as ev
from salq.core.errors import ShapeError
from salq.models.llama import Llama


def test_the_names_of_the_package() -> None:
    assert set(salq.__all__) <= set(dir(salq))
    assert salq.recipes.names() == ["rtn", "gptq", "apiq", "sapr", "salq", "salq-full", "apiq-lw", "sapr-staged", "sapr-sw", "db-llm", "binary-mos"]
    with pytest.raises(AttributeError, match="nothing"):
        _ = salq.nothing


def test_calibrate_and_evaluate(tiny: Llama, text_file: Path) -> None:
    changes = {"rank": 2, "epochs": 1, "data.n_samples": 2, "data.seq_len": 24, "saliency.n_samples": 2, "saliency.seq_len": 24}
    recipe = salq.recipes.get("sapr", bits=2, group_size=32, overrides=changes)
    seen: list[ev.Event] = []
    run = salq.calibrate(tiny, recipe, text=str(text_file), on_event=seen.append)
    scores = salq.evaluate(tiny, run.quantized, text=str(text_file), windows=2, window=32)
    assert sorted(run.blocks) == [0, 1]
    assert run.progress.blocks_done == 2
    assert isinstance(seen[-1], ev.PhaseDone)
    assert scores.perplexity > 1
    assert 2 < run.size.bits_per_weight < 4


def test_only_the_first_block(tiny: Llama) -> None:
    run = salq.calibrate(tiny, salq.recipes.get("rtn", bits=4, group_size=32), n_blocks=1)
    assert list(run.blocks) == [0]
    assert run.size.model_bits_per_weight > 4


def test_a_group_size_that_does_not_fit(tiny: Llama) -> None:
    with pytest.raises(ShapeError, match="not a multiple"):
        salq.calibrate(tiny, salq.recipes.get("rtn", bits=4, group_size=100))
