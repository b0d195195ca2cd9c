"""The decode engine: the forward pass of a LLaMA for one sequence, original or quantized alike, with little around the matrices.

transformers' forward costs several hundred microseconds of Python per block, more than a small model's weights. Here a block is some fifteen
operations: q, k, v and gate, up as one call where the executor merges them, a static cache (`cache.py`), rotary tables computed once, attention by
torch's scaled_dot_product_attention with grouped heads. On a GPU one step is a CUDA graph (`cuda_graph.py`); on a CPU a packed block can be one
graph of onnxruntime (`onnx_block.py`).
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import rms_norm, scaled_dot_product_attention

from salq.kernels.cache import KeyValueCache
from salq.kernels.groups import shared_group
from salq.models.llama import Llama

STATIC_ROPES = ("default", "linear", "llama3", "yarn")
"""Kinds of rotary embedding whose angles depend on the position alone; others change with the length of the text."""

Linear = Callable[[Tensor], Tensor]


@runtime_checkable
class Decoder(Protocol):
    """Feeds tokens of one sequence to a model and yields the logits after them."""

    reason: str
    """What runs the forward pass, for people."""

    def reset(self) -> None:
        """Forget the sequence."""

    def advance(self, ids: Sequence[int]) -> Float[Tensor, " vocab"]:
        """Append tokens to the sequence; logits after the last one, float32 on the CPU."""


def decoder_for(llama: Llama) -> Decoder:
    """The engine, or transformers' own forward pass for a model that the engine cannot run."""
    why = refusal(llama)
    return DecodeEngine(llama) if why is None else TransformersDecoder(llama, why)


def refusal(llama: Llama) -> str | None:
    """Why the engine cannot run this model; None when it can."""
    kind = (llama.config.rope_parameters or {}).get("rope_type", "default")
    return None if kind in STATIC_ROPES else f"rotary embeddings of kind {kind!r} change with the length of the text"


class TransformersDecoder:
    """transformers' forward pass with its own growing cache."""

    def __init__(self, llama: Llama, why: str) -> None:
        """`why` the engine is not used."""
        self.reason = f"transformers' forward pass ({why})"
        self._llama = llama
        self._cache: Any = None

    def reset(self) -> None:
        """Forget the sequence."""
        self._cache = None

    @torch.no_grad()
    def advance(self, ids: Sequence[int]) -> Float[Tensor, " vocab"]:
        """Append tokens to the sequence; logits after the last one."""
        tokens = torch.tensor([list(ids)], dtype=torch.long, device=self._llama.device)
        output = self._llama.model(input_ids=tokens, past_key_values=self._cache, use_cache=True, logits_to_keep=1)
        self._cache = output.past_key_values
        logits: Tensor = output.logits[0, -1].float().cpu()
        return logits


class DecodeEngine:
    """salq's own forward pass. The model's weights are used where they are; nothing is copied but the cache and the rotary tables."""

    def __init__(self, llama: Llama) -> None:
        """Raises AssertionError for a model that `refusal` names."""
        assert refusal(llama) is None
        inner = llama.model.model
        self.reason = "salq's decode engine"
        self.device, self.dtype = llama.device, llama.dtype
        self.blocks: list[Any] = [getattr(block, "whole", None) or DecodeBlock(block) for block in llama.blocks]
        self.norm, self.head, self.embed = _norm(inner.norm), cast(nn.Module, llama.model.lm_head), inner.embed_tokens
        self._rotary = inner.rotary_emb
        first = self.blocks[0]
        self.cache = KeyValueCache(len(self.blocks), first.kv_heads, first.head_dim, self.device, self.dtype)
        self.cos = self.sin = torch.empty(0)
        self.table = (self.cos, self.sin)
        self.length = 0
        self._graphs: Any = None
        self._others_spin = any(getattr(module, "own_threads", False) for module in [*llama.model.modules(), *self.blocks])

    def reset(self) -> None:
        """Forget the sequence; memory and captured graphs stay."""
        self.length = 0

    @torch.inference_mode()
    def advance(self, ids: Sequence[int]) -> Float[Tensor, " vocab"]:
        """Append tokens to the sequence; logits after the last one."""
        if self.cache.reserve(self.length + len(ids)):
            self._tables()
        if self.device.type == "cuda" and len(ids) == 1:
            logits = self._captured().step(ids[0], self.length)
        elif self._others_spin and len(ids) == 1:
            logits = self._alone(ids[0])
        else:
            logits = self._forward(torch.tensor(list(ids), device=self.device))
        self.length += len(ids)
        return logits[0].float().cpu()

    def _forward(self, ids: Tensor) -> Float[Tensor, "1 vocab"]:
        """Any number of tokens, over exactly the tokens so far."""
        span = Span(self.length, len(ids), self.cos, self.sin, self.table)
        hidden = self.embed(ids)
        for block, stored in zip(self.blocks, self.cache.blocks, strict=True):
            hidden = block(hidden, stored, span)
        return self.logits(hidden[-1:])

    def _alone(self, token: int) -> Float[Tensor, "1 vocab"]:
        """One token with a single thread of torch: its small operations gain nothing from more, and a second pool of threads that wait by
        spinning would take the cores from the executor's.
        """
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return self._forward(torch.tensor([token]))
        finally:
            torch.set_num_threads(threads)

    def logits(self, hidden: Float[Tensor, "1 width"]) -> Float[Tensor, "1 vocab"]:
        """Final norm and head."""
        logits: Tensor = self.head(self.norm(hidden))
        return logits

    def _tables(self) -> None:
        """Cosines and sines of every position of the bucket; the first half of the sines is negative (see `turned`)."""
        positions = torch.arange(self.cache.bucket, device=self.device)[None]
        cos, sin = self._rotary(torch.empty(0, dtype=self.dtype, device=self.device), positions)
        half = sin.shape[-1] // 2
        self.cos, self.sin = cos[0, :, None], torch.cat([-sin[0, :, None, :half], sin[0, :, None, half:]], dim=-1)
        self.table = (cos[0, :, :half].contiguous(), sin[0, :, :half].contiguous())

    def _captured(self) -> Any:
        if self._graphs is None:
            from salq.kernels.cuda_graph import CapturedSteps

            self._graphs = CapturedSteps(self)
        return self._graphs


@runtime_checkable
class Place(Protocol):
    """Where the tokens of a step stand: how they are rotated, stored and seen."""

    cos: Tensor
    sin: Tensor

    def store(self, stored: Tensor, keys: Tensor, values: Tensor) -> None:
        """Put keys and values [tokens, kv heads, width] into the cache [2, kv heads, bucket, width]."""

    def attend(self, queries: Tensor, stored: Tensor) -> Tensor:
        """Attention of queries [tokens, heads, width] over the cache: [tokens, heads * width]."""


class Span:
    """`count` tokens from position `first` on: only what was written is read."""

    def __init__(self, first: int, count: int, cos: Tensor, sin: Tensor, table: tuple[Tensor, Tensor]) -> None:
        """`cos` and `sin` are the tables of the whole bucket, `table` the same without repetition and sign, for blocks that are graphs."""
        self.table = table
        self.first, self.end = first, first + count
        self.cos, self.sin = cos[first : self.end], sin[first : self.end]
        # is_causal would align a continuation with the beginning of the text
        continues = first > 0 and count > 1
        self.mask = torch.ones(count, self.end, dtype=torch.bool, device=cos.device).tril(first) if continues else None

    def store(self, stored: Tensor, keys: Tensor, values: Tensor) -> None:
        """Copy into the cache's own memory."""
        stored[0, :, self.first : self.end] = keys.transpose(0, 1)
        stored[1, :, self.first : self.end] = values.transpose(0, 1)

    def attend(self, queries: Tensor, stored: Tensor) -> Tensor:
        """A single token sees everything: the query heads of one key head stand side by side as if they were tokens."""
        keys, values = stored[:, :, : self.end]
        count, heads, width = queries.shape
        if count == 1:
            seen = scaled_dot_product_attention(queries.view(1, len(keys), -1, width), keys[None], values[None])
            return seen.reshape(1, heads * width)
        seen = scaled_dot_product_attention(
            queries.transpose(0, 1)[None], keys[None], values[None], attn_mask=self.mask, is_causal=self.mask is None, enable_gqa=True
        )
        return seen[0].transpose(0, 1).reshape(count, heads * width)


class Spot:
    """One token at a position that is a tensor, over a whole bucket: every shape is fixed, so that a CUDA graph can be replayed."""

    def __init__(self, position: Tensor, cos: Tensor, sin: Tensor) -> None:
        """`position` int64 [1] on the device."""
        self.position = position
        self.cos, self.sin = cos.index_select(0, position), sin.index_select(0, position)
        self.mask = (torch.arange(len(cos), device=cos.device) <= position)[None]

    def store(self, stored: Tensor, keys: Tensor, values: Tensor) -> None:
        """Copy into the cache's own memory."""
        stored.index_copy_(2, self.position, torch.stack([keys.transpose(0, 1), values.transpose(0, 1)]))

    def attend(self, queries: Tensor, stored: Tensor) -> Tensor:
        """What lies behind the position is masked."""
        keys, values = stored
        seen = scaled_dot_product_attention(queries.view(1, len(keys), -1, queries.shape[-1]), keys[None], values[None], attn_mask=self.mask)
        return seen.reshape(1, -1)


class DecodeBlock:
    """One decoder layer on [tokens, width]."""

    def __init__(self, block: nn.Module) -> None:
        """The block's own modules and weights."""
        attention, mlp = block.get_submodule("self_attn"), block.get_submodule("mlp")
        self.before_attention, self.before_mlp = _norm(block.get_submodule("input_layernorm")), _norm(block.get_submodule("post_attention_layernorm"))
        self.qkv = together([attention.get_submodule(name) for name in ("q_proj", "k_proj", "v_proj")])
        self.gate_up = together([mlp.get_submodule(name) for name in ("gate_proj", "up_proj")])
        self.out, self.down, self.activation = (
            attention.get_submodule("o_proj"),
            mlp.get_submodule("down_proj"),
            mlp.get_submodule("act_fn"),
        )
        self.head_dim = int(cast(int, attention.head_dim))
        self.heads = int(cast(int, attention.get_submodule("q_proj").out_features)) // self.head_dim
        self.kv_heads = int(cast(int, attention.get_submodule("k_proj").out_features)) // self.head_dim

    def __call__(self, hidden: Float[Tensor, "tokens width"], stored: Tensor, place: Place) -> Float[Tensor, "tokens width"]:
        """The block's output; keys and values of these tokens are stored."""
        rows = self.qkv(self.before_attention(hidden)).view(len(hidden), -1, self.head_dim)
        turned = rotated(rows[:, : self.heads + self.kv_heads], place.cos, place.sin)
        place.store(stored, turned[:, self.heads :], rows[:, self.heads + self.kv_heads :])
        hidden = hidden + self.out(place.attend(turned[:, : self.heads], stored))
        gate, up = self.gate_up(self.before_mlp(hidden)).chunk(2, dim=-1)
        return hidden + cast(Tensor, self.down(self.activation(gate) * up))


def rotated(heads: Float[Tensor, "tokens heads width"], cos: Tensor, sin: Tensor) -> Float[Tensor, "tokens heads width"]:
    """Rotary position embedding (arXiv 2104.09864 eq. 34, halves instead of pairs): x * cos + (x2, x1) * (-sin, sin), the sign being in the table."""
    first, second = heads.chunk(2, dim=-1)
    return (heads * cos).addcmul_(torch.cat([second, first], dim=-1), sin)


def together(linears: list[nn.Module]) -> Linear:
    """Linears with the same input as one call that gives their outputs side by side."""
    group = shared_group(linears)
    if group is not None:
        return group.inner
    return lambda x: torch.cat([linear(x) for linear in linears], dim=-1)


def _norm(module: nn.Module) -> Linear:
    """RMSNorm as one operation."""
    weight, epsilon = cast(Tensor, module.weight), float(cast(float, module.variance_epsilon))
    return lambda x: rms_norm(x, weight.shape, weight, epsilon)
