"""The end-to-end pass: its loss against a plain oracle, what it learns, what it stores, and resuming it."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from salq import recipes
from salq.calibration.distillation import Distillation, distill, rate
from salq.calibration.engine import calibrate
from salq.calibration.head import head_kl
from salq.calibration.learnable import LearnableLinear
from salq.calibration.store import Block, FileCheckpoint, MemoryBlocks
from salq.core import events as ev
from salq.core.drain import drain
from salq.core.errors import Diverged
from salq.core.progress import fold
from salq.evaluation.scores import score
from salq.kernels.assemble import quantized_copy, rtn_blocks
from salq.models.llama import LINEARS, Llama, load_model
from salq.quant.adapter import LoRA
from salq.quant.frozen import FrozenLinear, rtn
from salq.quant.spec import QuantSpec
from tests.helpers import assert_close, random_tokens, random_weight

SPEC = QuantSpec(bits=2, group_size=32)
SHORT = Distillation(steps=24, batch_size=2, lr_scale=1e-2, lr_adapter=1e-2)


SEEN = recipes.get("gptq", bits=2, group_size=32, overrides={"data.n_samples": 4, "data.seq_len": 24})


def with_adapters(blocks: Mapping[int, Block], rank: int = 4) -> dict[int, Block]:
    """`blocks` with fresh adapters, whose delta is zero."""
    generator = torch.Generator().manual_seed(0)

    def adapted(frozen: FrozenLinear) -> FrozenLinear:
        adapter = LoRA(rank=rank).build(*frozen.codes.shape, generator, torch.device("cpu"))
        half = torch.float16
        return FrozenLinear(
            frozen.spec, frozen.codes, frozen.scale, frozen.zero_point, adapter.lora_A.detach().to(half), adapter.lora_B.detach().to(half), 4.0
        )

    return {index: {name: adapted(frozen) for name, frozen in block.items()} for index, block in blocks.items()}


@pytest.fixture
def rounded(tiny: Llama) -> dict[int, Block]:
    return with_adapters(rtn_blocks(tiny, SPEC))


@pytest.fixture
def text(tiny: Llama) -> Tensor:
    return random_tokens(tiny.config.vocab_size, 6, 24)


def test_the_loss_and_its_gradient_are_those_of_plain_autograd() -> None:
    generator = torch.Generator().manual_seed(0)
    teacher, head = torch.randn(2, 300, 8, generator=generator), torch.randn(50, 8, generator=generator)
    student = (teacher + 0.3 * torch.randn(2, 300, 8, generator=generator)).requires_grad_()
    plain = student.detach().double().requires_grad_()
    log_p, log_q = (teacher.double() @ head.double().T).log_softmax(-1), (plain @ head.double().T).log_softmax(-1)
    want = (log_p.exp() * (log_p - log_q)).sum(-1).mean()
    want.backward()
    got = head_kl(student, teacher, head)
    (3 * got).backward()
    assert got.item() == pytest.approx(want.item(), rel=1e-4)
    assert_close("gradient", student.grad / 3, plain.grad, rtol=1e-3, atol=1e-7)


def test_a_learnable_matrix_starts_as_the_frozen_one_and_freezes_to_it() -> None:
    linear = torch.nn.Linear(64, 16)
    linear.weight.data.copy_(random_weight(16, 64))
    frozen = rtn(linear.weight.detach(), SPEC)
    for learn_weight in (False, True):
        learner = LearnableLinear(frozen, linear, learn_weight=learn_weight)
        assert_close("weight", learner.quantized_weight(), frozen.dequantize())
        again = learner.freeze()
        assert torch.equal(again.codes, frozen.codes)
        assert torch.equal(again.scale, frozen.scale)


def test_the_pass_brings_the_model_closer_and_keeps_the_codes(tiny: Llama, rounded: dict[int, Block], text: Tensor) -> None:
    events: list[ev.Event] = []
    result = drain(distill(tiny, rounded, text, SHORT), events.append)
    before = drain(score(tiny, quantized_copy(tiny, rounded), text)).kl
    after = drain(score(tiny, quantized_copy(tiny, result), text)).kl
    assert after < 0.7 * before
    for index, block in rounded.items():
        for name, frozen in block.items():
            assert torch.equal(result[index][name].codes, frozen.codes)
    assert any(not torch.equal(result[0][name].scale, frozen.scale) for name, frozen in rounded[0].items())
    course = fold(events).distillation
    assert course.steps == list(range(1, SHORT.steps + 1))
    assert course.losses[-1]["kl"] < course.losses[0]["kl"]


def test_samples_that_the_blocks_have_seen_are_not_run_through_the_original_again(tiny: Llama, rounded: dict[int, Block], text: Tensor) -> None:
    known = drain(calibrate(tiny, text[:4], SEEN, MemoryBlocks()))
    assert known is not None
    plain = drain(distill(tiny, rounded, text, SHORT))
    run: list[int] = []

    def count(module: torch.nn.Module, _: Any, kwargs: dict[str, Any]) -> None:
        if module is tiny.model.model:
            run.extend(kwargs["input_ids"][:, 0].tolist())

    hook = tiny.model.model.register_forward_pre_hook(count, with_kwargs=True)
    result = drain(distill(tiny, rounded, text, SHORT, known=known))
    hook.remove()
    assert sorted(run) == sorted(text[4:, 0].tolist())
    assert_close("log of the scale", result[0][LINEARS[0]].scale.log(), plain[0][LINEARS[0]].scale.log(), rtol=0, atol=2e-3)


@pytest.mark.parametrize("learn_weight", [False, True])
def test_a_model_in_bfloat16_learns_in_float32_and_stays_as_it_is(tiny_folder: Path, text: Tensor, learn_weight: bool) -> None:
    """As a GPU has it."""
    model = load_model(str(tiny_folder), device="cpu", dtype=torch.bfloat16)
    blocks, before = with_adapters(rtn_blocks(model, SPEC)), {name: value.clone() for name, value in model.model.state_dict().items()}
    known = drain(calibrate(model, text[:4], SEEN, MemoryBlocks()))
    config = SHORT.model_copy(update={"lr_weight": 1e-4 if learn_weight else 0.0})
    events: list[ev.Event] = []
    result = drain(distill(model, blocks, text, config, known=known), events.append)
    course = fold(events).distillation
    assert course.losses[-1]["kl"] < course.losses[0]["kl"]
    assert result[0][LINEARS[0]].scale.dtype == torch.float16
    assert all(value.dtype == torch.bfloat16 and torch.equal(value, before[name]) for name, value in model.model.state_dict().items())


def test_states_of_other_samples_or_of_some_blocks_are_not_used(tiny: Llama, rounded: dict[int, Block], text: Tensor) -> None:
    assert drain(calibrate(tiny, text[:4], SEEN, MemoryBlocks(), n_blocks=1)) is None
    others = drain(calibrate(tiny, text[:4].flip(0), SEEN, MemoryBlocks()))
    plain, got = drain(distill(tiny, rounded, text, SHORT)), drain(distill(tiny, rounded, text, SHORT, known=others))
    assert torch.equal(plain[0][LINEARS[0]].scale, got[0][LINEARS[0]].scale)


def test_trained_weights_get_new_codes_on_the_stored_scale(tiny: Llama, rounded: dict[int, Block], text: Tensor) -> None:
    result = drain(distill(tiny, rounded, text, SHORT.model_copy(update={"lr_weight": 1e-3})))
    assert any(not torch.equal(result[0][name].codes, frozen.codes) for name, frozen in rounded[0].items())
    after = drain(score(tiny, quantized_copy(tiny, result), text)).kl
    assert after < 0.7 * drain(score(tiny, quantized_copy(tiny, rounded), text)).kl


def test_the_original_is_left_alone(tiny: Llama, rounded: dict[int, Block], text: Tensor) -> None:
    before = {name: tensor.clone() for name, tensor in tiny.model.state_dict().items()}
    drain(distill(tiny, rounded, text, SHORT.model_copy(update={"steps": 3, "lr_weight": 1e-2})))
    for name, tensor in tiny.model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert not any(parameter.requires_grad for parameter in tiny.model.parameters())


class Kept:
    """A checkpoint after every step, in memory, that remembers the one after step `at`."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.state: tuple[int, dict[str, Tensor]] | None = None

    def save(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        if step == self.at:
            self.state = step, {name: tensor.clone() for name, tensor in tensors.items()}

    def load(self) -> tuple[int, dict[str, Tensor]] | None:
        return self.state


def test_a_resumed_pass_ends_where_an_uninterrupted_one_does(
    tiny: Llama, rounded: dict[int, Block], text: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("salq.calibration.distillation.SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    kept = Kept(at=9)
    whole = drain(distill(tiny, rounded, text, SHORT, checkpoints=kept))
    assert kept.state is not None
    file = FileCheckpoint(tmp_path / "state.safetensors")
    file.save(*kept.state)
    events: list[ev.Event] = []
    resumed = drain(distill(tiny, rounded, text, SHORT, checkpoints=file), events.append)
    assert [event.done for event in events if isinstance(event, ev.PhaseStep)] == list(range(10, SHORT.steps + 1))
    for index, block in whole.items():
        for name, frozen in block.items():
            for part, tensor in frozen.tensors().items():
                assert torch.equal(tensor, resumed[index][name].tensors()[part]), (index, name, part)


def test_a_torn_checkpoint_counts_as_none(tmp_path: Path) -> None:
    file = FileCheckpoint(tmp_path / "state.safetensors")
    assert file.load() is None
    file.save(3, {"0.value": torch.ones(4)})
    file.path.write_bytes(file.path.read_bytes()[:20])
    assert file.load() is None


def test_a_rate_that_is_too_large_is_caught(tiny: Llama, rounded: dict[int, Block], text: Tensor) -> None:
    with pytest.raises(Diverged, match="distillation"):
        drain(distill(tiny, rounded, text, Distillation(steps=300, batch_size=2, lr_scale=10.0, lr_adapter=10.0, lr_weight=10.0)))


@pytest.mark.parametrize(("lr_bits", "steps"), [(2, (0.1, 0.1 * 3 / 15)), (4, (0.1 * 15 / 3, 0.1)), (None, (0.1, 0.1))])
def test_finer_grids_take_smaller_steps_also_within_one_model(tiny: Llama, text: Tensor, lr_bits: Any, steps: tuple[float, float]) -> None:
    coarse, fine = rtn_blocks(tiny, SPEC), rtn_blocks(tiny, QuantSpec(bits=4, group_size=32))
    blocks = {0: coarse[0], 1: fine[1]}
    learned = drain(distill(tiny, blocks, text, Distillation(steps=1, batch_size=2, lr_scale=0.1, lr_bits=lr_bits)))
    for index, step in enumerate(steps):  # Adam's first step is as long as its rate
        for name, frozen in blocks[index].items():
            moved = (learned[index][name].scale.float() / frozen.scale.float()).log().abs()
            assert float(moved.median()) == pytest.approx(step, rel=0.1), (index, name)


def test_the_rate_rises_and_falls() -> None:
    factors = [rate(step, 100) for step in range(100)]
    assert factors[0] == pytest.approx(0.2)
    assert max(factors) == pytest.approx(1.0)
    assert factors[-1] < 0.001
    assert all(math.isfinite(factor) and factor > 0 for factor in factors)
