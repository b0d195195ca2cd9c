"""Packed files: quantized matrices in one safetensors file with a manifest, checked against it before anything is used. See FORMAT.md.

The manifest is one metadata key, `salq`: format, origin, and per matrix its grid, shape, scaling and the sha256 of every tensor.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from salq.core.errors import FormatError, NewerFormatError, ShapeError
from salq.core.files import atomic_path
from salq.packing.matrix import pack_matrix, unpack_matrix
from salq.packing.planes import pack_plane, unpack_plane
from salq.quant.frozen import FrozenLinear
from salq.quant.size import PLANES, Grid
from salq.quant.spec import QuantSpec

FORMAT = 2
"""1 kept one byte per code; it is still read."""

KEY = "salq"
OF_INPUTS = {"lora_A", "scale_in", "router"}
"""Tensors of a matrix without a row per output."""


class Origin(BaseModel):
    """Where matrices came from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str | None = Field(default=None, description="Name of the model: catalogue key, hub id, or the last part of a folder.")
    fingerprint: str | None = Field(default=None, description="Fingerprint of the model's folder (sha256, hex).")
    recipe: dict[str, Any] | None = Field(default=None, description="The full recipe, as in request.json.")


class Matrix(BaseModel):
    """One matrix of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    spec: QuantSpec = Field(description="Its grid.")
    grid: Grid = Field(default="uniform", description="How codes become weights.")
    shape: tuple[int, int] = Field(description="Outputs, inputs.")
    scaling: float = Field(default=1.0, description="Factor of the adapter.")
    sha256: dict[str, str] = Field(description="Hash (hex) of every tensor's bytes, by its name within the matrix.")


class Manifest(BaseModel):
    """What a packed file holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = Field(default=FORMAT, description="Version of the layout.")
    origin: Origin = Field(default=Origin(), description="Where the matrices came from.")
    matrices: dict[str, Matrix] = Field(description="Matrices by name.")
    rest: dict[str, str] = Field(default_factory=dict, description="Hash (hex) of every tensor that is not of a quantized matrix, by name.")


def write_packed(
    path: Path, linears: Iterable[tuple[str, FrozenLinear]], origin: Origin | None = None, rest: Iterable[tuple[str, Tensor]] = ()
) -> Manifest:
    """Write named matrices (and other tensors, as they are) atomically. Equal content gives equal files. Raises ResourceError: disk."""
    tensors: dict[str, Tensor] = {}
    matrices: dict[str, Matrix] = {}
    others: dict[str, str] = {}
    for name, frozen in linears:
        packed = pack_matrix(frozen)
        hashes = {part: sha256(tensor) for part, tensor in packed.items()}
        matrices[name] = Matrix(
            spec=frozen.spec, grid=frozen.grid, shape=(frozen.codes.shape[0], frozen.codes.shape[1]), scaling=frozen.scaling, sha256=hashes
        )
        tensors |= {f"{name}.{part}": tensor for part, tensor in packed.items()}
    for name, tensor in rest:
        tensors[name] = tensor.detach().cpu().contiguous()
        others[name] = sha256(tensors[name])
    manifest = Manifest(origin=origin or Origin(), matrices=matrices, rest=others)
    with atomic_path(path) as temporary:
        # One metadata key only: safetensors writes several in random order.
        save_file(tensors, temporary, metadata={KEY: manifest.model_dump_json()})
    return manifest


class PackedFile:
    """A packed file of format 2, or of format 1, read matrix by matrix. Reading checks hashes, so nothing altered is ever run."""

    def __init__(self, path: Path) -> None:
        """Read the manifest. Raises FormatError: not a packed file, cut short, or of a newer format."""
        self.path = path
        try:
            with safe_open(path, framework="pt") as file:
                self._names = frozenset(file.keys())
                value = json.loads((file.metadata() or {})[KEY])
            version = value["format"]
            if isinstance(version, int) and version > FORMAT:
                raise NewerFormatError(f"{path.name} has format {version}, and this salq reads up to {FORMAT}; update salq to use it.")
            self.manifest = _from_format_1(value) if version == 1 else Manifest(**value)
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise FormatError(f"{path.name} is not a whole packed file ({_reason(error)}).") from error

    def matrix(self, name: str) -> FrozenLinear:
        """One matrix, on the CPU. Raises FormatError when it is not there, was altered, or does not fit its manifest."""
        entry = self.manifest.matrices.get(name)
        if entry is None:
            raise FormatError(f"{self.path.name} holds no matrix {name}.")
        tensors = self._tensors(f"{name}.")
        if self.manifest.format == 1:
            return self._of_format_1(name, entry, tensors)
        for part in sorted({*tensors, *entry.sha256}):
            if part not in tensors or sha256(tensors[part]) != entry.sha256.get(part):
                raise FormatError(f"{self.path.name} was altered: {name}.{part} is not what its manifest says.")
        try:
            return unpack_matrix(entry.spec, entry.shape, entry.scaling, tensors, entry.grid)
        except FormatError as error:
            raise FormatError(f"{self.path.name} does not fit its manifest: {name}: {error}.") from error

    def row(self, name: str, row: int) -> FrozenLinear:
        """One row of a matrix as a matrix of one output, without reading the others: to look at, hashes are not checked.

        Raises FormatError when the matrix or the row is not there or does not fit the manifest; in format 1, shapes come from the tensors.
        """
        entry = self.manifest.matrices.get(name)
        if entry is None:
            raise FormatError(f"{self.path.name} holds no matrix {name}.")
        if self.manifest.format == 1:
            return _one_row(self.matrix(name), row)
        if not 0 <= row < entry.shape[0]:
            raise FormatError(f"{self.path.name}: {name} has rows 0 to {entry.shape[0] - 1}, not {row}.")
        try:
            with safe_open(self.path, framework="pt") as file:
                parts = {key.removeprefix(f"{name}."): key for key in self._names if key.startswith(f"{name}.")}
                tensors = {part: _row_of_part(file, key, part, row, entry) for part, key in parts.items()}
            return unpack_matrix(entry.spec, (1, entry.shape[1]), entry.scaling, tensors, entry.grid)
        except (SafetensorError, OSError, ShapeError, IndexError) as error:
            raise FormatError(f"{self.path.name} is not a whole packed file ({_reason(error)}).") from error

    def matrices(self) -> dict[str, FrozenLinear]:
        """All matrices, by name."""
        return {name: self.matrix(name) for name in self.manifest.matrices}

    def rest(self) -> Iterator[tuple[str, Tensor]]:
        """The other tensors, one by one, as views of the file: what is never touched takes no memory. Raises FormatError: missing or altered."""
        for name, digest in self.manifest.rest.items():
            if name not in self._names or sha256(self._view(name)) != digest:
                raise FormatError(f"{self.path.name} was altered: {name} is not what its manifest says.")
            yield name, self._view(name)  # anew: the pages that were hashed belong to a mapping that is gone

    def _of_format_1(self, name: str, entry: Matrix, tensors: Mapping[str, Tensor]) -> FrozenLinear:
        """Format 1 kept the tensors of a FrozenLinear as they are, without shapes and hashes to check them by."""
        if lacking := [part for part in ("codes", "scale", "zero_point") if part not in tensors]:
            raise FormatError(f"{self.path.name} is not a whole packed file (it lacks {name}.{lacking[0]}).")
        return FrozenLinear.from_tensors(entry.spec, tensors, entry.scaling)

    def _tensors(self, prefix: str) -> dict[str, Tensor]:
        """{what follows the prefix: tensor}, read into memory."""
        return {name.removeprefix(prefix): self._view(name).clone() for name in sorted(self._names) if name.startswith(prefix)}

    def _view(self, name: str) -> Tensor:
        """A tensor in a mapping of the file of its own."""
        try:
            with safe_open(self.path, framework="pt") as file:
                tensor: Tensor = file.get_tensor(name)
                return tensor
        except (SafetensorError, OSError) as error:
            raise FormatError(f"{self.path.name} is not a whole packed file ({_reason(error)}).") from error


def sha256(tensor: Tensor) -> str:
    """Hash (hex) of a tensor's bytes."""
    flat = tensor.contiguous().reshape(-1)
    return hashlib.sha256(flat.view(torch.uint8).numpy().data if flat.numel() else b"").hexdigest()


def _row_of_part(file: Any, key: str, part: str, row: int, entry: Matrix) -> Tensor:
    """What one row needs of a tensor: its own row; all of what belongs to inputs; of the zero points, all in one line, the row's packed anew."""
    if part in OF_INPUTS:
        whole: Tensor = file.get_tensor(key)
        return whole
    if not part.startswith("zero_point."):
        line: Tensor = file.get_slice(key)[row : row + 1]
        return line
    groups, width = entry.spec.groups(entry.shape[1]), PLANES[entry.spec.bits][int(part.removeprefix("zero_point."))]
    fields = unpack_plane(file.get_tensor(key), width, entry.shape[0] * groups)
    return pack_plane(fields[:, row * groups : (row + 1) * groups], width)


def _one_row(frozen: FrozenLinear, row: int) -> FrozenLinear:
    if not 0 <= row < len(frozen.codes):
        raise FormatError(f"The matrix has rows 0 to {len(frozen.codes) - 1}, not {row}.")
    lora_B = None if frozen.lora_B is None else frozen.lora_B[row : row + 1]
    at = slice(row, row + 1)
    return replace(frozen, codes=frozen.codes[at], scale=frozen.scale[at], zero_point=frozen.zero_point[at], lora_B=lora_B)


def _from_format_1(value: dict[str, Any]) -> Manifest:
    """Codes and zero points lay one byte each, without hashes or shapes."""
    matrices = {
        name: Matrix(spec=QuantSpec(**entry["spec"]), shape=(0, 0), scaling=entry["scaling"], sha256={}) for name, entry in value["linears"].items()
    }
    return Manifest(format=1, matrices=matrices)


def _reason(error: Exception) -> str:
    """What a library said, on one line of readable length."""
    if isinstance(error, KeyError):
        return f"it lacks {error}"
    if isinstance(error, ValidationError):
        return f"its manifest is not valid: {error.errors()[0]['msg']}"
    return " ".join(str(error).split())[:160].rstrip(".") or type(error).__name__
