"""A whole quantized block as one onnxruntime graph, for the decode engine on a CPU: one call instead of some twenty small ones.

norm, q/k/v with their adapters, rotary embedding and grouped attention over the engine's cache, output projection, norm, gate/up, SwiGLU, down: the
equations of `engine.DecodeBlock`, the products of `onnx_linear`. Attention is onnxruntime's GroupQueryAttention, which appends the new keys and
values in place. For a small model the calls between the products take longer than the products.
"""

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from salq.core.errors import ConfigError
from salq.kernels import onnx_linear
from salq.kernels.engine import Span
from salq.kernels.groups import GROUPS
from salq.kernels.onnx_graph import CONTRIB, Node, Value, graph_bytes
from salq.models.llama import LINEARS
from salq.quant.frozen import FrozenLinear

HEAD_MULTIPLE = 16
"""Width of heads that GroupQueryAttention wants a multiple of."""

NORMS = ("input_layernorm", "post_attention_layernorm")


def refusal(block: nn.Module, frozen: Mapping[str, FrozenLinear], dtype: torch.dtype) -> str | None:
    """Why this block cannot be one graph; None when it can."""
    if missing := [name for name in LINEARS if name not in frozen]:
        return f"{missing[0]} is not quantized"
    if any(len({frozen[name].spec for name in group}) > 1 for group in GROUPS):
        return "linears with one input have different grids"
    if (head_dim := int(cast(int, block.get_submodule("self_attn").head_dim))) % HEAD_MULTIPLE:
        return f"heads of {head_dim} are not a multiple of {HEAD_MULTIPLE} wide"
    if "silu" not in type(block.get_submodule("mlp.act_fn")).__name__.lower():  # torch's own class, or one of the same name of transformers
        return "its activation is not SiLU"
    reasons = (onnx_linear.refusal(linear, linear.codes.device, dtype) for linear in frozen.values())
    return next((reason for reason in reasons if reason is not None), None)


class InBlock(nn.Module):
    """Stands under a linear's name where the linear is part of its block's graph: it says what it is, and cannot be called."""

    def __init__(self, frozen: FrozenLinear) -> None:
        """Keeps shape and grid only."""
        super().__init__()
        self.spec, self.rank = frozen.spec, frozen.rank
        self.out_features, self.in_features = frozen.codes.shape

    def forward(self, x: Tensor) -> Tensor:
        """Refuse. Raises ConfigError."""
        raise ConfigError("This model runs in salq's decode engine only; load it with salq.load_packed to use it as a transformers model.")


class OnnxBlock:
    """A decoder layer of the engine: hidden states in, hidden states out, keys and values appended to the cache."""

    own_threads = True

    def __init__(self, block: nn.Module, frozen: Mapping[str, FrozenLinear]) -> None:
        """The weights are copied into onnxruntime's own order; nothing of `frozen` is kept. Raises what onnxruntime raises."""
        attention = block.get_submodule("self_attn")
        self.head_dim = int(cast(int, attention.head_dim))
        self.heads, self.kv_heads = (len(frozen[f"self_attn.{name}"].codes) // self.head_dim for name in ("q_proj", "k_proj"))
        self.width = frozen["self_attn.q_proj"].codes.shape[1]
        nodes, constants = _graph(block, frozen, self.heads, self.kv_heads)
        self._session = onnx_linear.session(graph_bytes(nodes, constants, *self._values()), constants)
        self._last, self._total = np.zeros(1, np.int32), np.zeros((), np.int32)
        self._x, self._y = np.zeros((1, 1, self.width), np.float32), np.zeros((1, 1, self.width), np.float32)
        self._bound: Any = None
        self._bound_to = (0, 0, 0)

    def __call__(self, hidden: Float[Tensor, "tokens width"], stored: Tensor, place: Span) -> Float[Tensor, "tokens width"]:
        """The block's output. That of a single token is overwritten by the next call."""
        tokens, end = len(hidden), place.end
        self._last[0] = end - 1
        self._total[()] = end
        if tokens > 1:
            y = np.empty((1, tokens, self.width), np.float32)
            self._session.run_with_iobinding(self._binding(hidden.numpy()[None], y, stored, place))
            return torch.from_numpy(y[0])
        self._x[0] = hidden.numpy()
        memory = (stored.data_ptr(), place.table[0].data_ptr(), stored.shape[2])
        if self._bound_to != memory:
            self._bound, self._bound_to = self._binding(self._x, self._y, stored, place), memory
        self._session._sess.run_with_iobinding(self._bound._iobinding, None)
        return torch.from_numpy(self._y[0])

    def __deepcopy__(self, memo: dict[int, Any]) -> "OnnxBlock":
        """What it holds besides constant weights is set at every call: copies of a model share it."""
        return self

    def trial(self) -> None:
        """One token on an empty cache. Raises what onnxruntime raises, and RuntimeError for a result that is not finite."""
        cos = torch.zeros(HEAD_MULTIPLE, self.head_dim)
        place = Span(0, 1, cos, cos, (cos[:, : self.head_dim // 2].contiguous(),) * 2)
        if not bool(torch.isfinite(self(torch.ones(1, self.width), torch.zeros(2, self.kv_heads, HEAD_MULTIPLE, self.head_dim), place)).all()):
            raise RuntimeError("its first result is not finite")
        self._bound, self._bound_to = None, (0, 0, 0)

    def _binding(self, x: np.ndarray, y: np.ndarray, stored: Tensor, place: Span) -> Any:
        """Names to memory: the cache is read and written where it is."""
        keys, values = (part.numpy()[None] for part in stored)
        cos, sin = (part.numpy() for part in place.table)
        binding = self._session.io_binding()
        for name, array in {"x": x, "keys": keys, "values": values, "last": self._last, "total": self._total, "cos": cos, "sin": sin}.items():
            binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        for name, array in {"y": y, "new_keys": keys, "new_values": values}.items():
            binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        return binding

    def _values(self) -> tuple[list[Value], list[Value]]:
        """Inputs and outputs; `last` is the position of the last token, `total` the tokens so far with the new ones."""
        cache = (1, self.kv_heads, "bucket", self.head_dim)
        table = ("positions", self.head_dim // 2)
        inputs = [Value("x", (1, "tokens", self.width)), Value("keys", cache), Value("values", cache), Value("last", (1,), "int32")]
        inputs += [Value("total", (), "int32"), Value("cos", table), Value("sin", table)]
        outputs = [Value("y", (1, "tokens", self.width)), Value("new_keys", cache), Value("new_values", cache)]
        return inputs, outputs


def _graph(block: nn.Module, frozen: Mapping[str, FrozenLinear], heads: int, kv_heads: int) -> tuple[list[Node], dict[str, np.ndarray]]:
    """Operators and constants of the block."""
    before, after = (block.get_submodule(name) for name in NORMS)
    constants = {name: cast(Tensor, norm.weight).detach().float().numpy() for name, norm in (("norm1", before), ("norm2", after))}
    inner = len(frozen["mlp.gate_proj"].codes)
    constants["halves"] = np.array([inner, inner], np.int64)
    values = (("normed1", "qkv"), ("attended", "projected"), ("normed2", "gate_up"), ("gated", "down"))
    linears: list[list[Node]] = []
    for group, (source, result) in zip(GROUPS, values, strict=True):
        biases = [cast(Tensor | None, block.get_submodule(name).bias) for name in group]
        nodes, own = onnx_linear.linear_nodes(f"{result}.", source, result, [frozen[name] for name in group], biases)
        linears.append(nodes)
        constants |= own
    epsilon1, epsilon2 = ({"epsilon": float(cast(float, norm.variance_epsilon))} for norm in (before, after))
    attention = {"num_heads": heads, "kv_num_heads": kv_heads, "do_rotary": 1, "rotary_interleaved": 0}
    cached = ["qkv", "", "", "keys", "values", "last", "total", "cos", "sin"]
    return [
        Node("SimplifiedLayerNormalization", ["x", "norm1"], ["normed1"], {"axis": -1, **epsilon1}),
        *linears[0],
        Node("GroupQueryAttention", cached, ["attended", "new_keys", "new_values"], attention, CONTRIB),
        *linears[1],
        Node("SkipSimplifiedLayerNormalization", ["x", "projected", "norm2"], ["normed2", "", "", "middle"], epsilon2, CONTRIB),
        *linears[2],
        Node("Split", ["gate_up", "halves"], ["gate", "up"], {"axis": -1}),
        Node("QuickGelu", ["gate"], ["activated"], {"alpha": 1.0}, CONTRIB),  # x * sigmoid(alpha * x): SiLU
        Node("Mul", ["activated", "up"], ["gated"]),
        *linears[3],
        Node("Add", ["middle", "down"], ["y"]),
    ], constants
