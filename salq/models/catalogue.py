"""The models that salq knows by a short name: where they live, how large they are, under which licence. Imports no torch.

Configs are the published `config.json` values (LlamaConfig keywords), so that sizes, memory and tiny test models follow from
them without a download. Any other hub id or local folder whose `model_type` is `llama` works too (`source.resolve`).
"""

from dataclasses import dataclass
from typing import Any

from salq.core.errors import UnknownNameError

Config = dict[str, Any]


@dataclass(frozen=True)
class CatalogueEntry:
    """One known model. `config` holds LlamaConfig keywords, `parameters` the published count (tied matrices counted once)."""

    key: str
    title: str
    hub_id: str
    parameters: int
    licence: str
    gated: bool
    chat: bool
    config: Config

    def memory_gb(self, bytes_per_weight: float = 4) -> float:
        """Memory of the weights alone, in GB: 4 bytes per weight on a CPU (float32), 2 on a GPU (bfloat16)."""
        return self.parameters * bytes_per_weight / 1e9


def _config(width: int, mlp: int, blocks: int, heads: tuple[int, int], *, vocab: int, rope: Config, context: int, tied: bool) -> Config:
    return {
        "hidden_size": width,
        "intermediate_size": mlp,
        "num_hidden_layers": blocks,
        "num_attention_heads": heads[0],
        "num_key_value_heads": heads[1],
        "vocab_size": vocab,
        "rope_parameters": rope,
        "max_position_embeddings": context,
        "tie_word_embeddings": tied,
        "rms_norm_eps": 1e-5,
    }


def _plain_rope(theta: float) -> Config:
    return {"rope_type": "default", "rope_theta": theta}


def _llama3_rope(factor: float) -> Config:
    return {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }


_SMOL: Config = {"vocab": 49152, "context": 8192, "tied": True}
_LLAMA_2: Config = {"vocab": 32000, "rope": _plain_rope(10000.0), "context": 4096, "tied": False}
_LLAMA_3: Config = {"vocab": 128256, "context": 131072}
_LICENCE_2 = "Llama 2 Community License"
_LICENCE_31 = "Llama 3.1 Community License"
_LICENCE_32 = "Llama 3.2 Community License"

_ENTRIES = (
    CatalogueEntry(
        "smollm2-135m", "SmolLM2 135M Instruct", "HuggingFaceTB/SmolLM2-135M-Instruct", 134_515_008, "Apache-2.0", gated=False, chat=True,
        config=_config(576, 1536, 30, (9, 3), rope=_plain_rope(100000.0), **_SMOL),
    ),
    CatalogueEntry(
        "smollm2-360m", "SmolLM2 360M Instruct", "HuggingFaceTB/SmolLM2-360M-Instruct", 361_821_120, "Apache-2.0", gated=False, chat=True,
        config=_config(960, 2560, 32, (15, 5), rope=_plain_rope(100000.0), **_SMOL),
    ),
    CatalogueEntry(
        "smollm2-1.7b", "SmolLM2 1.7B Instruct", "HuggingFaceTB/SmolLM2-1.7B-Instruct", 1_711_376_384, "Apache-2.0", gated=False, chat=True,
        config=_config(2048, 8192, 24, (32, 32), rope=_plain_rope(130000.0), **_SMOL),
    ),
    CatalogueEntry(
        "tinyllama-1.1b", "TinyLlama 1.1B Chat", "TinyLlama/TinyLlama-1.1B-Chat-v1.0", 1_100_048_384, "Apache-2.0", gated=False, chat=True,
        config=_config(2048, 5632, 22, (32, 4), vocab=32000, rope=_plain_rope(10000.0), context=2048, tied=False),
    ),
    CatalogueEntry(
        "llama-3.2-1b", "Llama 3.2 1B", "meta-llama/Llama-3.2-1B", 1_235_814_400, _LICENCE_32, gated=True, chat=False,
        config=_config(2048, 8192, 16, (32, 8), rope=_llama3_rope(32.0), tied=True, **_LLAMA_3),
    ),
    CatalogueEntry(
        "llama-3.2-3b", "Llama 3.2 3B", "meta-llama/Llama-3.2-3B", 3_212_749_824, _LICENCE_32, gated=True, chat=False,
        config=_config(3072, 8192, 28, (24, 8), rope=_llama3_rope(32.0), tied=True, **_LLAMA_3),
    ),
    CatalogueEntry(
        "llama-2-7b", "Llama 2 7B", "meta-llama/Llama-2-7b-hf", 6_738_415_616, _LICENCE_2, gated=True, chat=False,
        config=_config(4096, 11008, 32, (32, 32), **_LLAMA_2),
    ),
    CatalogueEntry(
        "llama-2-13b", "Llama 2 13B", "meta-llama/Llama-2-13b-hf", 13_015_864_320, _LICENCE_2, gated=True, chat=False,
        config=_config(5120, 13824, 40, (40, 40), **_LLAMA_2),
    ),
    CatalogueEntry(
        "llama-3.1-8b", "Llama 3.1 8B", "meta-llama/Llama-3.1-8B", 8_030_261_248, _LICENCE_31, gated=True, chat=False,
        config=_config(4096, 14336, 32, (32, 8), rope=_llama3_rope(8.0), tied=False, **_LLAMA_3),
    ),
)  # fmt: skip

CATALOGUE: dict[str, CatalogueEntry] = {entry.key: entry for entry in _ENTRIES}

DEFAULT_MODEL = "smollm2-135m"


def entry_of(key: str) -> CatalogueEntry:
    """The catalogue entry of that key. Raises UnknownNameError, listing the keys that exist."""
    if key not in CATALOGUE:
        raise UnknownNameError.of("Model", key, list(CATALOGUE))
    return CATALOGUE[key]


def parameters_of(config: Config) -> int:
    """Number of weights of a LLaMA with this config: embeddings, head unless tied, norms, linears, biases."""
    width, mlp, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads") or heads
    head_dim = config.get("head_dim") or width // heads
    queries, keys = heads * head_dim, kv_heads * head_dim
    attention = 2 * width * queries + 2 * width * keys
    if config.get("attention_bias", False):
        attention += queries + 2 * keys + width
    feed_forward = 3 * width * mlp
    if config.get("mlp_bias", False):
        feed_forward += 2 * mlp + width
    norms = 2 * width
    embeddings = config["vocab_size"] * width * (1 if config.get("tie_word_embeddings", False) else 2)
    return embeddings + config["num_hidden_layers"] * (attention + feed_forward + norms) + width
