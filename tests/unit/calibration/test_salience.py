"""Saliency that follows quantization: what it is of, that a resumed run takes the same again, what it costs, what is refused."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig

from salq import recipes
from salq.calibration.engine import calibrate
from salq.calibration.estimate import estimate
from salq.calibration.recipe import Recipe
from salq.calibration.salience import REFRESH, RefreshedSaliency, SampledSaliency
from salq.calibration.store import Block, DirectoryBlocks, MemoryBlocks
from salq.core import events as ev
from salq.core.drain import drain
from salq.core.errors import ConfigError
from salq.models.catalogue import CATALOGUE
from salq.models.llama import LINEARS, Llama, load_model
from salq.models.tiny import save_tiny
from salq.saliency.fisher import Fisher, fisher_diagonal
from tests.exact import float64_copy, log_probabilities
from tests.helpers import assert_close, random_tokens

N_BLOCKS, EVERY = 4, 2


class OriginalSaliency:
    """The map of a model on some windows, as `SaliencyMap` is."""

    def __init__(self, fisher: Fisher, tokens: Tensor) -> None:
        self.n_samples, self.seq_len = tokens.shape
        self._fisher = fisher

    def block(self, index: int) -> dict[str, Tensor]:
        return self._fisher[index]


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Llama:
    """A tiny model of four blocks."""
    return load_model(str(save_tiny(tmp_path_factory.mktemp("models") / "deep", n_blocks=N_BLOCKS)), device="cpu")


@pytest.fixture(scope="module")
def sampled(deep: Llama) -> SampledSaliency:
    """Its map, with the windows that it was computed on."""
    tokens = random_tokens(deep.config.vocab_size, 6, 16, seed=1)
    return SampledSaliency(OriginalSaliency(drain(fisher_diagonal(deep, tokens)), tokens), tokens)


def recipe(refresh: int | None, **changes: object) -> Recipe:
    settings = {"epochs": 2, "data.n_samples": 4, "data.seq_len": 24, "rank": 2, "strength": 1.0, "saliency.refresh": refresh}
    return recipes.get("sapr", bits=2, group_size=32, overrides={**settings, **changes})


def calibrated(deep: Llama, sampled: SampledSaliency, made: Recipe, blocks: DirectoryBlocks | MemoryBlocks) -> list[ev.Event]:
    return list(calibrate(deep, random_tokens(deep.config.vocab_size, 4, 24), made, blocks, sampled))


def exact_saliency(model: Llama, frozen: dict[int, Block], tokens: Tensor, block: int) -> dict[str, Tensor]:
    """1/N sum_s (d nll_s / d W)^2 by autograd in float64, with the weights of the blocks in `frozen` replaced by what their codes stand for."""
    exact = float64_copy(model)
    for index, linears in frozen.items():
        for name, linear in exact.linears(index).items():
            linear.weight.data.copy_(linears[name].effective_weight())
    weights = [linear.weight.requires_grad_() for linear in exact.linears(block).values()]
    totals = [torch.zeros_like(weight) for weight in weights]
    for window in tokens:
        nll = -log_probabilities(exact, window).gather(-1, window[1:, None]).sum()
        for total, gradient in zip(totals, torch.autograd.grad(nll, weights), strict=True):
            total += gradient.square() / len(tokens)
    return dict(zip(LINEARS, totals, strict=True))


def test_it_is_the_fisher_diagonal_of_the_model_quantized_so_far(deep: Llama, sampled: SampledSaliency) -> None:
    blocks = MemoryBlocks()
    calibrated(deep, sampled, recipe(None), blocks)
    source = RefreshedSaliency(sampled, deep, blocks, EVERY, N_BLOCKS)
    assert list(source.refresh(1)) == []  # nothing is quantized before the first chunk but itself
    assert source.block(1) is sampled.block(1)
    told = list(source.refresh(3))
    assert [event.value["done"] for event in told] == [4, 6]
    assert {(event.name, event.value["block"], event.value["of"]) for event in told} == {(REFRESH, 2, 6)}
    for block in (2, 3):
        want = exact_saliency(deep, {0: blocks.load(0), 1: blocks.load(1)}, sampled.tokens, block)
        for name in LINEARS:
            got = source.block(block)[name]
            assert_close(f"{block}.{name}", got, want[name], rtol=1e-3, atol=1e-5 * float(want[name].max()))
            assert float((got - sampled.block(block)[name]).norm() / got.norm()) > 0.05  # 2 bits change the gradients
    assert list(source.refresh(2)) == []  # it is known


def test_blocks_after_the_first_refresh_differ(deep: Llama, sampled: SampledSaliency) -> None:
    plain, refreshed = MemoryBlocks(), MemoryBlocks()
    calibrated(deep, sampled, recipe(None), plain)
    events = calibrated(deep, sampled, recipe(EVERY), refreshed)
    assert [event.value["block"] for event in events if isinstance(event, ev.MetricReported) and event.name == REFRESH] == [2, 2]
    same = [torch.equal(plain.load(index)["mlp.down_proj"].scale, refreshed.load(index)["mlp.down_proj"].scale) for index in range(N_BLOCKS)]
    assert same == [True, True, False, False]


def test_a_run_that_is_resumed_between_two_refreshes_gives_the_same_codes(deep: Llama, sampled: SampledSaliency, tmp_path: Path) -> None:
    whole, cut = DirectoryBlocks(tmp_path / "whole"), DirectoryBlocks(tmp_path / "cut")
    calibrated(deep, sampled, recipe(EVERY), whole)
    for event in calibrate(deep, random_tokens(deep.config.vocab_size, 4, 24), recipe(EVERY), cut, sampled):
        if isinstance(event, ev.BlockDone) and event.block == 2:
            break
    assert cut.indices() == [0, 1, 2]
    calibrated(deep, sampled, recipe(EVERY), cut)
    for index in range(N_BLOCKS):
        assert cut.path(index).read_bytes() == whole.path(index).read_bytes()


@pytest.mark.parametrize("where", ["stages.*.objective.channels", "adapter.start"])
def test_what_else_weighs_by_saliency_sees_the_refreshed_one(deep: Llama, sampled: SampledSaliency, where: str) -> None:
    plain, refreshed = MemoryBlocks(), MemoryBlocks()
    changes = {"stages.*.regularizer.strength": 0.0, where: "saliency"}
    calibrated(deep, sampled, recipe(None, **changes), plain)
    calibrated(deep, sampled, recipe(EVERY, **changes), refreshed)
    assert torch.equal(plain.load(1)["mlp.up_proj"].lora_A, refreshed.load(1)["mlp.up_proj"].lora_A)
    assert not torch.equal(plain.load(2)["mlp.up_proj"].lora_A, refreshed.load(2)["mlp.up_proj"].lora_A)


def test_refreshing_costs_time_and_memory() -> None:
    small = LlamaConfig(**CATALOGUE["smollm2-135m"].config)

    def cost(refresh: int | None) -> tuple[float, float]:
        settings = {"saliency.refresh": refresh, "data.n_samples": 2048, "data.seq_len": 512, "streams_gb": 100.0}
        expected = estimate(small, recipes.get("sapr", overrides=settings))
        return expected.seconds, expected.memory_gb

    (once, held), (six, held_six), (every, held_every) = cost(None), cost(6), cost(1)
    assert once < six < every
    assert held + 1.5 < held_six < held_every  # 1024 tokens through 24 blocks or 29, while the streams' 9.7 GB wait


def test_it_is_refused_where_nothing_uses_it_or_the_samples_are_missing(deep: Llama, sampled: SampledSaliency) -> None:
    with pytest.raises(ConfigError, match="nothing in this recipe is weighted"):
        recipe(EVERY, **{"stages.*.regularizer.strength": 0.0})
    with pytest.raises(ConfigError, match="greater than or equal to 1"):
        recipe(0)
    with pytest.raises(ConfigError, match="tokens that it was computed on"):
        list(calibrate(deep, random_tokens(deep.config.vocab_size, 4, 24), recipe(EVERY), MemoryBlocks(), sampled.map))
    others = SampledSaliency(sampled.map, sampled.tokens[:2])
    with pytest.raises(ConfigError, match="6 samples of 16 tokens and its refresh would be of 2 of 16"):
        list(calibrate(deep, random_tokens(deep.config.vocab_size, 4, 24), recipe(EVERY), MemoryBlocks(), others))
