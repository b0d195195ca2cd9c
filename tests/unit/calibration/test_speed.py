"""The speed measurement compares loops that do the same, and counts the arithmetic that the method needs."""

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from salq import recipes
from salq.calibration.engine import calibrate
from salq.calibration.speed import block_flops, calibration_speed
from salq.calibration.store import MemoryBlocks
from salq.core.errors import ConfigError
from salq.models.llama import Llama, load_model

SMALL = {"data.n_samples": 8, "data.seq_len": 32, "rank": 2, "epochs": 3}


def test_both_loops_take_the_same_first_steps_and_are_timed(tiny: Llama) -> None:
    speed = calibration_speed(tiny, recipes.get("apiq", bits=3, group_size=32, overrides=SMALL), blocks=1, rounds=2)
    assert speed.loss_difference < 1e-4
    assert speed.steps == 8
    assert speed.ratio > 0
    assert 0 < speed.matmul_share < 1


def test_a_model_in_bfloat16_is_measured_too(tiny_folder: Path) -> None:
    """As a GPU has it. Few steps: weights of 8 bits lie on the border of two codes so often that the order of a sum soon shows."""
    model = load_model(str(tiny_folder), device="cpu", dtype=torch.bfloat16)
    assert calibration_speed(model, recipes.get("apiq", bits=3, group_size=32, overrides=SMALL), blocks=1, rounds=1, steps=1).steps == 1


def test_flops_are_those_that_torch_counts(tiny: Llama) -> None:
    recipe = recipes.get("apiq", bits=3, group_size=32, overrides=SMALL)
    tokens = torch.randint(0, tiny.config.vocab_size, (8, 32), generator=torch.Generator().manual_seed(0))
    with FlopCounterMode(display=False) as counter:
        list(calibrate(tiny, tokens, recipe, MemoryBlocks(), n_blocks=1))
    assert block_flops(tiny, recipe) == pytest.approx(counter.get_total_flops(), rel=0.25)  # it also measures losses before the first step
    assert block_flops(tiny, recipe) < counter.get_total_flops()


def test_a_recipe_of_more_than_one_stage_is_refused(tiny: Llama) -> None:
    with pytest.raises(ConfigError, match="use apiq"):
        calibration_speed(tiny, recipes.get("sapr-staged", overrides=SMALL))
