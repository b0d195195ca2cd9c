"""Shapes of a LLaMA's matrices from its config alone: for sizes and checks before any weight is read. Imports no torch."""

from collections.abc import Mapping
from typing import Any


def linear_shapes(config: Mapping[str, Any], n_blocks: int | None = None) -> dict[str, tuple[int, int]]:
    """{'block.module_name': (out, in)} of the matrices of the first `n_blocks` blocks (None: all)."""
    width, mlp, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    head_dim = config.get("head_dim") or width // heads
    queries, keys = heads * head_dim, (config.get("num_key_value_heads") or heads) * head_dim
    block = {
        "self_attn.q_proj": (queries, width),
        "self_attn.k_proj": (keys, width),
        "self_attn.v_proj": (keys, width),
        "self_attn.o_proj": (width, queries),
        "mlp.gate_proj": (mlp, width),
        "mlp.up_proj": (mlp, width),
        "mlp.down_proj": (width, mlp),
    }
    count = config["num_hidden_layers"] if n_blocks is None else n_blocks
    return {f"{index}.{name}": shape for index in range(count) for name, shape in block.items()}
