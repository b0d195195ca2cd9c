"""What grid a matrix is quantized to, as a value: bits, group size, symmetric or not."""

import re
from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from salq.core.errors import ConfigError, ShapeError

Bits = Literal[1, 2, 3, 4, 8]
BITS: tuple[int, ...] = (2, 3, 4, 8)
"""Widths of a uniform grid."""
SIGN_BITS: Literal[1] = 1
"""A sign per weight: no grid, and only for what is made for it (recipe binary-mos)."""
GROUP_SIZES: tuple[int, ...] = (16, 32, 64, 96, 128, 192, 256)
"""Sizes that are proposed to people; any positive divisor of `in_features` works."""


class QuantSpec(BaseModel):
    """A group-wise uniform affine grid."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bits: Bits = Field(default=3, description="Width of a code in bits: 2, 3, 4 or 8; 1 is a sign (recipe binary-mos).")
    group_size: int | None = Field(
        default=64, ge=2, le=65536, description="Consecutive inputs that share one scale and zero point; none means a whole row."
    )
    symmetric: bool = Field(
        default=False, description="Fix the zero point at the middle of the grid; at 2 bits only three of the four levels are then used."
    )

    @property
    def max_code(self) -> int:
        """Largest code, 2**bits - 1."""
        return 2**self.bits - 1

    @property
    def tag(self) -> str:
        """Short name for people, such as `w2g64` or `w3row-sym`; signs have no groups and are `w1`."""
        group = "row" if self.group_size is None else f"g{self.group_size}"
        if self.bits == SIGN_BITS:
            group = ""
        return f"w{self.bits}{group}{'-sym' if self.symmetric else ''}"

    @classmethod
    def from_tag(cls, tag: str) -> "QuantSpec":
        """Inverse of `tag` for grids. Raises ConfigError for what is not one."""
        found = re.fullmatch(r"w([2348])(?:g(\d{1,5})|row)(-sym)?", tag.strip())
        size = None if found is None or found[2] is None else int(found[2])
        if found is None or (size is not None and not 2 <= size <= 65536):  # noqa: PLR2004 - the bounds of the field
            raise ConfigError(f"{tag!r} is not a grid; write bits and group size such as w2g64, w4g32-sym or w3row.")
        return cls(bits=int(found[1]), group_size=size, symmetric=found[3] is not None)  # type: ignore[arg-type]

    def groups(self, in_features: int) -> int:
        """Number of groups in a row of `in_features` inputs; the caller has checked divisibility."""
        return 1 if self.group_size is None else in_features // self.group_size


def check_uniform(spec: QuantSpec) -> None:
    """Raise ConfigError for signs where a uniform grid is needed."""
    if spec.bits == SIGN_BITS:
        raise ConfigError("1 bit is a sign per weight, which only recipe binary-mos has; a grid has 2, 3, 4 or 8 bits.")


def check_group_size(spec: QuantSpec, shapes: Mapping[str, tuple[int, int]]) -> None:
    """Raise ShapeError for the first matrix whose inputs the group size does not divide.

    shapes: {matrix name: (out_features, in_features)}. The sentence names the matrix and the sizes that divide every matrix.
    """
    if spec.group_size is None:
        return
    for name, (_, in_features) in shapes.items():
        if in_features % spec.group_size:
            fitting = [size for size in GROUP_SIZES if all(columns % size == 0 for _, columns in shapes.values())]
            listed = ", ".join(map(str, fitting)) if fitting else "none of the usual sizes"
            raise ShapeError(
                f"{name}: in_features {in_features} is not a multiple of group size {spec.group_size}; "
                f"use {listed}, or a whole row (--group-size row)."
            )
