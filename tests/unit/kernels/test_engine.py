"""The decode engine gives transformers' logits, for every shape of LLaMA, original and packed, in any portions of the text."""

import dataclasses
from pathlib import Path

import pytest
import torch

from salq.core.errors import ConfigError
from salq.kernels import onnx_linear
from salq.kernels.assemble import decodable_copy, execution, quantized_copy, round_head, rtn_blocks
from salq.kernels.cache import FIRST_BUCKET, KeyValueCache, bucket_of
from salq.kernels.engine import DecodeEngine, Span, Spot, TransformersDecoder, decoder_for, refusal
from salq.kernels.measure import with_random_adapter
from salq.models.llama import Llama
from salq.models.tiny import byte_tokenizer, tiny_llama
from salq.quant.spec import QuantSpec
from tests.helpers import assert_close, random_tokens


def portions(llama: Llama, ids: list[int], sizes: list[int]) -> torch.Tensor:
    """Logits after every portion of the text."""
    decoder, rows = decoder_for(llama), []
    assert isinstance(decoder, DecodeEngine)
    start = 0
    for size in sizes:
        rows.append(decoder.advance(ids[start : start + size]))
        start += size
    return torch.stack(rows)


@torch.no_grad()
def transformers_logits(llama: Llama, ids: list[int], sizes: list[int]) -> torch.Tensor:
    ends = torch.tensor(sizes).cumsum(0) - 1
    return llama.model(torch.tensor([ids])).logits[0, ends]


def test_portions_of_a_text_and_a_second_bucket(tiny: Llama) -> None:
    sizes = [5, 1, 1, 30, FIRST_BUCKET - 40, 1, 1, 1, 20, 1]  # single tokens, continuations, and the step into the next bucket
    ids = random_tokens(tiny.config.vocab_size, 1, sum(sizes))[0].tolist()
    assert_close("logits", portions(tiny, ids, sizes), transformers_logits(tiny, ids, sizes), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("executor", ["reference", "onnxruntime", "torch-int4"])
def test_packed_models_decode_as_their_modules_do(tiny: Llama, executor: str) -> None:
    packed = quantized_copy(tiny, rtn_blocks(tiny, QuantSpec(bits=4, group_size=64)), executor)
    sizes = [7, 1, 1, 1]
    ids = random_tokens(tiny.config.vocab_size, 1, sum(sizes))[0].tolist()
    got, want = portions(packed, ids, sizes), transformers_logits(packed, ids, sizes)
    # the same codes; activations are rounded block by block, so a sum in another order may round one of them differently
    assert_close(executor, got, want, rtol=1e-4, atol=1e-4 if executor == "reference" else 0.05)


def test_a_block_as_one_graph(tiny: Llama, monkeypatch: pytest.MonkeyPatch) -> None:
    """With float32 activations in onnxruntime the logits are the reference's, in any portions, across a bucket, with adapters."""
    monkeypatch.setattr(onnx_linear, "INT8_ACTIVATIONS", 1)
    plain = rtn_blocks(tiny, QuantSpec(bits=3, group_size=64))
    frozen = {index: {name: with_random_adapter(one, 4) for name, one in block.items()} for index, block in plain.items()}
    whole = decodable_copy(tiny, {1: frozen[1]})
    assert "each block as one graph" in execution(whole)
    sizes = [5, 1, 1, 30, FIRST_BUCKET - 40, 1, 1, 1, 20, 1]
    ids = random_tokens(tiny.config.vocab_size, 1, sum(sizes))[0].tolist()
    want = transformers_logits(quantized_copy(tiny, {1: frozen[1]}), ids, sizes)
    assert_close("logits", portions(whole, ids, sizes), want, rtol=1e-4, atol=2e-4)
    with pytest.raises(ConfigError, match="decode engine only"):
        whole.model(torch.tensor([ids]))
    rounded = round_head(whole)
    assert float((portions(rounded, ids, sizes) - want).norm() / want.norm()) < 0.02
    assert execution(rounded).endswith("the head in 8 bits")


def test_a_block_that_cannot_be_one_graph_runs_matrix_by_matrix(tiny: Llama) -> None:
    frozen = rtn_blocks(tiny, QuantSpec(bits=4, group_size=64))
    del frozen[0]["mlp.up_proj"]
    said = execution(decodable_copy(tiny, frozen))
    assert "matrix by matrix (mlp.up_proj is not quantized)" in said
    assert "1 of 14 matrices: torch float32" in said
    assert "graph" not in execution(decodable_copy(tiny, frozen, "reference"))


def test_one_token_at_a_position_that_is_a_tensor(tiny: Llama) -> None:
    """What a CUDA graph captures: the same logits over the whole masked bucket."""
    ids = random_tokens(tiny.config.vocab_size, 1, 9)[0].tolist()
    engine = DecodeEngine(tiny)
    engine.advance(ids[:-1])
    want = engine.advance(ids[-1:])
    with torch.inference_mode():
        spot = Spot(torch.tensor([len(ids) - 1]), engine.cos, engine.sin)
        hidden = engine.embed(torch.tensor(ids[-1:]))
        for block, stored in zip(engine.blocks, engine.cache.blocks, strict=True):
            hidden = block(hidden, stored, spot)
        assert_close("logits", engine.logits(hidden)[0], want, rtol=1e-4, atol=1e-4)


def test_reset_forgets_and_repeats(tiny: Llama) -> None:
    engine = DecodeEngine(tiny)
    first = engine.advance([1, 2, 3])
    engine.advance([4])
    engine.reset()
    assert torch.equal(engine.advance([1, 2, 3]), first)


def test_buckets_grow_and_keep() -> None:
    assert [bucket_of(tokens) for tokens in (1, 256, 257, 1000)] == [256, 256, 512, 1024]
    cache = KeyValueCache(1, 2, 4, torch.device("cpu"), torch.float32)
    assert cache.reserve(10)
    cache.blocks[0][:, :, :10] = 7.0
    assert not cache.reserve(256)
    assert cache.reserve(257)
    assert cache.blocks[0].shape == (2, 2, 512, 4)
    assert bool((cache.blocks[0][:, :, :10] == 7).all())
    assert bool((cache.blocks[0][:, :, 10:] == 0).all())


def test_a_rope_that_changes_with_length_is_left_to_transformers(tmp_path: Path) -> None:
    config = {"hidden_size": 128, "num_attention_heads": 4, "num_key_value_heads": 4, "intermediate_size": 256, "max_position_embeddings": 64}
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    model = tiny_llama(config | {"rope_parameters": rope})
    llama = Llama("dynamic", None, model, byte_tokenizer())  # type: ignore[arg-type]
    assert "'dynamic'" in str(refusal(llama))
    decoder = decoder_for(llama)
    assert isinstance(decoder, TransformersDecoder)
    assert "change with the length" in decoder.reason
    ids = [3, 4, 5, 6]
    decoder.advance(ids[:2])
    assert_close("logits", decoder.advance(ids[2:]), transformers_logits(llama, ids, [4])[0], rtol=1e-4, atol=1e-4)
    static = dataclasses.replace(llama, model=tiny_llama(config))
    assert refusal(static) is None


def test_a_continuation_sees_what_is_before_it() -> None:
    cos = torch.zeros(8, 1, 4)
    assert Span(0, 3, cos, cos, (cos, cos)).mask is None
    assert Span(2, 1, cos, cos, (cos, cos)).mask is None
    mask = Span(2, 2, cos, cos, (cos, cos)).mask
    assert mask is not None
    assert mask.tolist() == [[True, True, True, False], [True, True, True, True]]
