"""GGUF files, written here from tiny models: what is dequantized, renamed and reordered is the same model again."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import dequantize, quantize
from torch import Tensor

from salq.core.errors import ModelError
from salq.models.catalogue import CATALOGUE
from salq.models.gguf import BLOCK_NAMES, sha256_of
from salq.models.llama import load_model
from salq.models.source import resolve
from salq.models.tiny import byte_tokenizer, tiny_llama
from tests.helpers import assert_close, random_tokens

Q4_1, F32, Q8_0 = GGMLQuantizationType.Q4_1, GGMLQuantizationType.F32, GGMLQuantizationType.Q8_0
UNTIED = CATALOGUE["tinyllama-1.1b"].config


def interleaved(values: Tensor, heads: int) -> Tensor:
    """Rows of queries or keys in GGUF's order: the two halves of a head's rotary pairs take turns."""
    return values.reshape(heads, 2, values.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(values.shape)


def gguf_tensors(model: Any) -> dict[str, Tensor]:
    config, weights = model.config, {}
    for name, value in model.named_parameters():
        stem, kind = name.rsplit(".", 1)
        if stem.startswith("model.layers."):
            _, _, block, part = stem.split(".", 3)
            short = next(key for key, long in BLOCK_NAMES.items() if long == part)
            heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(short)
            weights[f"blk.{block}.{short}.{kind}"] = interleaved(value, heads) if heads else value
        else:
            weights[{"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}[stem] + ".weight"] = value
    return weights


def write_gguf(path: Path, model: Any, kind: GGMLQuantizationType = Q4_1, architecture: str = "llama", **extra: Any) -> Path:
    writer, config = GGUFWriter(path, architecture), model.config
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    tokenizer = byte_tokenizer()
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    # one merge, because a GGUF array cannot be empty; no text here contains it
    writer.add_token_list([*sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__), "zq"])
    writer.add_token_types([1] * 256 + [3] * 4 + [1])
    writer.add_token_merges(["z q"])
    writer.add_bos_token_id(config.bos_token_id)
    writer.add_eos_token_id(config.eos_token_id)
    for key, value in extra.items():
        writer.add_string(key.replace("__", "."), value)
    for name, value in gguf_tensors(model).items():
        stored = kind if value.dim() == 2 else F32
        writer.add_tensor(name, quantize(value.numpy(), stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_the_conversion_is_the_dequantized_model(tmp_path: Path) -> None:
    original = tiny_llama(CATALOGUE["smollm2-135m"].config)
    model = load_model(str(write_gguf(tmp_path / "tiny.gguf", original)), device="cpu")
    for name, value in original.named_parameters():
        want = torch.from_numpy(dequantize(quantize(value.numpy(), Q4_1), Q4_1)) if value.dim() == 2 else value
        assert_close(name, model.model.get_parameter(name), want, rtol=0, atol=0)
    assert model.config.rope_parameters == original.config.rope_parameters
    assert model.config.rms_norm_eps == 1e-5
    assert (model.config.tie_word_embeddings, model.config.max_position_embeddings) == (True, 8192)
    assert model.source.note == "reconstructed from a 4-bit file (Q4_1, about 5 bits per weight)"
    assert model.reference_label == "reference reconstructed from a 4-bit file"


def test_a_float32_file_gives_the_same_logits(tmp_path: Path) -> None:
    original = tiny_llama(UNTIED | {"attention_bias": True, "mlp_bias": True})
    model = load_model(str(write_gguf(tmp_path / "tiny.gguf", original, F32)), device="cpu")
    assert (model.source.note, model.reference_label) == ("", "full precision")
    assert not model.config.tie_word_embeddings
    tokens = random_tokens(200)
    assert_close("logits", model.model(tokens).logits, original(tokens).logits, rtol=1e-5, atol=1e-5)


def test_tokens_survive_and_numbers_split_into_digits(tmp_path: Path) -> None:
    tokenizer = load_model(str(write_gguf(tmp_path / "tiny.gguf", tiny_llama(UNTIED), Q8_0)), device="cpu").tokenizer
    text = "In  1999, naïve\n"
    assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert "Digits" in str(tokenizer.backend_tokenizer.pre_tokenizer)


def test_a_file_is_converted_once_wherever_it_lies(tmp_path: Path, salq_home: Path) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", tiny_llama(UNTIED), Q8_0)
    first = resolve(str(path))
    assert load_model(str(path), device="cpu").reference_label == "reference reconstructed from an 8-bit file"
    assert first.note == "reconstructed from an 8-bit file (Q8_0, about 8.5 bits per weight)"
    assert first.folder == salq_home / "models" / f"gguf-{sha256_of(path)[:16]}"
    again = resolve(str(path.rename(tmp_path / "renamed.gguf")))
    assert (again.folder, again.fingerprint) == (first.folder, first.fingerprint)


@pytest.mark.parametrize("share", [0.0, 0.00001, 0.01, 0.5, 0.999])
def test_a_cut_file_is_one_sentence_and_leaves_nothing(tmp_path: Path, salq_home: Path, share: float) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", tiny_llama(UNTIED))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ModelError, match="is damaged, cut short, or not a GGUF file"):
        resolve(str(path))
    assert not [folder for folder in (salq_home / "models").iterdir() if folder.is_dir()]


@pytest.mark.parametrize("seed", range(5))
def test_random_damage_never_escapes_as_a_traceback(tmp_path: Path, seed: int) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", tiny_llama(UNTIED))
    content = bytearray(path.read_bytes())
    places = np.random.default_rng(seed).integers(0, 6000, size=40)
    for place in places.tolist():
        content[place] ^= 0x5A
    path.write_bytes(content)
    with pytest.raises(ModelError):
        resolve(str(path))


def test_what_is_not_a_plain_llama_is_named(tmp_path: Path) -> None:
    model = tiny_llama(UNTIED)
    with pytest.raises(ModelError, match="its architecture is 'gemma'"):
        resolve(str(write_gguf(tmp_path / "a.gguf", model, architecture="gemma")))
    with pytest.raises(ModelError, match="scales its rotary frequencies"):
        resolve(str(write_gguf(tmp_path / "b.gguf", model, llama__rope__scaling__type="linear")))
    with pytest.raises(ModelError, match="is not a folder"):
        resolve(str(tmp_path / "missing.gguf"))


def test_a_missing_matrix_is_not_made_up(tmp_path: Path) -> None:
    model = tiny_llama(UNTIED)
    del model.model.layers[1].mlp.up_proj.weight
    with pytest.raises(ModelError, match=r"lacks 1 weights \(first: model\.layers\.1\.mlp\.up_proj\.weight\)"):
        load_model(str(write_gguf(tmp_path / "tiny.gguf", model)), device="cpu")
