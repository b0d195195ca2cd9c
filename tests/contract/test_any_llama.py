"""Any LLaMA: every catalogue entry's own structure (and biases, untied, odd heads), tiny, through load, capture and block by block."""

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig

from salq.kernels import onnx_linear
from salq.kernels.assemble import decodable_copy, quantized_copy, rtn_blocks
from salq.kernels.engine import DecodeEngine
from salq.models.capture import capture_block_inputs, run_block
from salq.models.catalogue import CATALOGUE, parameters_of
from salq.models.llama import LINEARS, Llama, load_model, read_config, read_weight
from salq.models.tiny import byte_tokenizer, save_tiny, tiny_llama
from salq.quant.spec import QuantSpec
from tests.helpers import assert_close, random_tokens

BASE = CATALOGUE["llama-3.2-1b"].config
VARIANTS = {
    "attention-bias": BASE | {"attention_bias": True},
    "mlp-bias": BASE | {"mlp_bias": True, "tie_word_embeddings": False},
    "all-biases-untied": CATALOGUE["smollm2-135m"].config | {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": False},
    "one-kv-head": CATALOGUE["llama-2-7b"].config | {"num_key_value_heads": 1, "num_attention_heads": 4, "hidden_size": 256},
    "wide-heads": CATALOGUE["llama-3.2-1b"].config | {"head_dim": 128},
    "linear-rope": CATALOGUE["llama-2-7b"].config | {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}},
}


@pytest.fixture(params=[*CATALOGUE, *VARIANTS])
def any_llama(request: pytest.FixtureRequest, tmp_path: Path) -> Llama:
    """A loaded tiny model with the traits of one catalogue entry or variant."""
    folder = tmp_path / request.param
    if request.param in CATALOGUE:
        save_tiny(folder, request.param)
    else:
        tiny_llama(VARIANTS[request.param]).save_pretrained(folder)
        byte_tokenizer().save_pretrained(folder)
    return load_model(str(folder), device="cpu")


def test_blocks_one_by_one_reproduce_the_full_forward(any_llama: Llama) -> None:
    tokens = random_tokens(any_llama.config.vocab_size, n_samples=3, seq_len=17)
    with torch.no_grad():
        inputs = capture_block_inputs(any_llama, tokens, batch_size=2)
        hidden = inputs.hidden
        for block in any_llama.blocks:
            hidden = run_block(block, hidden, inputs.kwargs)
        got = any_llama.model.lm_head(any_llama.model.model.norm(hidden))
        want = any_llama.model(tokens, use_cache=False).logits
    # same operations in the same order, so only the batch size of the matmuls may differ
    assert_close("logits", got, want, rtol=1e-4, atol=1e-4)


def test_structure_survives_the_shrinking(any_llama: Llama) -> None:
    key = any_llama.source.folder.name
    full = LlamaConfig(**(CATALOGUE[key].config if key in CATALOGUE else VARIANTS[key]))
    tiny = any_llama.config
    for trait in ("tie_word_embeddings", "attention_bias", "mlp_bias", "rms_norm_eps", "max_position_embeddings", "rope_parameters"):
        assert getattr(tiny, trait) == getattr(full, trait), trait
    assert tiny.num_attention_heads // tiny.num_key_value_heads == full.num_attention_heads // full.num_key_value_heads
    assert any_llama.is_chat == (CATALOGUE[key].chat if key in CATALOGUE else True)


def test_every_linear_is_found_and_read_alone(any_llama: Llama) -> None:
    assert any_llama.parameters == sum(parameter.numel() for parameter in any_llama.model.parameters())
    assert parameters_of(read_config(any_llama.source).to_dict()) == any_llama.parameters
    for index in range(any_llama.n_blocks):
        linears = any_llama.linears(index)
        assert tuple(linears) == LINEARS
        for name, linear in linears.items():
            assert_close(name, read_weight(any_llama.source, index, name), linear.weight, rtol=0, atol=0)


def test_the_decode_engine_gives_the_same_logits(any_llama: Llama) -> None:
    ids = random_tokens(any_llama.config.vocab_size, n_samples=1, seq_len=20)[0].tolist()
    engine = DecodeEngine(any_llama)
    got = [engine.advance(ids[:12]), *(engine.advance([token]) for token in ids[12:])]
    with torch.no_grad():
        want = any_llama.model(torch.tensor([ids])).logits[0, 11:]
    assert_close("logits", torch.stack(got), want, rtol=1e-4, atol=1e-4)


def test_packed_blocks_decode_as_the_reference_does(any_llama: Llama, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole blocks as graphs where heads allow it, with float32 activations, so that only the arithmetic can differ."""
    monkeypatch.setattr(onnx_linear, "INT8_ACTIVATIONS", 1)
    frozen = rtn_blocks(any_llama, QuantSpec(bits=4, group_size=32))
    engine = DecodeEngine(decodable_copy(any_llama, frozen))
    ids = random_tokens(any_llama.config.vocab_size, n_samples=1, seq_len=16)[0].tolist()
    got = [engine.advance(ids[:9]), *(engine.advance([token]) for token in ids[9:14]), engine.advance(ids[14:])]
    with torch.no_grad():
        want = quantized_copy(any_llama, frozen).model(torch.tensor([ids])).logits[0, [8, 9, 10, 11, 12, 13, 15]]
    assert_close("logits", torch.stack(got), want, rtol=1e-4, atol=2e-4)
