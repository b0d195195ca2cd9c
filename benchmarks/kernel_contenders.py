"""Who takes part in the benchmark of the kernels: ours at every width, cuBLAS, torch's int4 operator, gemlite. Each from one random matrix."""

import copy
import dataclasses
import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from salq.kernels.triton_configs import KernelConfig
from salq.kernels.triton_linear import TritonLinear, refusal
from salq.quant.frozen import FrozenLinear, rtn
from salq.quant.spec import QuantSpec

GROUP_SIZE = 64
RANK = 64

Call = Callable[[Tensor], Tensor]


class Unavailable(Exception):  # noqa: N818 - not an error: the reason goes into the result
    """Why a contender does not take part here."""


@dataclass(frozen=True)
class Contender:
    """Something that multiplies. `make` builds one copy of it, in memory of its own, on each call."""

    name: str
    dtype: torch.dtype
    read_bytes: int
    want: Callable[[Tensor], Tensor]
    make: Callable[[], Call]


class Matrix:
    """One random matrix and what every contender is made of; labelled random wherever it is reported."""

    def __init__(self, shape: tuple[int, int], device: torch.device) -> None:
        """Weights like those of a trained model in scale: normal, 1/sqrt(in)."""
        self.shape, self.device = shape, device
        generator = torch.Generator(device=device).manual_seed(0)
        self.weight = torch.randn(*shape, generator=generator, device=device) * shape[1] ** -0.5
        self.lora_a = (torch.randn(RANK, shape[1], generator=generator, device=device) * 0.02).half()
        self.lora_b = (torch.randn(shape[0], RANK, generator=generator, device=device) * 0.02).half()

    def frozen(self, bits: int, adapter: bool) -> FrozenLinear:
        """Rounded to nearest in groups of 64, with or without an adapter of rank 64."""
        frozen = rtn(self.weight, QuantSpec(bits=bits, group_size=GROUP_SIZE))
        return dataclasses.replace(frozen, lora_A=self.lora_a, lora_B=self.lora_b, scaling=0.5) if adapter else frozen


def exact(frozen: FrozenLinear) -> Callable[[Tensor], Tensor]:
    """The product in float64, in pieces of rows."""

    def product(x: Tensor) -> Tensor:
        wide = x.double()
        pieces = [wide @ piece.double().T for piece in frozen.dequantize().split(4096)]
        result = torch.cat(pieces, dim=-1)
        if frozen.lora_A is not None and frozen.lora_B is not None:
            result += frozen.scaling * (wide @ frozen.lora_A.double().T) @ frozen.lora_B.double().T
        return result

    return product


def ours(matrix: Matrix, bits: int, adapter: bool, config: KernelConfig | None = None) -> Contender:
    """Our Triton kernel. Raises Unavailable with the refusal."""
    frozen = matrix.frozen(bits, adapter)
    if reason := refusal(frozen, matrix.device, torch.float16):
        raise Unavailable(reason)
    return _packed(f"salq {bits}-bit{' + LoRA r64' if adapter else ''}", frozen, config)


def three_in_four(matrix: Matrix) -> Contender:
    """The 3-bit codes through the 4-bit kernel: lossless, and what the 3-bit kernel must beat."""
    frozen = matrix.frozen(3, adapter=False)
    if reason := refusal(frozen, matrix.device, torch.float16):
        raise Unavailable(reason)
    return _packed("salq 3-bit codes in the 4-bit kernel", dataclasses.replace(frozen, spec=QuantSpec(bits=4, group_size=GROUP_SIZE)), None)


def _packed(name: str, frozen: FrozenLinear, config: KernelConfig | None) -> Contender:
    first = TritonLinear(frozen, config=config)
    read = sum(buffer.nbytes for buffer in first.buffers())
    return Contender(name, torch.float16, read, exact(frozen), lambda: copy.deepcopy(first))


def cublas(matrix: Matrix) -> Contender:
    """float16 through torch's linear."""
    weight = matrix.weight.half()

    def make() -> Call:
        own = weight.clone()
        return lambda x: torch.nn.functional.linear(x, own)

    def want(x: Tensor) -> Tensor:
        return torch.cat([x.double() @ piece.double().T for piece in weight.split(4096)], dim=-1)

    return Contender("cuBLAS float16", torch.float16, weight.nbytes, want, make)


def torch_int4(matrix: Matrix) -> Contender:
    """aten::_weight_int4pack_mm (tinygemm): bfloat16, weight = (code - 8) * scale + offset."""
    frozen = matrix.frozen(4, adapter=False)
    codes = frozen.codes.int()
    halves = (codes[:, ::2] << 4 | codes[:, 1::2]).to(torch.uint8)
    try:
        packed = torch.ops.aten._convert_weight_to_int4pack(halves, 8)
    except RuntimeError as error:  # NotImplementedError, for an operator that is not there, is one
        raise Unavailable(f"aten::_convert_weight_to_int4pack: {str(error).splitlines()[0]}") from None
    scale = frozen.scale.float()
    grid = torch.stack([scale, (8 - frozen.zero_point.float()) * scale], dim=-1).transpose(0, 1).contiguous().bfloat16()

    def make() -> Call:
        own_packed, own_grid = packed.clone(), grid.clone()
        return lambda x: torch.ops.aten._weight_int4pack_mm(x, own_packed, GROUP_SIZE, own_grid)

    return Contender("torch int4 bfloat16", torch.bfloat16, packed.nbytes + grid.nbytes, exact(frozen), make)


def gemlite(matrix: Matrix, bits: int) -> Contender:
    """gemlite's Triton kernels, as they tune themselves. Raises Unavailable where it is not installed or does not take the matrix."""
    frozen = matrix.frozen(bits, adapter=False)
    try:
        core = importlib.import_module("gemlite.core")
    except Exception as error:  # noqa: BLE001 - its import reads the device and may fail in any way
        raise Unavailable(f"gemlite is not importable: {type(error).__name__}: {error}") from None
    rows, columns = matrix.shape

    def make() -> Call:
        linear = core.GemLiteLinear(
            bits, group_size=GROUP_SIZE, in_features=columns, out_features=rows, input_dtype=core.DType.FP16, output_dtype=core.DType.FP16
        )
        linear.pack(frozen.codes, frozen.scale.reshape(-1, 1), frozen.zero_point.half().reshape(-1, 1), None)
        return linear

    try:
        make()
    except Exception as error:  # noqa: BLE001 - another project's code: whatever it raises is the reason
        raise Unavailable(f"gemlite does not take the matrix: {type(error).__name__}: {error}") from None
    groups = frozen.scale.numel()
    return Contender(f"gemlite {bits}-bit", torch.float16, frozen.codes.numel() * bits // 8 + 4 * groups, exact(frozen), make)


def makers(matrix: Matrix) -> Iterator[tuple[str, Callable[[], Contender]]]:
    """(name, how to build it) of every contender; building may raise Unavailable."""
    yield "cuBLAS float16", lambda: cublas(matrix)
    yield "torch int4 bfloat16", lambda: torch_int4(matrix)
    for bits in (4, 2):
        yield f"gemlite {bits}-bit", lambda bits=bits: gemlite(matrix, bits)
    for bits in (2, 3, 4, 8):
        for adapter in (False, True):
            name = f"salq {bits}-bit{' + LoRA r64' if adapter else ''}"
            yield name, lambda bits=bits, adapter=adapter: ours(matrix, bits, adapter)
    yield "salq 3-bit codes in the 4-bit kernel", lambda: three_in_four(matrix)
