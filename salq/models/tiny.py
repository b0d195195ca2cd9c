"""Tiny random LLaMAs that keep every structural trait of a real config: for tests, lessons and the browser tests.

Kept: head grouping, tied or untied embeddings, rope kind and scaling, biases, norm epsilon, context length. Shrunk: widths, blocks,
vocabulary (bytes plus four special tokens). Nothing is downloaded.
"""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from salq.models.catalogue import entry_of

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
VOCAB = 256 + len(SPECIAL_TOKENS)


def tiny_config(config: dict[str, Any] | LlamaConfig, *, n_blocks: int = 2) -> LlamaConfig:
    """`config` with widths near 128 (multiples of 64, so that group sizes 32 and 64 fit every matrix) and `n_blocks` blocks."""
    full = config if isinstance(config, LlamaConfig) else LlamaConfig(**config)
    ratio = full.num_attention_heads // full.num_key_value_heads
    kv_heads = 4 if ratio == 1 else 2
    heads = kv_heads * ratio
    width = next(width for width in (128, 192, 64 * heads) if width % heads == 0)
    # heads whose widths do not add up to the model's stay so
    head_dim = width // heads * (1 if full.head_dim * full.num_attention_heads == full.hidden_size else 2)
    values = full.to_dict() | {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": n_blocks,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "vocab_size": VOCAB,
        "bos_token_id": VOCAB - 4,
        "eos_token_id": VOCAB - 2,
        "pad_token_id": None,
    }
    return LlamaConfig(**values)


def tiny_llama(config: dict[str, Any] | LlamaConfig, *, seed: int = 0, n_blocks: int = 2) -> LlamaForCausalLM:
    """A random float32 model of `tiny_config(config)`, in eval mode without gradients; the same seed gives the same weights.

    Weights have uneven input columns, as real ones do, so that quantization, clipping and saliency have something to find;
    logits have a standard deviation near 1, so that the model's predictions are far from uniform.
    """
    model = LlamaForCausalLM(tiny_config(config, n_blocks=n_blocks)).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        parameter.copy_(_random_values(name, parameter.shape, generator))
    return model


def byte_tokenizer(*, chat: bool = True) -> PreTrainedTokenizerFast:
    """One token per UTF-8 byte, four special tokens, and (with `chat`) a ChatML template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={character: index for index, character in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    end_of_text, _, end_of_turn, pad = SPECIAL_TOKENS
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=end_of_text, eos_token=end_of_turn, pad_token=pad)
    wrapped.chat_template = CHAT_TEMPLATE if chat else None
    return wrapped


def save_tiny(folder: Path, entry_key: str = "smollm2-135m", *, seed: int = 0, n_blocks: int = 2) -> Path:
    """Write a loadable folder (config, float32 safetensors, tokenizer) shaped like that catalogue entry; returns the folder.

    Raises UnknownNameError for a key that the catalogue does not have.
    """
    entry = entry_of(entry_key)
    tiny_llama(entry.config, seed=seed, n_blocks=n_blocks).save_pretrained(folder)
    byte_tokenizer(chat=entry.chat).save_pretrained(folder)
    return folder


def _random_values(name: str, shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    values = torch.randn(shape, generator=generator)
    if "norm" in name:
        return 1 + 0.1 * values
    if name.endswith("bias"):
        return 0.1 * values
    if "embed_tokens" in name or "lm_head" in name:
        return values * shape[-1] ** -0.5
    columns = torch.exp(0.4 * torch.randn(shape[-1], generator=generator))
    return values * shape[-1] ** -0.5 * columns
