"""Where finished blocks go. Resume is nothing else than finding them there."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from salq.core.errors import FormatError, NewerFormatError, StoreError
from salq.core.files import atomic_path, read_json, write_json
from salq.packing.files import Origin, PackedFile, write_packed
from salq.quant.frozen import FrozenLinear

Block = dict[str, FrozenLinear]
ORIGIN = "origin.json"
MAX_SHOWN = 12
"""Seeds are shown in a refusal, hashes are not."""


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
    """One packed file per block, written atomically: a file that exists under its name is complete (salq/packing/FORMAT.md)."""

    def __init__(self, folder: Path, origin: Origin | None = None) -> None:
        """`folder` is created at the first save; `origin` is written into every file."""
        self.folder, self.origin = folder, origin

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
        write_packed(self.path(index), block.items(), self.origin)

    def open(self, index: int) -> PackedFile:
        """The block's file, to be read matrix by matrix. Raises FormatError."""
        return PackedFile(self.path(index))

    def load(self, index: int) -> Block:
        """Read the block. Raises StoreError for a damaged file, with the way out, and NewerFormatError for one of a newer salq."""
        path = self.path(index)
        try:
            return self.open(index).matrices()
        except NewerFormatError:
            raise
        except FormatError as error:
            fix = f"delete {path.name} in its blocks folder and resume"
            raise StoreError(f"Finished block {index} of this run cannot be read: {str(error).rstrip('.')}; {fix}.") from error


class FileCheckpoint:
    """The state of an interrupted end-to-end pass in one safetensors file, written atomically; see `distillation.Checkpoints`."""

    def __init__(self, path: Path) -> None:
        """`path` need not exist."""
        self.path = path

    def save(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        """Keep the state after `step` steps, in place of the last one. Raises ResourceError when the disk refuses."""
        with atomic_path(self.path) as temporary:
            save_file(dict(tensors), temporary, metadata={"step": str(step)})

    def load(self) -> tuple[int, dict[str, Tensor]] | None:
        """The state that was kept; None when there is none or it cannot be read: the pass then begins anew, with the same result."""
        try:
            with safe_open(self.path, framework="pt") as file:
                return int(file.metadata()["step"]), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
        except (SafetensorError, KeyError, TypeError, ValueError, OSError):
            return None
