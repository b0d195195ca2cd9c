"""A GGUF file of a LLaMA, dequantized once to a folder of float32 safetensors. The dequantized values are kept exactly.

Tensors and config are read with the `gguf` package; the tokenizer by transformers, which reads the same file.
"""

import hashlib
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import save_file
from tokenizers import pre_tokenizers
from transformers import AutoTokenizer, GenerationConfig, LlamaConfig, PreTrainedTokenizerBase

from salq.core.errors import ModelError, ResourceError
from salq.core.files import write_json
from salq.models.folder import ORIGIN_FILE, SINGLE
from salq.models.quiet import quiet

FULL_PRECISION = {"F64", "F32", "F16", "BF16"}
OUTER_NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
BLOCK_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
READ_ERRORS = (
    ValueError, TypeError, IndexError, KeyError, AttributeError, OSError, RuntimeError, ArithmeticError, MemoryError, StrictDataclassError,
)  # fmt: skip
"""What the gguf reader raises on damaged bytes (it has no exception of its own), and what transformers' config does on a shape that cannot be."""


def sha256_of(path: Path) -> str:
    """sha256 of a file's bytes, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def convert(gguf: Path, folder: Path, origin: dict[str, Any]) -> None:
    """Write the LLaMA in `gguf` into `folder`: config, generation config, float32 weights, tokenizer, and `salq.json` with its origin.

    Raises ModelError (damaged, not a plain LLaMA) and ResourceError (not enough memory).
    """
    config, weights, note, pre_tokenizer = read_gguf(gguf)
    tokenizer = _read_tokenizer(gguf, pre_tokenizer)
    save_file(weights, folder / SINGLE, metadata={"format": "pt"})
    (folder / SINGLE).chmod(0o644)  # safetensors makes it private
    config.save_pretrained(folder)
    ids = {name: getattr(config, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    GenerationConfig(**ids).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_json(folder / ORIGIN_FILE, {**origin, "note": note})


def read_gguf(gguf: Path) -> tuple[LlamaConfig, dict[str, torch.Tensor], str, str]:
    """(config, float32 weights by transformers' names, `precision_note`, name of the pre-tokenizer).

    Raises ModelError (damaged, not a plain LLaMA) and ResourceError (not enough memory).
    """
    reader = _open(gguf)
    _check_memory(gguf, reader)
    try:
        config = _read_config(reader)
        return config, _read_weights(reader, config), precision_note(reader), str(_field(reader, "tokenizer.ggml.pre", ""))
    except READ_ERRORS as error:
        raise _damaged(gguf, error) from error


def precision_note(reader: GGUFReader) -> str:
    """How the blocks' matrices are stored, as the `note` of a ModelSource; empty when they are not quantized."""
    elements: Counter[str] = Counter()
    stored: Counter[str] = Counter()
    for tensor in reader.tensors:
        if tensor.name.startswith("blk.") and len(tensor.shape) > 1:
            elements[tensor.tensor_type.name] += int(tensor.n_elements)
            stored[tensor.tensor_type.name] += int(tensor.n_bytes)
    kind = elements.most_common(1)[0][0]
    if kind in FULL_PRECISION:
        return ""
    width = re.search(r"\d+", kind)
    bits = width.group() if width else "few"
    article = "an" if bits == "8" else "a"
    average = 8 * stored.total() / elements.total()
    return f"reconstructed from {article} {bits}-bit file ({kind}, about {average:.2g} bits per weight)"


def _open(gguf: Path) -> GGUFReader:
    """The file's directory, after checking that it is whole and holds a LLaMA that its metadata describes fully."""
    try:
        reader = GGUFReader(gguf)
        architecture, scaling = _field(reader, "general.architecture", ""), _field(reader, "llama.rope.scaling.type", "none")
    except READ_ERRORS as error:
        raise _damaged(gguf, error) from error
    if architecture != "llama":
        raise ModelError(f"{gguf} is not a LLaMA: its architecture is {architecture!r}; salq works on GGUF files whose architecture is 'llama'.")
    names = {tensor.name for tensor in reader.tensors}
    if scaling != "none" or "rope_freqs.weight" in names:
        raise ModelError(f"{gguf} scales its rotary frequencies in a way that a GGUF file does not fully describe; use the model's safetensors.")
    if unknown := sorted(name for name in names if _hf_name(name) is None):
        raise ModelError(f"{gguf} holds {unknown[0]}, which a LLaMA does not have; use a plain LLaMA.")
    return reader


def _read_config(reader: GGUFReader) -> LlamaConfig:
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    width, heads = _field(reader, "llama.embedding_length"), _field(reader, "llama.attention.head_count")
    return LlamaConfig(
        architectures=["LlamaForCausalLM"],
        dtype="float32",
        hidden_size=width,
        intermediate_size=_field(reader, "llama.feed_forward_length"),
        num_hidden_layers=_field(reader, "llama.block_count"),
        num_attention_heads=heads,
        num_key_value_heads=_field(reader, "llama.attention.head_count_kv", heads),
        head_dim=_field(reader, "llama.attention.key_length", width // heads),
        max_position_embeddings=_field(reader, "llama.context_length"),
        vocab_size=int(tensors["token_embd.weight"].shape[-1]),  # GGUF writes shapes innermost first
        rope_parameters={"rope_type": "default", "rope_theta": float(_field(reader, "llama.rope.freq_base", 10000.0))},
        # GGUF keeps the epsilon in float32: 9.999999747378752e-06 stands for the published 1e-05
        rms_norm_eps=float(str(np.float32(_field(reader, "llama.attention.layer_norm_rms_epsilon")))),
        tie_word_embeddings="output.weight" not in tensors,
        attention_bias="blk.0.attn_q.bias" in tensors,
        mlp_bias="blk.0.ffn_up.bias" in tensors,
        bos_token_id=_field(reader, "tokenizer.ggml.bos_token_id", None),
        eos_token_id=_field(reader, "tokenizer.ggml.eos_token_id", None),
        unk_token_id=_field(reader, "tokenizer.ggml.unknown_token_id", None),
        pad_token_id=_field(reader, "tokenizer.ggml.padding_token_id", None),
    )


def _read_weights(reader: GGUFReader, config: LlamaConfig) -> dict[str, torch.Tensor]:
    weights = {}
    for tensor in reader.tensors:
        # a copy, because what is stored in float32 would otherwise be a read-only view of the file
        values = torch.from_numpy(np.array(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32))
        if ".attn_q." in tensor.name:
            values = _restore_rotary_order(values, config.num_attention_heads)
        elif ".attn_k." in tensor.name:
            values = _restore_rotary_order(values, config.num_key_value_heads)
        weights[str(_hf_name(tensor.name))] = values
    return weights


def _restore_rotary_order(values: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of queries and keys from GGUF's interleaved rotary pairs back to halves, as transformers' rotate_half expects them."""
    pairs = values.reshape(heads, values.shape[0] // heads // 2, 2, -1)
    return pairs.swapaxes(1, 2).reshape(values.shape).contiguous()


def _hf_name(name: str) -> str | None:
    """transformers' name of a GGUF tensor, or None when a LLaMA has no such tensor."""
    if match := re.fullmatch(r"blk\.(\d+)\.(\w+)\.(weight|bias)", name):
        block, part, kind = match.groups()
        return f"model.layers.{block}.{BLOCK_NAMES[part]}.{kind}" if part in BLOCK_NAMES else None
    stem = name.removesuffix(".weight")
    return f"{OUTER_NAMES[stem]}.weight" if stem in OUTER_NAMES else None


def _field(reader: GGUFReader, key: str, *default: Any) -> Any:
    """A metadata value; `default` when it is absent, KeyError without one."""
    field = reader.get_field(key)
    if field is not None:
        return field.contents()
    if default:
        return default[0]
    raise KeyError(f"it has no {key}")


def _check_memory(gguf: Path, reader: GGUFReader) -> None:
    needed, free = 4 * sum(int(tensor.n_elements) for tensor in reader.tensors), psutil.virtual_memory().available
    if needed > free:
        raise ResourceError(
            f"Converting {gguf.name} needs {needed / 1e9:.1f} GB of memory and only {free / 1e9:.1f} GB are free; choose a smaller model."
        )


def _read_tokenizer(gguf: Path, pre_tokenizer: str) -> PreTrainedTokenizerBase:
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the tokenizers library raises bare Exception
        raise _damaged(gguf, error) from error
    if pre_tokenizer == "smollm":  # splits numbers into digits first; transformers forgets it when it reads GGUF
        digits = pre_tokenizers.Digits(individual_digits=True)
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    return tokenizer


def _damaged(gguf: Path, error: BaseException) -> ModelError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    return ModelError(f"{gguf} is damaged, cut short, or not a GGUF file ({reason}); fetch it again.")
