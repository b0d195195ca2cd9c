"""Where finished blocks go. Resume is nothing else than finding them there."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from salq.core.errors import StoreError
from salq.core.files import atomic_path, read_json, write_json
from salq.quant.dual_binary import FrozenDual
from salq.quant.frozen import FrozenLinear
from salq.quant.spec import QuantSpec

Block = dict[str, FrozenLinear]
FORMAT = 1
ORIGIN = "origin.json"
MAX_SHOWN = 12
"""Seeds are shown in a refusal, hashes are not."""
GRIDS: dict[str, type[FrozenLinear]] = {kind.grid: kind for kind in (FrozenLinear, FrozenDual)}


def check_origin(known: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    """Raise StoreError for the first thing that differs between what blocks were made from and what is asked for now."""
    for name, value in wanted.items():
        before = known.get(name, value)
        if before != value:
            which = f" ({before}, not {value})" if max(len(before), len(value)) <= MAX_SHOWN else ""
            raise StoreError(f"The finished blocks were made with another {name}{which}; go on with the same one, or use an empty folder.")


class BlockStore(Protocol):
    """Finished blocks by index."""

    def has(self, index: int) -> bool:
        """Whether block `index` is finished."""

    def claim(self, origin: Mapping[str, str]) -> None:
        """Say what the blocks are made from. Raises StoreError when finished ones were made from something else."""

    def save(self, index: int, block: Mapping[str, FrozenLinear]) -> None:
        """Keep a finished block."""

    def load(self, index: int) -> Block:
        """A finished block, on the CPU."""


class MemoryBlocks:
    """Blocks in memory, for the Python API and for tests."""

    def __init__(self) -> None:
        """Empty."""
        self._blocks: dict[int, Block] = {}
        self._origin: dict[str, str] = {}

    def claim(self, origin: Mapping[str, str]) -> None:
        """Say what the blocks are made from. Raises StoreError when finished ones were made from something else."""
        check_origin(self._origin if self._blocks else {}, origin)
        self._origin = dict(origin)

    def has(self, index: int) -> bool:
        """Whether block `index` is finished."""
        return index in self._blocks

    def save(self, index: int, block: Mapping[str, FrozenLinear]) -> None:
        """Keep a finished block."""
        self._blocks[index] = dict(block)

    def load(self, index: int) -> Block:
        """A finished block."""
        return self._blocks[index]


class DirectoryBlocks:
    """One safetensors file per block, written atomically: a file that exists under its name is complete.

    Codes are kept one per byte here; the packed format is a room of its own.
    """

    def __init__(self, folder: Path) -> None:
        """`folder` is created at the first save."""
        self.folder = folder

    def path(self, index: int) -> Path:
        """File of block `index`."""
        return self.folder / f"{index:03d}.safetensors"

    def has(self, index: int) -> bool:
        """Whether block `index` is finished."""
        return self.path(index).is_file()

    def claim(self, origin: Mapping[str, str]) -> None:
        """Say what the blocks are made from, in origin.json. Raises StoreError when finished ones were made from something else."""
        if self.indices():
            check_origin(self._origin(), origin)
        write_json(self.folder / ORIGIN, dict(origin))

    def _origin(self) -> dict[str, str]:
        """What the finished blocks were made from; nothing is known, and nothing binds, where no file says so."""
        try:
            found = read_json(self.folder / ORIGIN)
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def indices(self) -> list[int]:
        """Finished blocks, ascending."""
        return sorted(int(path.stem) for path in self.folder.glob("[0-9][0-9][0-9].safetensors"))

    def save(self, index: int, block: Mapping[str, FrozenLinear]) -> None:
        """Write the block. Raises ResourceError when the disk refuses."""
        tensors = {f"{name}.{part}": tensor for name, frozen in block.items() for part, tensor in frozen.tensors().items()}
        about = {name: _about(frozen) for name, frozen in block.items()}
        with atomic_path(self.path(index)) as temporary:
            # One metadata key only: safetensors writes several in random order, and equal blocks should be equal files.
            save_file(tensors, temporary, metadata={"salq": json.dumps({"format": FORMAT, "linears": about})})

    def load(self, index: int) -> Block:
        """Read the block. Raises StoreError for a damaged file, with the way out."""
        path = self.path(index)
        try:
            with safe_open(path, framework="pt") as file:
                about = json.loads(file.metadata()["salq"])["linears"]
                named = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - safe_open is not a mapping
            return {
                name: GRIDS[entry.get("grid", "uniform")].from_tensors(
                    QuantSpec(**entry["spec"]),
                    {key.removeprefix(f"{name}."): tensor for key, tensor in named.items() if key.startswith(f"{name}.")},
                    entry["scaling"],
                )
                for name, entry in about.items()
            }
        except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
            fix = f"delete {path.name} in its blocks folder and resume"
            raise StoreError(f"Finished block {index} of this run cannot be read ({error}); {fix}.") from error


def _about(frozen: FrozenLinear) -> dict[str, Any]:
    """What the tensors do not say; the uniform grid goes without saying."""
    about: dict[str, Any] = {"spec": frozen.spec.model_dump(), "scaling": frozen.scaling}
    return about if frozen.grid == "uniform" else {**about, "grid": frozen.grid}
