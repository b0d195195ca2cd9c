"""Starts in closed form: the moments are those of what the linears receive, and a start from them is nearer to the block's output."""

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from salq import recipes
from salq.calibration.engine import calibrate
from salq.calibration.inputs import input_moment
from salq.calibration.recipe import Recipe
from salq.calibration.store import MemoryBlocks
from salq.core import events as ev
from salq.core.errors import ConfigError, ModelError
from salq.models.capture import capture_block_inputs
from salq.models.llama import Llama
from salq.quant.clipping import LWC
from tests.helpers import random_tokens


def test_a_moment_is_the_mean_outer_product_of_what_a_linear_receives(tiny: Llama) -> None:
    tokens = random_tokens(tiny.config.vocab_size, 5, 16)
    inputs = capture_block_inputs(tiny, tokens)
    seen: dict[str, Tensor] = {}
    handles = [
        linear.register_forward_pre_hook(lambda _, args, name=name: seen.update({name: args[0].flatten(0, -2).double()}))
        for name, linear in tiny.linears(0).items()
    ]
    with torch.no_grad():
        tiny.blocks[0](inputs.hidden, **inputs.kwargs)
    for handle in handles:
        handle.remove()
    for name, x in seen.items():
        moment = input_moment(tiny.blocks[0], name, inputs.hidden, inputs.kwargs)
        assert torch.allclose(moment.double(), x.T @ x / len(x), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("bits", [2, 3])
def test_a_start_in_closed_form_alone_is_nearer_to_the_output_than_rounding(tiny: Llama, bits: int) -> None:
    tokens = random_tokens(tiny.config.vocab_size, 16, 24)

    def error(name: str, **overrides: object) -> float:
        recipe = recipes.get(name, bits=bits, group_size=16, overrides=overrides)
        return (
            next(event.output_error for event in calibrate(tiny, tokens, recipe, MemoryBlocks(), n_blocks=1) if isinstance(event, ev.BlockDone))
            or 0.0
        )

    still = {"adapter.rank": 4, "data.n_samples": 16, "data.seq_len": 24, "epochs": 0}
    rounding, clipped = error("rtn"), error("apiq", **still, **{"quantizer.start": "output"})
    both = error("apiq", **still, **{"quantizer.start": "output", "adapter.start": "output"})
    compensated = error("apiq", **still, **{"quantizer.start": "output", "adapter.start": "output", "rounding": "compensated"})
    assert compensated < both < clipped < rounding
    assert error("gptq", n_samples=16, seq_len=24) < rounding


def test_compensated_codes_are_learned_on_and_the_original_stays(tiny: Llama) -> None:
    tokens = random_tokens(tiny.config.vocab_size, 8, 24)
    before = {name: linear.weight.clone() for name, linear in tiny.linears(0).items()}
    settings = {"rank": 4, "n_samples": 8, "seq_len": 24, "quantizer.start": "output", "rounding": "compensated"}
    small = {"stages.*.lr_clipping": 1e-3, "stages.*.lr_adapter": 1e-3, "epochs": 4}

    def codes_of(**overrides: object) -> Tensor:
        blocks = MemoryBlocks()
        list(calibrate(tiny, tokens, recipes.get("apiq", bits=2, group_size=16, overrides=overrides), blocks, n_blocks=1))
        return blocks.load(0)["mlp.up_proj"].codes

    compensated = codes_of(**settings, epochs=0)
    nearest = codes_of(**{**settings, "rounding": None}, epochs=0)
    for also in ({}, {"stages.*.lr_weight": 1e-5}):
        learned = codes_of(**settings, **small, **also)
        moved = (learned != compensated).float().mean()
        assert 0 < moved < (learned != nearest).float().mean()
    for name, linear in tiny.linears(0).items():
        assert torch.equal(linear.weight, before[name])


def test_compensated_rounding_needs_text_and_a_uniform_grid() -> None:
    with pytest.raises(ConfigError, match="needs calibration data"):
        recipes.get("rtn", overrides={"rounding": "compensated"})
    with pytest.raises(ConfigError, match="uniform grid"):
        recipes.get("db-llm", overrides={"rounding": "compensated"})


def test_inputs_that_are_not_finite_are_told(tiny: Llama) -> None:
    inputs = capture_block_inputs(tiny, random_tokens(tiny.config.vocab_size, 2, 8))
    inputs.hidden[0, 0, 0] = torch.inf
    with pytest.raises(ModelError, match="What mlp.down_proj receives is not finite"):
        input_moment(tiny.blocks[0], "mlp.down_proj", inputs.hidden, inputs.kwargs)


def test_a_start_from_inputs_needs_text() -> None:
    with pytest.raises(ValidationError, match="needs calibration data"):
        Recipe(name="started", quantizer=LWC(start="output"))


def test_starts_alone_are_a_calibration_and_nothing_at_all_is_not(tiny: Llama) -> None:
    recipe = recipes.get("apiq", bits=2, group_size=16, overrides={"adapter.rank": 4, "epochs": 0, "quantizer.start": "error"})
    blocks = MemoryBlocks()
    list(calibrate(tiny, None, recipe, blocks, n_blocks=1))
    assert blocks.has(0)
    with pytest.raises(ConfigError, match="nothing would be learned"):
        recipes.get("apiq", bits=2, group_size=16, overrides={"epochs": 0})
