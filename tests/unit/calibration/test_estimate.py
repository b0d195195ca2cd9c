"""The estimate grows with the work, knows the default model's shapes, and its memory is what a pass really holds."""

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig

from salq import recipes
from salq.calibration.estimate import block_weights, estimate
from salq.calibration.memory import ALLOCATED, saved_numbers
from salq.core.device import GB
from salq.models.catalogue import CATALOGUE
from salq.models.llama import Llama, load_model
from salq.models.shapes import linear_shapes
from salq.models.tiny import save_tiny, tiny_config
from salq.saliency.fisher import BATCH_SIZE, _install_hooks, weights_of
from tests.helpers import random_tokens


def config(name: str) -> LlamaConfig:
    return LlamaConfig(**CATALOGUE[name].config)


@pytest.mark.parametrize("name", CATALOGUE)
def test_weights_of_a_block(name: str) -> None:
    for one in (config(name), tiny_config(config(name))):  # the tiny form of some has heads whose widths do not add up to the model's
        shapes = linear_shapes(one.to_dict(), n_blocks=1)
        assert block_weights(one) == sum(rows * columns for rows, columns in shapes.values())


def test_weights_of_the_default_model() -> None:
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


def held_numbers(model: Llama, tokens: Tensor) -> float:
    """Numbers per token and block that the saliency pass holds once its forward pass is over: saved for the backward pass, or by its hooks."""
    weights = {weight.untyped_storage().data_ptr() for weight in model.model.parameters()}
    held: dict[int, Tensor] = {}  # by address; kept, so that none is given twice

    def keep(tensor: Tensor) -> Tensor:
        address = tensor.untyped_storage().data_ptr()
        if address not in weights:
            held[address] = tensor
        return tensor

    totals = {block: {name: torch.zeros_like(weight) for name, weight in weights_of(model, block).items()} for block in range(model.n_blocks)}
    handles = list(_install_hooks(model, totals))
    handles += [linear.register_forward_hook(lambda _, args, __: (keep(args[0]), None)[1]) for b in totals for linear in model.linears(b).values()]
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.model.model(input_ids=tokens, use_cache=False)
    for handle in handles:
        handle.remove()
    return sum(tensor.untyped_storage().nbytes() for tensor in held.values()) / 4 / tokens.numel() / model.n_blocks


@pytest.mark.parametrize("shape", ["smollm2-135m", "llama-2-7b"])
def test_what_a_pass_keeps_of_a_token_is_counted(shape: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Heads in groups and heads of their own; long enough that what does not grow with the text is little."""
    model = load_model(str(save_tiny(tmp_path_factory.mktemp("shaped") / shape, shape)), device="cpu")
    held = held_numbers(model, random_tokens(model.config.vocab_size, n_samples=4, seq_len=256))
    assert held == pytest.approx(saved_numbers(model.config), rel=0.1)


def test_the_default_model_takes_what_was_measured() -> None:
    """Peaks of real runs on a CPU, w3g64, 2 windows of 512 tokens: rtn 1.45 GB, apiq (first block) 1.43 GB, sapr (first block) 3.34 GB."""
    small = config("smollm2-135m")
    assert estimate(small, recipes.get("rtn", bits=3)).memory_gb == pytest.approx(1.45, rel=0.1)
    assert estimate(small, recipes.get("apiq", bits=3), n_blocks=1).memory_gb == pytest.approx(1.43, rel=0.1)
    assert estimate(small, recipes.get("sapr", bits=3), n_blocks=1).memory_gb == pytest.approx(3.34, rel=0.1)


def test_memory_of_the_saliency_pass_grows_with_its_samples_length() -> None:
    small = config("smollm2-135m")
    quick, longer = (estimate(small, recipes.get("sapr", overrides={"saliency.seq_len": length})).memory_gb for length in (256, 512))
    assert longer - quick == pytest.approx(ALLOCATED * 4 * BATCH_SIZE * 256 * 30 * saved_numbers(small) / GB)
