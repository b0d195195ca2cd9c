"""One stage: its learning rates, its terms and the conventions of the regularizer's strength."""

import pytest
import torch

from salq.calibration.fit import FitData, losses_at_start, run_stage
from salq.calibration.objectives import OutputMSE, Targets
from salq.calibration.recipe import Fit
from salq.calibration.regularizers import WeightPreservation
from salq.calibration.streams import Streams
from salq.calibration.student import Student
from salq.models.llama import LINEARS, Llama
from salq.quant.adapter import LoRA
from salq.quant.clipping import LWC
from salq.quant.spec import QuantSpec

SPEC = QuantSpec(bits=2, group_size=32)


def student_and_data(model: Llama, tokens: torch.Tensor) -> tuple[Student, FitData]:
    streams = Streams(model, tokens, torch.device("cpu"))
    targets = streams.targets(model.blocks[0], augmented=True)
    saliency = {name: torch.ones_like(linear.weight) for name, linear in model.linears(0).items()}
    student = Student(model.blocks[0], LINEARS, SPEC, LWC(), LoRA(rank=2), torch.Generator().manual_seed(0))
    return student, FitData(streams.quantized, streams.kwargs, targets, saliency, 0)


def losses(stage: Fit, student: Student, data: FitData) -> list[dict[str, float]]:
    return [event.loss for event in run_stage(stage, student, data, torch.Generator().manual_seed(1))]


def test_the_output_loss_falls(tiny: Llama, tokens: torch.Tensor) -> None:
    student, data = student_and_data(tiny, tokens)
    course = losses(Fit(epochs=30, batch_size=4), student, data)
    assert course[-1]["output"] < 0.9 * course[0]["output"]


def test_a_stage_of_the_regularizer_alone_moves_only_the_clipping(tiny: Llama, tokens: torch.Tensor) -> None:
    student, data = student_and_data(tiny, tokens)
    stage = Fit(name="weight", epochs=3, objective=None, regularizer=WeightPreservation(convention="published", strength=1.0), weight_decay=0.0)
    course = losses(stage, student, data)
    assert set(course[0]) == {"weight_saliency"}
    assert course[-1]["weight_saliency"] < course[0]["weight_saliency"]
    for linear in student.linears.values():
        assert linear.adapter is not None
        assert not linear.adapter.lora_B.any()


def test_relative_strength_is_the_ratio_of_the_terms_at_the_start(tiny: Llama, tokens: torch.Tensor) -> None:
    student, data = student_and_data(tiny, tokens)
    stage = Fit(epochs=1, batch_size=4, regularizer=WeightPreservation(strength=0.25))
    start = losses_at_start(stage, student, data)
    first = losses(stage, student, data)[0]
    assert first["weight_saliency"] == pytest.approx(0.25 * start.output, rel=1e-4)


def test_published_strength_is_raw_and_grows_per_block() -> None:
    term = WeightPreservation(strength=1e-3, convention="published", block_multiplier=1.1)
    assert term.coefficient(3, output_at_start=5.0, raw_at_start=7.0) == pytest.approx(1e-3 * 1.1**3)


def test_dead_saliency_counts_as_nothing() -> None:
    assert WeightPreservation().coefficient(0, output_at_start=5.0, raw_at_start=0.0) == 0.0


def test_cosine_schedule_ends_near_zero(tiny: Llama, tokens: torch.Tensor) -> None:
    """The last of n steps runs at half a cosine of (n - 1) / n, so its update is far smaller than the first one's."""
    student, data = student_and_data(tiny, tokens)
    stage = Fit(epochs=20, batch_size=4, schedule="cosine", weight_decay=0.0)
    positions = []
    for _ in run_stage(stage, student, data, torch.Generator().manual_seed(1)):
        upper = student.linears[LINEARS[0]].clipping.upper_logit
        assert upper is not None
        positions.append(upper.detach().clone())
    assert float((positions[-1] - positions[-2]).abs().mean()) < 0.1 * float((positions[1] - positions[0]).abs().mean())


def test_normalized_loss_does_not_care_about_the_size_of_a_token() -> None:
    target = torch.randn(1, 4, 8, generator=torch.Generator().manual_seed(0))
    output = target + 0.1 * torch.randn(1, 4, 8, generator=torch.Generator().manual_seed(1))
    scale = torch.tensor([1.0, 1.0, 1000.0, 1.0])[None, :, None]
    term = OutputMSE(augmented=False, normalize="token")
    plain, massive = (float(term.loss(output * s, Targets(target * s, None))) for s in (torch.ones(1, 4, 1), scale))
    assert plain == pytest.approx(massive, rel=1e-5)


def test_student_shares_the_weights_of_the_block(tiny: Llama) -> None:
    student = Student(tiny.blocks[0], LINEARS, SPEC, LWC(), None, torch.Generator())
    for name, linear in tiny.linears(0).items():
        assert student.linears[name].weight.data_ptr() == linear.weight.data_ptr()
