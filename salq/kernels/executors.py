"""Which code runs a quantized linear: every executor says what it cannot do, the first that can is chosen, and the reason is kept for people.

An executor that fails to build, or on its first call, gives way to the next one, for the rest of the model, and that is said too. The reference
never refuses. Libraries behind an executor are imported when it is asked for, so salq works without any of them.
"""

import importlib
import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from salq.core.errors import ConfigError, UnknownNameError
from salq.kernels import int4_linear, onnx_linear
from salq.kernels.dual import DualLinear
from salq.kernels.groups import trial
from salq.kernels.linear import QuantLinear
from salq.kernels.onnx_linear import OnnxLinear
from salq.kernels.signs import SignLinear
from salq.quant.binary_mos import FrozenMoS
from salq.quant.dual_binary import FrozenDual
from salq.quant.frozen import FrozenLinear, merged
from salq.quant.spec import SIGN_BITS, QuantSpec

AUTO = "auto"
TRITON = "salq.kernels.triton_linear"
"""Imported when it is asked for: a module with Triton kernels touches the driver."""


@runtime_checkable
class Executor(Protocol):
    """One way to run quantized linears."""

    name: str
    device: str
    """Type of device that it is meant for; its refusals elsewhere are no news."""
    merges: bool
    """Whether linears with the same input gain from running as one."""

    def refusal(self, frozen: FrozenLinear, device: torch.device, dtype: torch.dtype) -> str | None:
        """Why it cannot run `frozen` for activations of `dtype` on `device`, as the rest of a sentence; None when it can."""

    def describe(self, spec: QuantSpec) -> str:
        """What runs, for people."""

    def build(self, linears: Sequence[FrozenLinear], biases: Sequence[Tensor | None]) -> nn.Module:
        """The module that computes `linears`, which share grid and input, side by side. Only one linear unless it `merges`."""


class Reference:
    """The specification: dequantizes for every call, in plain torch."""

    name, device, merges = "reference", "any", False

    def refusal(self, frozen: FrozenLinear, device: torch.device, dtype: torch.dtype) -> str | None:
        """It runs everything."""
        return None

    def describe(self, spec: QuantSpec) -> str:
        """What runs."""
        if spec.bits == SIGN_BITS:
            return "torch reference: signs as they are, and scales that follow the token"
        return f"torch reference: {spec.bits}-bit codes dequantized for every call"

    def build(self, linears: Sequence[FrozenLinear], biases: Sequence[Tensor | None]) -> nn.Module:
        """A QuantLinear, or the module of another grid."""
        frozen = linears[0]
        if isinstance(frozen, FrozenMoS):
            return SignLinear(frozen, biases[0])
        return DualLinear(frozen, biases[0]) if isinstance(frozen, FrozenDual) else QuantLinear(frozen, biases[0])


class OnnxRuntime:
    """onnxruntime's MatMulNBits, on the CPU."""

    name, device, merges = "onnxruntime", "cpu", True

    def refusal(self, frozen: FrozenLinear, device: torch.device, dtype: torch.dtype) -> str | None:
        """See `onnx_linear.refusal`."""
        return onnx_linear.refusal(frozen, device, dtype)

    def describe(self, spec: QuantSpec) -> str:
        """What runs."""
        return onnx_linear.describe(spec)

    def build(self, linears: Sequence[FrozenLinear], biases: Sequence[Tensor | None]) -> nn.Module:
        """One graph for all of them."""
        return OnnxLinear(linears, biases)


class TorchInt4:
    """torch's own 4-bit product, on the CPU."""

    name, device, merges = "torch-int4", "cpu", False

    def refusal(self, frozen: FrozenLinear, device: torch.device, dtype: torch.dtype) -> str | None:
        """See `int4_linear.refusal`."""
        return int4_linear.refusal(frozen, device, dtype)

    def describe(self, spec: QuantSpec) -> str:
        """What runs."""
        return int4_linear.describe(spec)

    def build(self, linears: Sequence[FrozenLinear], biases: Sequence[Tensor | None]) -> nn.Module:
        """An Int4Linear."""
        return int4_linear.Int4Linear(linears[0], biases[0])


class Triton:
    """salq's own kernels, on a GPU."""

    name, device, merges = "triton", "cuda", True

    def refusal(self, frozen: FrozenLinear, device: torch.device, dtype: torch.dtype) -> str | None:
        """What the kernels cannot do, or lack on this machine."""
        if device.type != "cuda":
            return f"it works on a GPU, and the model is on {device}"
        for name in ("triton", TRITON):
            if importlib.util.find_spec(name) is None:
                return f"{name} is not installed"
        why: str | None = importlib.import_module(TRITON).refusal(frozen, device, dtype)
        return why

    def describe(self, spec: QuantSpec) -> str:
        """What runs."""
        return f"Triton kernel: packed {spec.bits}-bit codes on the GPU"

    def build(self, linears: Sequence[FrozenLinear], biases: Sequence[Tensor | None]) -> nn.Module:
        """One kernel for all of them."""
        parts = [torch.zeros(len(linear.codes)) if bias is None else bias.detach().cpu() for linear, bias in zip(linears, biases, strict=True)]
        bias = None if all(bias is None for bias in biases) else torch.cat(parts).to(linears[0].codes.device)
        module: nn.Module = importlib.import_module(TRITON).TritonLinear(merged(linears), bias)
        return module


EXECUTORS: tuple[Executor, ...] = (Triton(), OnnxRuntime(), TorchInt4(), Reference())
"""In the order in which they are asked: the fastest first. The last one never refuses."""

NAMES = (AUTO, *(executor.name for executor in EXECUTORS))


@dataclass(frozen=True)
class Built:
    """A module that runs, who runs it, and one sentence on why."""

    module: nn.Module
    executor: Executor
    reason: str


def choose(frozen: FrozenLinear, device: torch.device, dtype: torch.dtype, wanted: str = AUTO) -> tuple[Executor, str]:
    """The executor for `frozen` and the reason as one sentence for people.

    Raises UnknownNameError for a name that no executor has, ConfigError when the wanted one cannot run `frozen` here.
    """
    return next(Executors(wanted).candidates(frozen, device, dtype))


class Executors:
    """The choice for the linears of one model; an executor that failed once is not asked again."""

    def __init__(self, wanted: str = AUTO) -> None:
        """`wanted`: auto, or the name of the one executor that may run. Raises UnknownNameError."""
        if wanted not in NAMES:
            raise UnknownNameError.of("Executor", wanted, NAMES)
        self.wanted = wanted
        self._failed: dict[str, str] = {}

    def candidates(self, frozen: FrozenLinear, device: torch.device, dtype: torch.dtype) -> Iterator[tuple[Executor, str]]:
        """Executors that accept `frozen`, the best first, each with the reason for it. Raises ConfigError when the wanted one refuses."""
        passed_over: list[str] = []
        for executor in EXECUTORS:
            if self.wanted not in {AUTO, executor.name}:
                continue
            why = self._failed.get(executor.name) or _grid_refusal(executor, frozen) or executor.refusal(frozen, device, dtype)
            if why is None:
                yield executor, _sentence(executor, frozen.spec, passed_over)
                why = self._failed.get(executor.name, "it failed")
            if self.wanted == executor.name:
                raise ConfigError(f"Executor {executor.name} cannot run this model: {why}; use --executor auto.")
            if executor.device == device.type:
                passed_over.append(f"{executor.name}: {why}")

    def build(self, linears: Sequence[FrozenLinear], biases: Sequence[Tensor | None], dtype: torch.dtype) -> list[Built]:
        """Modules for linears that share grid, input and device: one for all where the executor merges, else one each.

        Each is called once before it is returned; one that fails gives way to the next executor, and the reason says so.
        Raises ConfigError when only one executor was allowed and it refuses or fails.
        """
        device = linears[0].codes.device
        for executor, reason in self.candidates(linears[0], device, dtype):
            together = executor.merges and all(executor.refusal(linear, device, dtype) is None for linear in linears)
            pieces = [(linears, biases)] if together else [([linear], [bias]) for linear, bias in zip(linears, biases, strict=True)]
            try:
                return [Built(_tried(executor, *piece, dtype), executor, reason) for piece in pieces]
            except Exception as error:  # noqa: BLE001 - a compiler, a driver or a library may fail in any way; the next executor takes over
                self._failed[executor.name] = f"it failed ({first_line(error)})"
        raise AssertionError("the reference neither refuses nor fails")


def _grid_refusal(executor: Executor, frozen: FrozenLinear) -> str | None:
    """Only the reference runs what is not (code - zero_point) * scale."""
    return None if frozen.grid == "uniform" or executor.name == "reference" else f"it runs uniform grids only, and this one is {frozen.grid}"


def _tried(executor: Executor, linears: Sequence[FrozenLinear], biases: Sequence[Tensor | None], dtype: torch.dtype) -> nn.Module:
    module = executor.build(linears, biases)
    trial(module, linears[0].codes.shape[1], linears[0].codes.device, dtype)
    return module


def _sentence(executor: Executor, spec: QuantSpec, passed_over: Sequence[str]) -> str:
    return executor.describe(spec) + (f" ({'; '.join(passed_over)})" if passed_over else "")


def first_line(error: Exception) -> str:
    """What a library said, on one line of readable length."""
    text = " ".join(str(error).split())
    return text[:160] or type(error).__name__
