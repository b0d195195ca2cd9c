"""Stages of one block: the optimizer that they share or not, what strengths are relative to, what is measured before the first step."""

import pytest
import torch
from torch import Tensor

from salq.calibration.engine import calibrate
from salq.calibration.fit import Factors, FitData, loss_terms
from salq.calibration.objectives import OutputMSE
from salq.calibration.recipe import CalibrationData, Fit, Recipe
from salq.calibration.regularizers import WeightPreservation
from salq.calibration.stages import block_starts, start_details
from salq.calibration.store import Block, MemoryBlocks
from salq.models.llama import Llama
from salq.quant.adapter import LoRA
from salq.quant.spec import QuantSpec
from tests.unit.calibration.test_fit import student_and_data


def calibrated(model: Llama, tokens: Tensor, *epochs: int, state: str | None) -> Block:
    """Block 0 after stages of the given lengths on one sample, whose order cannot differ."""
    recipe = Recipe(
        name="apiq",
        spec=QuantSpec(bits=2, group_size=32),
        adapter=LoRA(rank=2),
        stages=tuple(Fit(epochs=count, lr_clipping=0.05, lr_adapter=0.01) for count in epochs),
        data=CalibrationData(n_samples=1, seq_len=24),
        optimizer_state=state,
    )
    blocks = MemoryBlocks()
    list(calibrate(model, tokens[:1], recipe, blocks, n_blocks=1))
    return blocks.load(0)


def same(one: Block, two: Block) -> bool:
    return all(torch.equal(one[name].scale, two[name].scale) and torch.equal(one[name].lora_A, two[name].lora_A) for name in one)


def test_a_kept_optimizer_goes_on_as_if_there_were_one_stage(tiny: Llama, tokens: Tensor) -> None:
    whole = calibrated(tiny, tokens, 6, state=None)
    assert same(calibrated(tiny, tokens, 3, 3, state="kept"), whole)
    assert not same(calibrated(tiny, tokens, 3, 3, state=None), whole)


def test_a_stage_of_weights_borrows_the_output_loss_for_its_strength(tiny: Llama, tokens: Tensor) -> None:
    student, data = student_and_data(tiny, tokens)
    penalty = WeightPreservation(strength=0.5)
    weight, output = Fit(name="weight", objective=None, regularizer=penalty), Fit(objective=OutputMSE(), batch_size=4)
    first, second = block_starts([weight, output], student, data)
    assert first.output == pytest.approx(second.output, rel=1e-5)
    assert Factors.of(weight, data, first).regularizer * first.regularizer == pytest.approx(0.5 * first.output, rel=1e-5)


def test_without_any_output_loss_the_penalty_starts_at_its_strength(tiny: Llama, tokens: Tensor) -> None:
    student, data = student_and_data(tiny, tokens)
    stage = Fit(name="weight", objective=None, regularizer=WeightPreservation(strength=0.5))
    (start,) = block_starts([stage], student, data)
    assert Factors.of(stage, data, start).regularizer * start.regularizer == pytest.approx(0.5)


def gradient_norm(stage: Fit, term: str, parameters: list[torch.nn.Parameter], student: object, data: FitData, factors: Factors) -> float:
    """By backward, from the definition."""
    for parameter in parameters:
        parameter.grad = None
    loss_terms(stage, student, data, torch.arange(4), factors, torch.Generator())[term].backward()
    return float(torch.cat([parameter.grad.flatten() for parameter in parameters if parameter.grad is not None]).norm())


def test_gradients_before_the_first_step(tiny: Llama, tokens: Tensor) -> None:
    student, data = student_and_data(tiny, tokens)
    stage = Fit(objective=OutputMSE(), regularizer=WeightPreservation(strength=0.3, where="after_lora"), batch_size=4)
    (start,) = block_starts([stage], student, data)
    details = start_details(stage, student, data, start)
    factors = Factors.of(stage, data, start)
    assert details["loss.weight_saliency"] == pytest.approx(0.3 * start.output, rel=1e-5)
    for term in ("output", "weight_saliency"):
        for group in ("clipping", "adapter"):
            want = gradient_norm(stage, term, student.parameters(group), student, data, factors)
            assert want > 0
            assert details[f"gradient.{term}.{group}"] == pytest.approx(want, rel=1e-4)
