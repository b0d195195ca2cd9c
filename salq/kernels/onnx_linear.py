"""The CPU executor: quantized linears through onnxruntime's MatMulNBits, adapters in the same graph.

Codes of 2, 4 and 8 bits run as they are stored, 3-bit codes in 4 bits (the same levels, so nothing is lost). Activations are rounded to 8 bits
per block of inputs (accuracy_level 4), which is where the speed comes from; weights, scales and zero points are exact. Cost of that on the default
model, rounded to nearest at w4g64, bundled text, 8 windows of 512 tokens: perplexity 49.37 to 49.52, KL from the original 0.284 to 0.288 nats/token.
"""

import dataclasses
import importlib.metadata
import importlib.util
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from salq.kernels.onnx_graph import CONTRIB, Node, Value, graph_bytes
from salq.packing.planes import pack
from salq.quant.frozen import FrozenLinear
from salq.quant.spec import QuantSpec

BLOCKS = (256, 128, 64, 32, 16)
"""Inputs per scale that MatMulNBits knows."""

NATIVE_2_BITS = (1, 31)
"""First release whose 2-bit kernel is fast on x86 (microsoft/onnxruntime, pull request 29619); before it, 2-bit codes run in 4 bits."""

INT8_ACTIVATIONS = 4
"""MatMulNBits' accuracy_level for 8-bit activations."""


def refusal(frozen: FrozenLinear, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why this executor cannot run `frozen`; None when it can."""
    if device.type != "cpu":
        return f"it works on the CPU, and the model is on {device}"
    if dtype != torch.float32:
        return f"it takes float32 activations, and the model computes in {str(dtype).removeprefix('torch.')}"
    if importlib.util.find_spec("onnxruntime") is None:
        return "it is not installed (`pip install onnxruntime`)"
    if input_block(frozen) is None:
        return f"group size {frozen.codes.shape[1] // frozen.scale.shape[1]} is not a multiple of 16"
    return None


def describe(spec: QuantSpec) -> str:
    """What runs, in words."""
    width = native_bits(spec.bits)
    widened = "" if width == spec.bits else f" held in {width}"
    return f"onnxruntime MatMulNBits: {spec.bits}-bit codes{widened} on the CPU, activations in 8 bits"


def native_bits(bits: int) -> int:
    """Width in which codes of `bits` run: the next one that has a fast kernel."""
    if bits == 3 or (bits == 2 and _version() < NATIVE_2_BITS):
        return 4
    return bits


def input_block(frozen: FrozenLinear) -> int | None:
    """Largest block of MatMulNBits that divides the group: a group of 192 is three blocks of 64 with the same scale. None: there is none."""
    group = frozen.codes.shape[1] // frozen.scale.shape[1]
    return next((size for size in BLOCKS if group % size == 0), None)


class OnnxLinear(nn.Module):
    """Linears of one grid that share their input x, computed in one call: their outputs side by side.

    y = [x @ dequantize(codes_i).T + scaling_i * (x @ lora_A_i.T) @ lora_B_i.T + bias_i  for linear i]
    """

    own_threads = True
    """Works with onnxruntime's threads, which go on spinning for milliseconds after a call."""

    def __init__(self, linears: Sequence[FrozenLinear], biases: Sequence[Tensor | None]) -> None:
        """The weights are copied into onnxruntime's own order; nothing of `linears` is kept. Raises what onnxruntime raises."""
        super().__init__()
        self.spec = linears[0].spec
        self.in_features = linears[0].codes.shape[1]
        self.out_features = sum(len(linear.codes) for linear in linears)
        self.rank = max(linear.rank for linear in linears)
        nodes, constants = linear_nodes("", "x", "y", linears, biases)
        self._names = ["y"]
        graph = graph_bytes(nodes, constants, [Value("x", ("rows", self.in_features))], [Value("y", ("rows", self.out_features))])
        self._session = session(graph, constants)._sess  # the bare session: its wrapper would check every call's names again

    def forward(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        """The linears on `x`, float32."""
        is_plain = x.dim() == 2 and not x.requires_grad and x.is_contiguous()  # a decode step: every microsecond counts
        rows = x if is_plain else x.detach().reshape(-1, self.in_features).contiguous()
        (y,) = self._session.run(self._names, {"x": rows.numpy()}, None)
        output = torch.from_numpy(y)
        return output if is_plain else output.reshape(*x.shape[:-1], self.out_features)

    def __deepcopy__(self, memo: dict[int, Any]) -> "OnnxLinear":
        """A session has no state besides its weights, which are constant: copies of a model share it."""
        return self

    def extra_repr(self) -> str:
        """Shape and grid, for `print(model)`."""
        return f"in_features={self.in_features}, out_features={self.out_features}, spec={self.spec.tag}, rank={self.rank}"


def session(graph: bytes, constants: dict[str, np.ndarray]) -> Any:
    """An onnxruntime session of a graph.

    All sessions share one pool of as many threads as torch has at the first call; a pool per matrix would be hundreds of threads.
    """
    import onnxruntime  # an optional speed-up: everything else works without it

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = False  # the arena doubles what small sessions hold, and saves no time here
    if _shared_pool():
        options.use_per_session_threads = False
    else:
        options.intra_op_num_threads = options.inter_op_num_threads = 1
    outside = {name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in constants.items() if array.dtype != np.int64}
    options.add_external_initializers(list(outside), list(outside.values()))
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


@cache
def _shared_pool() -> bool:
    """Make the pool that all sessions share; False where it cannot be had any more, because other code made sessions before."""
    import onnxruntime

    try:
        onnxruntime.set_global_thread_pool_sizes(torch.get_num_threads(), 1)
    except RuntimeError:
        return False
    return True


@cache
def _version() -> tuple[int, int]:
    major, minor = importlib.metadata.version("onnxruntime").split(".")[:2]
    return int(major), int(minor)


def linear_nodes(
    prefix: str, source: str, result: str, linears: Sequence[FrozenLinear], biases: Sequence[Tensor | None]
) -> tuple[list[Node], dict[str, np.ndarray]]:
    """Operators from the value `source` to the value `result`, the outputs of `linears` side by side; names of their own begin with `prefix`."""
    constants = {f"{prefix}{name}": array for name, array in _weight_constants(linears).items()}
    value = f"{prefix}product"
    nodes = [_matmul(prefix, source, value, linears)]
    for addition, own in (_adapter_nodes(prefix, source, linears), _bias_constants(prefix, linears, biases)):
        if own:
            constants |= own
            summand = addition[-1].outputs[0] if addition else f"{prefix}bias"
            nodes += [*addition, Node("Add", [value, summand], [f"{value}+"])]
            value = f"{value}+"
    return [*nodes[:-1], dataclasses.replace(nodes[-1], outputs=[result])], constants


def _matmul(prefix: str, source: str, result: str, linears: Sequence[FrozenLinear]) -> Node:
    frozen = linears[0]
    block = input_block(frozen)
    assert block is not None  # `refusal` was asked
    attributes = {
        "K": frozen.codes.shape[1], "N": sum(len(linear.codes) for linear in linears), "bits": native_bits(frozen.spec.bits), "block_size": block,
        "accuracy_level": INT8_ACTIVATIONS,
    }  # fmt: skip
    return Node("MatMulNBits", [source, *(f"{prefix}{name}" for name in ("qweight", "scale", "zero_point"))], [result], attributes, CONTRIB)


def _weight_constants(linears: Sequence[FrozenLinear]) -> dict[str, np.ndarray]:
    """Codes [out, blocks, bytes], scale [out * blocks] and packed zero points [out, bytes] of all linears, one below the other.

    Scale and zero point of a group are repeated for each of its blocks.
    """
    bits, block = native_bits(linears[0].spec.bits), input_block(linears[0])
    assert block is not None
    in_features = linears[0].codes.shape[1]
    repeats = in_features // linears[0].scale.shape[1] // block
    codes = torch.cat([linear.codes for linear in linears])
    zero_point = torch.cat([linear.zero_point for linear in linears]).repeat_interleave(repeats, dim=1)
    scale = torch.cat([linear.scale for linear in linears]).float().repeat_interleave(repeats, dim=1)
    return {
        "qweight": pack(codes, bits)[0].reshape(len(codes), in_features // block, block * bits // 8).numpy(),
        "scale": scale.reshape(-1).numpy(),
        "zero_point": pack(zero_point, bits)[0].numpy(),
    }


def _adapter_nodes(prefix: str, source: str, linears: Sequence[FrozenLinear]) -> tuple[list[Node], dict[str, np.ndarray]]:
    """u = [(x @ lora_A_i.T) @ (scaling_i * lora_B_i.T)]: one product with all lora_A, then one per linear."""
    if not any(linear.rank for linear in linears):
        return [], {}
    full = [_adapter(linear) for linear in linears]
    constants = {f"{prefix}lora_A": torch.cat([lora_A for lora_A, _ in full]).T.contiguous().numpy()}
    constants |= {f"{prefix}lora_B{index}": lora_B.T.contiguous().numpy() for index, (_, lora_B) in enumerate(full)}
    down = Node("MatMul", [source, f"{prefix}lora_A"], [f"{prefix}t"])
    if len(full) == 1:
        return [down, Node("MatMul", [f"{prefix}t", f"{prefix}lora_B0"], [f"{prefix}u"])], constants
    constants[f"{prefix}ranks"] = np.array([len(lora_A) for lora_A, _ in full], np.int64)
    parts = range(len(full))
    return [
        down,
        Node("Split", [f"{prefix}t", f"{prefix}ranks"], [f"{prefix}t{index}" for index in parts], {"axis": -1}),
        *[Node("MatMul", [f"{prefix}t{index}", f"{prefix}lora_B{index}"], [f"{prefix}u{index}"]) for index in parts],
        Node("Concat", [f"{prefix}u{index}" for index in parts], [f"{prefix}u"], {"axis": -1}),
    ], constants


def _adapter(linear: FrozenLinear) -> tuple[Tensor, Tensor]:
    """lora_A and scaling * lora_B in float32; of rank 1 and zero where a linear has none and its neighbors have."""
    if linear.lora_A is None or linear.lora_B is None:
        return torch.zeros(1, linear.codes.shape[1]), torch.zeros(len(linear.codes), 1)
    return linear.lora_A.float(), linear.lora_B.float() * linear.scaling


def _bias_constants(prefix: str, linears: Sequence[FrozenLinear], biases: Sequence[Tensor | None]) -> tuple[list[Node], dict[str, np.ndarray]]:
    if all(bias is None for bias in biases):
        return [], {}
    rows = [torch.zeros(len(linear.codes)) if bias is None else bias.detach().float() for linear, bias in zip(linears, biases, strict=True)]
    return [], {f"{prefix}bias": torch.cat(rows).contiguous().numpy()}
