"""The reference executor against float64, and models assembled from it."""

from functools import partial

import pytest
import torch
from torch import nn

from salq.core.errors import ShapeError
from salq.kernels.assemble import fill, quantized_copy, rtn_blocks
from salq.kernels.linear import QuantLinear
from salq.models.llama import Llama, load_model
from salq.quant.frozen import FrozenLinear, rtn
from salq.quant.spec import BITS, QuantSpec
from tests.helpers import assert_close, random_tokens, random_weight


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("shape", [(5, 64), (33, 96), (1, 32)])
def test_against_float64(bits: int, symmetric: bool, shape: tuple[int, int]) -> None:
    frozen = rtn(random_weight(*shape), QuantSpec(bits=bits, group_size=32, symmetric=symmetric))
    adapter = torch.randn(3, shape[1]).half(), torch.randn(shape[0], 3).half()
    adapted = FrozenLinear(frozen.spec, frozen.codes, frozen.scale, frozen.zero_point, *adapter, 0.5)
    x, bias = torch.randn(2, 7, shape[1]), torch.randn(shape[0])
    weight = (frozen.codes.double() - frozen.zero_point.double().repeat_interleave(32, 1)) * frozen.scale.double().repeat_interleave(32, 1)
    assert adapted.lora_A is not None
    assert adapted.lora_B is not None
    want = x.double() @ weight.T + 0.5 * (x.double() @ adapted.lora_A.double().T) @ adapted.lora_B.double().T + bias.double()
    assert_close("QuantLinear", QuantLinear(adapted, bias)(x), want, rtol=1e-4, atol=1e-4)


def test_rows_are_dequantized_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    linear = QuantLinear(rtn(random_weight(50, 64), QuantSpec(bits=3, group_size=32)))
    x = torch.randn(2, 64)
    whole = linear(x)
    monkeypatch.setattr("salq.kernels.linear.CHUNK_WEIGHTS", 64 * 7)
    assert_close("chunked", linear(x), whole, rtol=1e-5, atol=1e-6)


def test_eight_bits_hardly_change_the_model(tiny: Llama) -> None:
    quantized = quantized_copy(tiny, rtn_blocks(tiny, QuantSpec(bits=8, group_size=32)))
    tokens = random_tokens(tiny.config.vocab_size)
    want, got = tiny.model(tokens).logits, quantized.model(tokens).logits
    assert float((got - want).norm() / want.norm()) < 0.05
    assert sum(isinstance(module, QuantLinear) for module in quantized.model.modules()) == 7 * tiny.n_blocks
    assert not any(isinstance(module, QuantLinear) for module in tiny.model.modules())


def test_embeddings_and_norms_are_shared_not_copied(tiny: Llama) -> None:
    quantized = quantized_copy(tiny, rtn_blocks(tiny, QuantSpec(bits=4, group_size=32)))
    assert quantized.model.model.embed_tokens.weight.data_ptr() == tiny.model.model.embed_tokens.weight.data_ptr()


def test_in_place_gives_the_same_model_without_the_original_weights(tiny: Llama, tiny_folder: object) -> None:
    frozen = rtn_blocks(tiny, QuantSpec(bits=4, group_size=32))
    want = quantized_copy(tiny, frozen)
    got = fill(load_model(str(tiny_folder), device="cpu"), {index: partial(dict, block) for index, block in frozen.items()}, "reference")
    tokens = random_tokens(tiny.config.vocab_size)
    assert torch.equal(got.model(tokens).logits, want.model(tokens).logits)
    assert not any(isinstance(module, nn.Linear) for block in got.blocks for module in block.modules())


def test_a_group_size_that_does_not_fit_is_refused(tiny: Llama) -> None:
    with pytest.raises(ShapeError, match="0.self_attn.q_proj"):
        rtn_blocks(tiny, QuantSpec(bits=4, group_size=100))
