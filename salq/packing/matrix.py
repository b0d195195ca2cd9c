"""One quantized matrix as the tensors of a file, and back, bit for bit: packed codes, scale, packed zero points, adapter.

qweight.0, qweight.1   uint8 [out, bytes per row]: the planes of the codes (the second one at 3 bits only)
scale                  float16 [out, groups]; of BinaryMoS [out, experts]
zero_point.0, .1       uint8 [1, bytes]: planes of all zero points in a row; absent when the grid is symmetric or not uniform
second_scale           float16 [out, groups]: scale of the second binary of a dual binary grid; absent otherwise
scale_in, router       float16 [experts, in]: the other scales of BinaryMoS and its router; absent otherwise
lora_A, lora_B         float16 [rank, in], [out, rank]; absent without an adapter
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from salq.core.errors import FormatError, ShapeError
from salq.packing.planes import pack, unpack
from salq.quant.binary_mos import FrozenMoS
from salq.quant.dual_binary import FrozenDual
from salq.quant.frozen import FrozenLinear
from salq.quant.size import PLANES, Grid, row_bytes
from salq.quant.spec import QuantSpec


def symmetric_zero_point(spec: QuantSpec) -> int:
    """The one zero point of a symmetric grid, which is therefore not stored."""
    return (1 << (spec.bits - 1)) - 1


def pack_matrix(frozen: FrozenLinear) -> dict[str, Tensor]:
    """Named tensors on the CPU. Raises ShapeError for a symmetric grid whose zero point is not in the middle."""
    spec = frozen.spec
    tensors = {f"qweight.{plane}": packed for plane, packed in enumerate(pack(frozen.codes.cpu(), spec.bits))}
    tensors["scale"] = frozen.scale.cpu()
    if isinstance(frozen, FrozenDual):
        tensors["second_scale"] = frozen.second_scale.cpu()
    elif isinstance(frozen, FrozenMoS):
        tensors |= {"scale_in": frozen.scale_in.cpu(), "router": frozen.router.cpu()}
    elif not spec.symmetric:
        tensors |= {f"zero_point.{plane}": packed for plane, packed in enumerate(pack(frozen.zero_point.cpu().reshape(1, -1), spec.bits))}
    elif bool((frozen.zero_point != symmetric_zero_point(spec)).any()):
        raise ShapeError(f"A symmetric {spec.bits}-bit grid has the zero point {symmetric_zero_point(spec)} everywhere; this one has others.")
    if frozen.lora_A is not None and frozen.lora_B is not None:
        tensors |= {"lora_A": frozen.lora_A.cpu(), "lora_B": frozen.lora_B.cpu()}
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def tensor_shapes(
    spec: QuantSpec, shape: tuple[int, int], rank: int, grid: Grid = "uniform", experts: int = 0
) -> dict[str, tuple[tuple[int, int], torch.dtype]]:
    """{tensor: (shape, dtype)} of a matrix, from plain numbers: what a file has to hold."""
    out_features, in_features = shape
    groups = spec.groups(in_features)
    found = {f"qweight.{plane}": ((out_features, row_bytes(in_features, width)), torch.uint8) for plane, width in enumerate(PLANES[spec.bits])}
    found["scale"] = ((out_features, groups), torch.float16)
    if grid == "binary_mos":
        found |= {"scale": ((out_features, experts), torch.float16)}
        found |= dict.fromkeys(("scale_in", "router"), ((experts, in_features), torch.float16))
    elif grid == "dual_binary":
        found["second_scale"] = ((out_features, groups), torch.float16)
    elif not spec.symmetric:
        found |= {f"zero_point.{plane}": ((1, row_bytes(out_features * groups, width)), torch.uint8) for plane, width in enumerate(PLANES[spec.bits])}
    if rank:
        found |= {"lora_A": ((rank, in_features), torch.float16), "lora_B": ((out_features, rank), torch.float16)}
    return found


def unpack_matrix(spec: QuantSpec, shape: tuple[int, int], scaling: float, tensors: Mapping[str, Tensor], grid: Grid = "uniform") -> FrozenLinear:
    """Inverse of `pack_matrix`. Raises FormatError when the tensors are not those of a matrix of that shape and grid."""
    out_features, in_features = shape
    rank = len(tensors["lora_A"]) if "lora_A" in tensors else 0
    want = tensor_shapes(spec, shape, rank, grid, len(tensors["router"]) if "router" in tensors else 0)
    got = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}
    if got != want or (spec.group_size is not None and in_features % spec.group_size):
        differing = sorted(name for name in {*got, *want} if got.get(name) != want.get(name))
        raise FormatError(f"a {spec.tag} matrix of {out_features} x {in_features} has other tensors ({', '.join(differing) or 'group size'})")
    codes = unpack(_planes(tensors, "qweight", spec.bits), spec.bits, in_features)
    groups, empty = spec.groups(in_features), torch.zeros(out_features, 0, dtype=torch.uint8)
    adapter = (tensors.get("lora_A"), tensors.get("lora_B"), scaling)
    if grid == "dual_binary":
        return FrozenDual(spec, codes, tensors["scale"], empty, *adapter, second_scale=tensors["second_scale"])
    if grid == "binary_mos":
        return FrozenMoS(spec, codes, tensors["scale"], empty, *adapter, scale_in=tensors["scale_in"], router=tensors["router"])
    if spec.symmetric:
        zero_point = torch.full((out_features, groups), symmetric_zero_point(spec), dtype=torch.uint8)
    else:
        zero_point = unpack(_planes(tensors, "zero_point", spec.bits), spec.bits, out_features * groups).reshape(out_features, groups)
    return FrozenLinear(spec, codes, tensors["scale"], zero_point, *adapter)


def _planes(tensors: Mapping[str, Tensor], name: str, bits: int) -> tuple[Tensor, ...]:
    return tuple(tensors[f"{name}.{plane}"] for plane in range(len(PLANES[bits])))
