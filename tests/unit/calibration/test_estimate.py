"""The estimate grows with the work and knows the default model's shapes."""

from transformers import LlamaConfig

from salq import recipes
from salq.calibration.estimate import block_weights, estimate
from salq.models.catalogue import CATALOGUE


def config(name: str) -> LlamaConfig:
    return LlamaConfig(**CATALOGUE[name].config)


def test_weights_of_a_block() -> None:
    assert block_weights(config("smollm2-135m")) * 30 == 106_168_320


def test_more_work_takes_longer() -> None:
    small = config("smollm2-135m")
    quick, base = (estimate(small, recipes.get("sapr", preset=preset)) for preset in ("quick", "base"))
    assert quick.total_seconds < base.total_seconds
    assert quick.saliency_seconds > 0
    assert estimate(small, recipes.get("sapr"), n_blocks=2).seconds < quick.seconds / 10
    assert estimate(small, recipes.get("rtn")).seconds < quick.seconds / 20


def test_a_larger_model_needs_more_memory() -> None:
    recipe = recipes.get("apiq")
    assert estimate(config("llama-2-7b"), recipe).memory_gb > 25 > estimate(config("smollm2-135m"), recipe).memory_gb
