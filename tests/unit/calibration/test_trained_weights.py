"""Weights that blocks train: the original stays, the codes move, R measures from the original, the end-to-end pass goes on from there."""

import pytest
import torch
from pydantic import ValidationError

from salq import recipes
from salq.calibration.engine import calibrate
from salq.calibration.learnable import LearnableLinear
from salq.calibration.recipe import Fit, Recipe
from salq.calibration.regularizers import WeightPreservation
from salq.calibration.store import MemoryBlocks
from salq.calibration.student import Student
from salq.core import events as ev
from salq.models.llama import LINEARS, Llama
from salq.quant.clipping import LWC
from salq.quant.dual_binary import DualBinary
from salq.quant.spec import QuantSpec
from tests.helpers import random_tokens

SPEC = QuantSpec(bits=2, group_size=32)


def calibrated(model: Llama, lr_weight: float | None) -> tuple[MemoryBlocks, float]:
    """(blocks, relative output error of the first one) of a short calibration at 2 bits."""
    settings = {"rank": 4, "n_samples": 8, "seq_len": 24, "epochs": 20, "stages.*.lr_weight": lr_weight}
    recipe = recipes.get("apiq", preset="quick", bits=2, group_size=32, overrides=settings)
    blocks, tokens = MemoryBlocks(), random_tokens(model.config.vocab_size, 8, 24)
    done = [event for event in calibrate(model, tokens, recipe, blocks, n_blocks=1) if isinstance(event, ev.BlockDone)]
    return blocks, done[0].output_error or 0.0


def test_trained_weights_bring_the_output_nearer_and_leave_the_original_alone(tiny: Llama) -> None:
    before = {name: linear.weight.clone() for name, linear in tiny.linears(0).items()}
    frozen, plain = calibrated(tiny, None)
    trained, better = calibrated(tiny, 2e-3)
    assert better < 0.95 * plain
    for name, linear in tiny.linears(0).items():
        assert torch.equal(linear.weight, before[name])
    assert any(not torch.equal(frozen.load(0)[name].codes, trained.load(0)[name].codes) for name in LINEARS)


def test_the_regularizer_measures_from_the_original(tiny: Llama) -> None:
    student = Student(tiny.blocks[0], LINEARS, SPEC, LWC(), None, torch.Generator(), learn_weight=True)
    term = WeightPreservation(weighted=False)
    with torch.no_grad():
        start = float(term.raw(student.linears, None))
        for parameter in student.parameters("weight"):
            parameter.add_(1.0)
        student.new_step()
        assert float(term.raw(student.linears, None)) > 10 * start
    assert len(student.parameters("weight")) == len(LINEARS)


def test_the_end_to_end_pass_starts_from_the_codes_of_the_blocks(tiny: Llama) -> None:
    trained, _ = calibrated(tiny, 2e-3)
    for name, frozen in trained.load(0).items():
        learner = LearnableLinear(frozen, tiny.linears(0)[name], learn_weight=True)
        assert torch.equal(learner.freeze().codes, frozen.codes)
        assert learner.weight is not None
        assert float((learner.weight.detach() - tiny.linears(0)[name].weight).abs().max()) < float(frozen.scale.max()) * 4


def test_weights_are_not_trained_where_no_uniform_grid_rounds_them() -> None:
    with pytest.raises(ValidationError, match="leave lr_weight out"):
        Recipe(name="trained", spec=SPEC, quantizer=DualBinary(), stages=(Fit(lr_weight=1e-3),), data=recipes.get("apiq").data)
