"""Codes to bytes and back, exactly `bits` bits per code, by bit planes.

A code is cut into planes whose widths divide 8, so that no code straddles a byte:

    bits 2 -> one plane of 2        bits 4 -> one plane of 4
    bits 3 -> a plane of 2 (the low two bits) and a plane of 1 (the high bit)
    bits 8 -> one plane of 8

Within a plane, consecutive codes of a row fill a byte from its least significant bits upwards. For a plane of 2:

    byte 0:  |c3 c3|c2 c2|c1 c1|c0 c0|      byte 1:  |c7 c7|c6 c6|c5 c5|c4 c4|   ...

Every row starts at a byte; the unused high bits of its last byte are zero.
"""

import torch
from jaxtyping import UInt8
from torch import Tensor

from salq.core.errors import ShapeError
from salq.quant.size import PLANES, row_bytes


def pack(codes: UInt8[Tensor, "rows count"], bits: int) -> tuple[UInt8[Tensor, "rows _"], ...]:
    """One uint8 tensor [rows, row_bytes(count, width)] per plane, low bits first. Raises ShapeError for a code that needs more bits."""
    if codes.numel() and int(codes.max()) >= 2**bits:
        raise ShapeError(f"Code {int(codes.max())} does not fit {bits} bits; the largest code is {2**bits - 1}.")
    planes, shift = [], 0
    for width in PLANES[bits]:
        planes.append(pack_plane((codes >> shift) & (2**width - 1), width))
        shift += width
    return tuple(planes)


def unpack(planes: tuple[UInt8[Tensor, "rows _"], ...], bits: int, count: int) -> UInt8[Tensor, "rows count"]:
    """Inverse of `pack` for rows of `count` codes. Raises ShapeError when the planes have other shapes than `pack` gives."""
    widths = PLANES[bits]
    rows = len(planes[0]) if planes else 0
    want = [(rows, row_bytes(count, width)) for width in widths]
    got = [tuple(plane.shape) for plane in planes]
    if got != want:
        raise ShapeError(f"Packed codes of {rows} x {count} at {bits} bits have planes of {want} bytes; got {got}.")
    codes, shift = torch.zeros(rows, count, dtype=torch.uint8, device=planes[0].device), 0
    for plane, width in zip(planes, widths, strict=True):
        codes |= unpack_plane(plane, width, count) << shift
        shift += width
    return codes


def pack_plane(fields: UInt8[Tensor, "rows count"], width: int) -> UInt8[Tensor, "rows _"]:
    """One plane: fields of `width` bits, a row from a byte on."""
    rows, count = fields.shape
    per_byte = 8 // width
    padded = torch.nn.functional.pad(fields, (0, row_bytes(count, width) * per_byte - count)).reshape(rows, -1, per_byte)
    packed = padded[..., 0].clone()
    for position in range(1, per_byte):
        packed |= padded[..., position] << (position * width)
    return packed


def unpack_plane(plane: UInt8[Tensor, "rows _"], width: int, count: int) -> UInt8[Tensor, "rows count"]:
    """Inverse of `pack_plane` for rows of `count` fields."""
    shifts = torch.arange(0, 8, width, dtype=torch.uint8, device=plane.device)
    fields = (plane.unsqueeze(-1) >> shifts) & (2**width - 1)
    codes: Tensor = fields.reshape(len(plane), -1)[:, :count]
    return codes
