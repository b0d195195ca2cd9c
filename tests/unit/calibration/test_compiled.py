"""Blocks that torch.compile runs: one graph for all blocks, the same numbers up to the order of sums, and a sentence where nothing can compile."""

from collections.abc import Callable, Iterator
from typing import Any

import jaxtyping
import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.backends.debugging import aot_eager

from salq.calibration import compiled, stages
from salq.calibration.engine import calibrate
from salq.calibration.recipe import CalibrationData, Fit, Recipe
from salq.calibration.regularizers import WeightPreservation
from salq.calibration.store import MemoryBlocks
from salq.calibration.student import Student
from salq.core.errors import ConfigError
from salq.models.llama import Llama
from salq.quant.adapter import LoRA
from salq.quant.spec import QuantSpec
from salq.runs.plan import plan
from salq.runs.requests import CalibrateRequest

pytestmark = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # of torch's own tracing

Backend = Callable[[torch.fx.GraphModule, list[Any]], Any]


def recipe(**fields: Any) -> Recipe:
    return Recipe(
        name="apiq",
        spec=QuantSpec(bits=3, group_size=32),
        adapter=LoRA(rank=2),
        stages=(Fit(epochs=2, batch_size=2, lr_clipping=0.05, lr_adapter=0.01, regularizer=WeightPreservation(strength=0.1, weighted=False)),),
        data=CalibrationData(n_samples=4, seq_len=24),
        **fields,
    )


@pytest.fixture
def with_backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Backend], None]]:
    """Compile with another backend, which needs no compiler of the machine's."""

    def use(backend: Backend) -> None:
        monkeypatch.setattr(stages, "compile_block", lambda block: nn.Module.compile(block, backend=backend, dynamic=False))
        monkeypatch.setattr(compiled.shutil, "which", lambda name: name)

    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # checks of shapes at run time cannot be traced
    torch._dynamo.reset()
    yield use
    torch._dynamo.reset()


@pytest.mark.parametrize("granularity", [None, "linear"])
def test_all_blocks_are_the_same_graphs_and_learn_what_they_learn_without(
    tiny: Llama, tokens: Tensor, with_backend: Callable[[Backend], None], granularity: Any
) -> None:
    graphs: dict[int, int] = {}
    blocks = MemoryBlocks()

    def count(graph: torch.fx.GraphModule, inputs: list[Any]) -> Any:
        block = sum(blocks.has(index) for index in range(tiny.n_blocks))
        graphs[block] = graphs.get(block, 0) + 1
        return aot_eager(graph, inputs)

    with_backend(count)
    list(calibrate(tiny, tokens, recipe(compile="block", granularity=granularity), blocks))
    plain = MemoryBlocks()
    list(calibrate(tiny, tokens, recipe(granularity=granularity), plain))
    assert set(graphs) == {0}, "a later block was compiled again"
    for index in range(tiny.n_blocks):
        for name, linear in blocks.load(index).items():
            torch.testing.assert_close(linear.scale, plain.load(index)[name].scale, rtol=1e-2, atol=1e-5)
            torch.testing.assert_close(linear.lora_B, plain.load(index)[name].lora_B, rtol=1e-1, atol=1e-3)


def test_what_is_measured_before_the_first_step_is_not_compiled(
    tiny: Llama, tokens: Tensor, with_backend: Callable[[Backend], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiled passes go backward once: with the real compiler, a second term's gradient is an error."""
    seen: list[bool] = []
    measure = stages.start_details

    def look(stage: Fit, student: Student, *rest: Any) -> dict[str, float]:
        seen.append(student.block._compiled_call_impl is not None)
        return measure(stage, student, *rest)

    monkeypatch.setattr(stages, "start_details", look)
    with_backend(aot_eager)
    list(calibrate(tiny, tokens, recipe(compile="block"), MemoryBlocks()))
    assert seen == [False] * tiny.n_blocks


def test_without_a_compiler_it_is_refused_before_any_work(tiny: Llama, tokens: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled.shutil, "which", lambda name: None)
    blocks = MemoryBlocks()
    for work in (
        lambda: list(calibrate(tiny, tokens, recipe(compile="block"), blocks)),
        lambda: plan(CalibrateRequest(model="smollm2-135m", recipe=recipe(compile="block"), device="cpu")),
    ):
        with pytest.raises(ConfigError, match=r"C\+\+ compiler .* is not installed; install it, name another one in CXX, or leave compile out"):
            work()
    assert not blocks.has(0)


def test_a_failed_compilation_is_one_sentence(tiny: Llama, tokens: Tensor, with_backend: Callable[[Backend], None]) -> None:
    def fail(*_: Any) -> Any:
        raise RuntimeError("Python.h is missing")

    with_backend(fail)
    with pytest.raises(ConfigError, match=r"torch\.compile failed \(.*Python\.h is missing.*\); mend its compiler, or leave compile out"):
        list(calibrate(tiny, tokens, recipe(compile="block"), MemoryBlocks()))


def test_recipes_that_do_not_compile_keep_their_hash() -> None:
    assert "compile" not in recipe().model_dump_json(exclude_none=True)
