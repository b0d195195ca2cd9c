"""How the Triton executor keeps a matrix in memory: 32-bit words in planar order. Plain torch; the algebra is in `triton_kernels.py`.

A row is cut into *units* of `words * fields` inputs. A unit never crosses a group, so one scale serves all of it, and it is what one GPU thread
loads at once (4 words: 16 bytes). With `width` = 2 bits at 2 and 3 bits, 4 at 4, 8 at 8, a word has `fields = 32 / width` fields, and

    field j of word c of unit u  holds input  k = u * words * fields + j * words + c          (planar: not c * fields + j)

    2 bits, 4 words:      word 0            word 1            word 2            word 3
      field 0 (bits 0-1)  k = 0             1                 2                 3
      field 1 (bits 2-3)  k = 4             5                 6                 7
      ...                 one field of all words is a contiguous slice of x, found by one constant shift and mask

At 3 bits the words hold the low two bits, and a 16-bit companion of every word holds the high bit of its 16 fields. Byte r of a word has fields
4r to 4r + 3; the high bit of field 4r + i lies at bit `2 * i + HIGH_START[r]`, so that one shift brings it beside its low bits:

    companion bit  0 1 2 3 4 5 6 7 8 9 ...      byte r of the word it belongs to:  0 1 0 1 0 1 0 1 2 3 2 3 2 3 2 3

Bytes: exactly bits / 8 per weight for the codes wherever the units fill the groups and `rows` the matrix, as all usual sizes do; a matrix is padded
to whole blocks of rows, and a whole-row group to a whole word. Then 2 bytes of float16 scale and 1 byte of zero point per group; no zero points
where all are equal, as on a symmetric grid. A zero point takes a byte: at 2 bits and groups of 64, packed ones would save 4 % of the bytes (2.28
instead of 2.38 bits per weight) and cost a shift and a mask for every unit and row. Scales and zero points are interleaved over `rows` rows,
[blocks, groups, rows], so that a thread takes those of all its rows in one load.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float16, Int16, Int32, Shaped, UInt8
from torch import Tensor

from salq.core.errors import ShapeError

WIDTH = {2: 2, 3: 2, 4: 4, 8: 8}
"""Bits of a field of a word; the third bit of a 3-bit code is in the companion."""

HIGH_START = (0, 1, 8, 9)
"""First bit in the 16-bit companion for each byte of a word; the others follow at a pitch of 2."""


@dataclass(frozen=True)
class WordLayout:
    """Where the code of row n, input k lies. `rows`: rows whose scales are interleaved; the matrix is padded to a multiple of it."""

    bits: int
    out_features: int
    in_features: int
    group_size: int
    rows: int

    @classmethod
    def of(cls, bits: int, shape: tuple[int, int], group_size: int | None, rows: int) -> "WordLayout":
        """The layout of a matrix [out, in]; `group_size` None means a whole row. Raises ShapeError with the sentence of `why_not`."""
        if reason := why_not(bits, shape[1], group_size):
            raise ShapeError(reason)
        return cls(bits, shape[0], shape[1], group_size or shape[1], rows)

    @property
    def fields(self) -> int:
        """Codes in a word."""
        return 32 // WIDTH[self.bits]

    @property
    def words(self) -> int:
        """Words of a unit: the most of 4, 2, 1 that fill a group exactly; 1 when only a padded row does."""
        return next((words for words in (4, 2) if self.group_size % (words * self.fields) == 0), 1)

    @property
    def units(self) -> int:
        """Units of a row; the last may be padded when the group is a whole row."""
        return -(-self.in_features // (self.words * self.fields))

    @property
    def padded(self) -> bool:
        """True when the last unit of a row is not full."""
        return self.units * self.words * self.fields != self.in_features

    @property
    def groups(self) -> int:
        """Groups of a row."""
        return self.in_features // self.group_size

    @property
    def units_per_group(self) -> int:
        """Consecutive units that share scale and zero point."""
        return self.units // self.groups

    @property
    def blocks(self) -> int:
        """Blocks of `rows` rows, the last one padded."""
        return -(-self.out_features // self.rows)

    @property
    def code_bytes(self) -> int:
        """Bytes of the codes. bits / 8 per weight; padding rows up to a multiple of `rows` and whole-row groups up to a word comes on top."""
        return self.blocks * self.rows * self.units * self.words * (6 if self.bits == 3 else 4)


def why_not(bits: int, in_features: int, group_size: int | None) -> str | None:
    """One sentence why these codes have no word layout, or None."""
    if bits not in WIDTH:
        return f"The Triton kernels run 2, 3, 4 and 8 bits; got {bits}."
    fields = 32 // WIDTH[bits]
    if group_size is None or group_size == in_features:
        return None
    if in_features % group_size:
        return f"{in_features} inputs are not a multiple of group size {group_size}."
    if group_size % fields:
        return f"At {bits} bits the Triton kernels need a group size that is a multiple of {fields}, or a whole row; got {group_size}."
    return None


def pack_words(
    codes: UInt8[Tensor, "out in"], layout: WordLayout
) -> tuple[Int32[Tensor, "rows units words"], Int16[Tensor, "rows units words"] | None]:
    """(words, companions) of all rows, padded with code 0; the companions are None but at 3 bits."""
    fields, width = layout.fields, WIDTH[layout.bits]
    planar = _pad(codes, layout).reshape(-1, layout.units, fields, layout.words)
    words = torch.zeros(planar[:, :, 0].shape, dtype=torch.int32, device=codes.device)
    for field in range(fields):
        words |= (planar[:, :, field] & ((1 << width) - 1)).int() << (field * width)
    return words, _pack_high(planar) if layout.bits == 3 else None


def unpack_words(
    words: Int32[Tensor, "rows units words"], high: Int16[Tensor, "rows units words"] | None, layout: WordLayout
) -> UInt8[Tensor, "out in"]:
    """Inverse of `pack_words`."""
    fields, width = layout.fields, WIDTH[layout.bits]
    planes = []
    for field in range(fields):
        plane = (words >> (field * width)) & ((1 << width) - 1)
        if high is not None:
            plane = plane | ((high.int() >> _high_bit(field)) & 1) << 2
        planes.append(plane.to(torch.uint8))
    codes = torch.stack(planes, dim=2).reshape(len(words), -1)
    return codes[: layout.out_features, : layout.in_features].contiguous()


def interleave_rows(
    grid: Shaped[Tensor, "out groups"], layout: WordLayout
) -> Float16[Tensor, "blocks groups rows"] | UInt8[Tensor, "blocks groups rows"]:
    """Scales or zero points in the order in which a thread takes them; padded rows get 0."""
    padded = torch.nn.functional.pad(grid, (0, 0, 0, layout.blocks * layout.rows - layout.out_features))
    return padded.reshape(layout.blocks, layout.rows, layout.groups).transpose(1, 2).contiguous()


def _pad(codes: Tensor, layout: WordLayout) -> Tensor:
    columns = layout.units * layout.words * layout.fields - layout.in_features
    return torch.nn.functional.pad(codes, (0, columns, 0, layout.blocks * layout.rows - layout.out_features))


def _pack_high(planar: Tensor) -> Tensor:
    high = torch.zeros(planar[:, :, 0].shape, dtype=torch.int32, device=planar.device)
    for field in range(16):
        high |= (planar[:, :, field] >> 2).int() << _high_bit(field)
    return high.to(torch.int16)  # wraps: the sixteen bits are kept


def _high_bit(field: int) -> int:
    return HIGH_START[field // 4] + 2 * (field % 4)
