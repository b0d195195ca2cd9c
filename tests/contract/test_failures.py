"""What can go wrong in a calibration has a defined end: stopped at the last finished block, defined codes, or one sentence before any work."""

import contextlib
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from salq import recipes
from salq.calibration.engine import calibrate
from salq.calibration.recipe import Recipe
from salq.calibration.store import Block, BlockStore, DirectoryBlocks, MemoryBlocks
from salq.core import events as ev
from salq.core.errors import ConfigError, Diverged, ShapeError, StoreError
from salq.core.files import read_json
from salq.models.llama import LINEARS, Llama, load_model
from tests.helpers import random_tokens


class MadeSaliency:
    """A saliency map whose every matrix is `make(block, shape)`."""

    n_samples, seq_len = 4, 24

    def __init__(self, model: Llama, make: Callable[[int, torch.Size], Tensor]) -> None:
        self._blocks = [{name: make(index, linear.weight.shape) for name, linear in model.linears(index).items()} for index in range(model.n_blocks)]

    def block(self, index: int) -> dict[str, Tensor]:
        return self._blocks[index]


def ones(_: int, shape: torch.Size) -> Tensor:
    return torch.full(shape, 1e-3)


def small(name: str, **overrides: object) -> Recipe:
    data = {} if name == "rtn" else {"n_samples": 4, "seq_len": 24}
    changes = data if name in {"rtn", "gptq"} else {**data, "epochs": 2, "rank": 4, **overrides}
    return recipes.get(name, bits=1 if name == "binary-mos" else 2, group_size=32, overrides=changes)


def run(model: Llama, recipe: Recipe, blocks: BlockStore, saliency: MadeSaliency | None = None, *, text_seed: int = 0, **options: object) -> list:
    tokens = random_tokens(model.config.vocab_size, 4, 24, seed=text_seed)
    return list(calibrate(model, tokens, recipe, blocks, saliency or MadeSaliency(model, ones), **options))


@pytest.fixture
def own(tiny_folder: Path) -> Llama:
    """A model whose weights may be changed."""
    return load_model(str(tiny_folder), device="cpu")


def test_a_loss_that_is_not_finite_stops_at_the_last_finished_block(own: Llama) -> None:
    own.linears(1)["mlp.down_proj"].weight.data.mul_(1e25)
    blocks = MemoryBlocks()
    with pytest.raises(Diverged, match=r"block 1, stage 'output', step 1 \(from the first step\).*resume: finished blocks are kept"):
        run(own, small("apiq", normalize="raw"), blocks)
    assert blocks.has(0)
    assert not blocks.has(1)


def test_saliency_that_is_not_finite_is_not_weighed_with(tiny: Llama) -> None:
    spoiled = MadeSaliency(tiny, lambda index, shape: torch.full(shape, torch.nan if index == 1 else 1e-3))
    blocks = MemoryBlocks()
    with pytest.raises(ConfigError, match=r"saliency of 1\.self_attn\.q_proj has values that are not finite"):
        run(tiny, small("sapr"), blocks, spoiled)
    assert blocks.has(0)


@pytest.mark.parametrize("convention", ["relative", "published"])
def test_dead_saliency_is_apiq(tiny: Llama, convention: str) -> None:
    dead, plain = MemoryBlocks(), MemoryBlocks()
    run(tiny, small("sapr", convention=convention), dead, MadeSaliency(tiny, lambda _, shape: torch.zeros(shape)))
    run(tiny, small("apiq"), plain)
    for index in range(tiny.n_blocks):
        for name, linear in dead.load(index).items():
            assert torch.equal(linear.codes, plain.load(index)[name].codes)


def test_a_stage_of_dead_saliency_alone_changes_nothing(tiny: Llama) -> None:
    zeros = MadeSaliency(tiny, lambda _, shape: torch.zeros(shape))
    events = run(tiny, small("sapr-staged", **{"stages.1.epochs": 0, "stages.2.epochs": 0}), MemoryBlocks(), zeros)
    assert {value for event in events if isinstance(event, ev.StepDone) for value in event.loss.values()} == {0.0}


def spoil(model: Llama, kind: str) -> None:
    """Every second group of 32 inputs becomes one that stresses the grid."""
    for index in range(model.n_blocks):
        for linear in model.linears(index).values():
            groups = linear.weight.data.view(linear.weight.shape[0], -1, 32)[:, ::2]
            groups.copy_({"zero": groups * 0, "equal": groups * 0 + 0.03, "positive": groups.abs() + 0.01, "negative": -groups.abs() - 0.01}[kind])


@pytest.mark.parametrize("kind", ["zero", "equal", "positive", "negative"])
@pytest.mark.parametrize("name", ["rtn", "gptq", "apiq", "sapr", "salq-full", "db-llm"])
def test_groups_of_one_value_or_one_sign(own: Llama, name: str, kind: str) -> None:
    spoil(own, kind)
    blocks = MemoryBlocks()
    events = run(own, small(name), blocks)
    assert all(event.output_error is not None and math.isfinite(event.output_error) for event in events if isinstance(event, ev.BlockDone))
    for index in range(own.n_blocks):
        for module_name, linear in blocks.load(index).items():
            assert int(linear.codes.max()) <= 3
            assert not linear.zero_point.numel() or int(linear.zero_point.max()) <= 3
            assert linear.effective_weight().isfinite().all()
            if kind in {"zero", "equal"} and name == "rtn":
                weight = own.linears(index)[module_name].weight
                groups = (linear.dequantize() - weight).view(weight.shape[0], -1, 32)[:, ::2]
                assert float(groups.abs().max()) < 1e-4


@pytest.mark.parametrize("name", ["apiq", "apiq-lw", "sapr-staged", "db-llm", "binary-mos"])
def test_far_too_large_learning_rates_end_defined(tiny: Llama, name: str) -> None:
    """Either the loss is no longer finite, which stops the run, or the blocks are finite."""
    blocks = MemoryBlocks()
    with contextlib.suppress(Diverged):
        run(tiny, small(name, lr=10.0, epochs=10), blocks)
    finished = [blocks.load(index) for index in range(tiny.n_blocks) if blocks.has(index)]
    assert all(tensor.isfinite().all() for block in finished for linear in block.values() for tensor in linear.tensors().values())


class ShortSaliency(MadeSaliency):
    def __init__(self, model: Llama) -> None:
        super().__init__(model, ones)
        del self._blocks[1:]


def test_saliency_of_another_model_is_refused_before_any_work(tiny: Llama) -> None:
    for wrong in (MadeSaliency(tiny, lambda _, shape: torch.ones(shape[0], shape[1] + 1)), ShortSaliency(tiny)):
        with pytest.raises(ShapeError, match="computed on another model"):
            next(calibrate(tiny, random_tokens(tiny.config.vocab_size, 4, 24), small("sapr"), MemoryBlocks(), wrong))


@pytest.mark.parametrize("make", [lambda folder: DirectoryBlocks(folder), lambda _: MemoryBlocks()], ids=["directory", "memory"])
def test_a_resume_with_other_inputs_is_refused_before_any_work(tiny: Llama, own: Llama, tmp_path: Path, make: Callable[[Path], BlockStore]) -> None:
    blocks = make(tmp_path / "blocks")
    run(tiny, small("apiq"), blocks, n_blocks=1)
    for model, name, options, says in (
        (tiny, "apiq", {"seed": 7}, r"another seed \(0, not 7\)"),
        (tiny, "apiq", {"text_seed": 1}, "another calibration text;"),
        (tiny, "apiq-lw", {}, "another recipe;"),
    ):
        with pytest.raises(StoreError, match=says) as caught:
            run(model, small(name), blocks, **options)
        assert "\n" not in str(caught.value)
    events = run(tiny, small("apiq"), blocks)
    assert [event.stored for event in events if isinstance(event, ev.BlockStarted)] == [True, False]


def test_blocks_of_an_older_version_say_nothing_about_their_origin(tiny: Llama, tmp_path: Path) -> None:
    blocks = DirectoryBlocks(tmp_path)
    run(tiny, small("apiq"), blocks, n_blocks=1)
    origin = tmp_path / "origin.json"
    assert set(read_json(origin)) == {"model", "recipe", "calibration text", "seed"}
    origin.unlink()
    assert run(tiny, small("apiq"), blocks, n_blocks=1, seed=5)


def test_a_folder_whose_blocks_were_never_finished_binds_nobody(tiny: Llama, tmp_path: Path) -> None:
    blocks = DirectoryBlocks(tmp_path)
    events = calibrate(tiny, random_tokens(tiny.config.vocab_size, 4, 24), small("apiq"), blocks)
    next(events)
    events.close()
    assert run(tiny, small("apiq"), blocks, n_blocks=1, seed=5)


def test_two_binaries_are_stored_and_come_back(tiny: Llama, tmp_path: Path) -> None:
    memory, disk = MemoryBlocks(), DirectoryBlocks(tmp_path)
    run(tiny, small("db-llm"), memory, n_blocks=1)
    run(tiny, small("db-llm"), disk, n_blocks=1)
    kept: Block = disk.load(0)
    assert {linear.grid for linear in kept.values()} == {"dual_binary"}
    assert set(kept) == set(LINEARS)
    for name, linear in memory.load(0).items():
        assert torch.equal(linear.effective_weight(), kept[name].effective_weight())
