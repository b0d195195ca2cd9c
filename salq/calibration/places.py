"""Where the activations of the streams live: on the device that calibrates, in the host's memory, or in a mapped file, as a budget says.

The place changes nothing that is computed: rows are read to the device in the same order and the same batches. A mapped file has no name, so
the system removes it when the process ends, however it ends; its room is reserved at once, so that a full disk is an error before any work
and never a torn page later.
"""

import errno
import math
import mmap
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from salq.core import settings
from salq.core.device import GB, available_memory_gb
from salq.core.files import as_resource_error

TOKENS_PER_BATCH = 2048
"""Tokens that a teacher pass takes at once: large enough for matmul speed, small enough for attention maps in float32."""
SHARE = 0.5
"""Of the memory that is free, for activations where no budget is stated; the rest is for a block with its gradients, and for everybody else."""
WITHOUT_RESERVING = {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}
"""What a file system says that cannot reserve room; zeros are written instead."""

Where = Literal["device", "host", "disk"]


@dataclass(frozen=True)
class Placement:
    """Where activations go, how much room they take (10**9 bytes), and why, as one sentence for people."""

    where: Where
    needed_gb: float
    reason: str


def placement(needed_gb: float, device: torch.device, budget_gb: float | None = None, *, taken_gb: float = 0.0) -> Placement:
    """Where `needed_gb` of activations go for work on `device`: there if the budget allows it, else to the host's memory, else to a file.

    budget_gb: the most that they may take on the device; None: half of what is free there. The host's memory is the device's own when that is a
    CPU; beside a GPU it takes them when they fit half of what is free. taken_gb: what else will be loaded on the device before them.
    """
    free = max(0.0, available_memory_gb(device) - taken_gb)
    budget = SHARE * free if budget_gb is None else budget_gb
    what = f"the streams' activations take {needed_gb:.2g} GB and"
    if needed_gb <= budget:
        stated = "half of what is free" if budget_gb is None else f"{budget:.2g} GB, as stated"
        return Placement("device", needed_gb, f"{what} stay on {device} (budget: {stated})")
    why = f"{budget:.2g} GB, {'half of what is free' if budget_gb is None else 'as stated'}"
    if device.type != "cpu":
        on_host = _pinned_gb(needed_gb)
        room = SHARE * available_memory_gb(torch.device("cpu"))
        if on_host <= room:
            return Placement("host", on_host, f"{what} live in the host's memory (budget on {device}: {why})")
        why += f"; the host has room for {room:.2g} GB"
    return Placement("disk", needed_gb, f"{what} live in a file (budget on {device}: {why})")


class Activations:
    """float32 [n, seq, width] in another place than the device that works: rows come there, as a copy of their own, when they are asked for."""

    def __init__(self, values: Float[Tensor, "n seq width"], device: torch.device, mapping: mmap.mmap | None = None) -> None:
        """mapping: the file behind `values`, when there is one."""
        self.device, self.shape = device, values.shape
        self._values, self._mapping = values, mapping

    def __len__(self) -> int:
        """Samples."""
        return self.shape[0]

    def __getitem__(self, rows: Tensor | slice) -> Float[Tensor, "batch seq width"]:
        """The samples `rows` on the device; sample by sample, because a sample is what lies in one piece."""
        chosen = list(range(*rows.indices(len(self)))) if isinstance(rows, slice) else rows.tolist()
        result = torch.empty(len(chosen), *self.shape[1:], device=self.device)
        for position, row in enumerate(chosen):
            result[position].copy_(self._values[row], non_blocking=True)
        self._forget()
        return result

    def __setitem__(self, rows: slice, values: Float[Tensor, "batch seq width"]) -> None:
        """Put the samples of a slice."""
        self._values[rows] = values.to(self._values.device)
        self._forget()

    def _forget(self) -> None:
        """Hand the file's pages back: they are the system's to keep or to write out, not this process's memory."""
        if self._mapping is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._mapping.madvise(mmap.MADV_DONTNEED)


Samples = Float[Tensor, "n seq width"] | Activations
"""Activations of all samples: a plain tensor on the device that works, or rows that come from elsewhere."""


@dataclass(frozen=True)
class FinalStates:
    """What the original makes of `tokens`: `hidden` [n, seq, hidden] in float32 after its last block, before the final norm."""

    tokens: Int64[Tensor, "n seq"]
    hidden: Samples


@dataclass(frozen=True)
class StreamMemory:
    """Makes room for activations that are worked with on `device`, in the place that was chosen."""

    where: Where
    device: torch.device

    def empty(self, *shape: int) -> Samples:
        """Room for float32 [n, seq, width]. Raises ResourceError when the disk refuses."""
        if self.where == "device":
            return torch.empty(shape, device=self.device)
        if self.where == "host":
            return Activations(_on_host(shape, self.device), self.device)
        mapping = mapped(4 * math.prod(shape), settings.home())
        return Activations(torch.frombuffer(mapping, dtype=torch.float32).view(shape), self.device, mapping)


def batches(shape: Sequence[int]) -> Iterator[slice]:
    """Rows of samples [n, seq, ...], as many at once as TOKENS_PER_BATCH allows."""
    rows = max(1, TOKENS_PER_BATCH // shape[1])
    return (slice(start, min(start + rows, shape[0])) for start in range(0, shape[0], rows))


def mapped(size: int, folder: Path) -> mmap.mmap:
    """`size` bytes of a new file without a name on the disk of `folder`, reserved and mapped. Raises ResourceError when the disk refuses."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            _reserve(file, size)
            return mmap.mmap(file.fileno(), size)
    except OSError as error:
        raise as_resource_error(error, folder) from error


def _reserve(file: IO[bytes], size: int) -> None:
    """Take the room now: writing to a page of a sparse file on a full disk would kill the process instead of raising."""
    try:
        os.posix_fallocate(file.fileno(), 0, size)
    except (AttributeError, OSError) as error:  # macOS and Windows lack it, some file systems too
        if isinstance(error, OSError) and error.errno not in WITHOUT_RESERVING:
            raise
        blank = bytes(1 << 20)
        for start in range(0, size, len(blank)):
            file.write(blank[: size - start])
        file.flush()


def _on_host(shape: Sequence[int], device: torch.device) -> Float[Tensor, "n seq width"]:
    """The host's memory, page-locked for a GPU, which then reads it at the full speed of the bus."""
    if device.type == "cuda":
        try:
            return torch.empty(*shape, pin_memory=True)
        except RuntimeError:
            pass  # the driver or a container allows no more locked pages: ordinary ones do, at a lower speed
    return torch.empty(*shape)


def _pinned_gb(needed_gb: float) -> float:
    """What torch takes for page-locked memory: it rounds each array, of which there are up to four, up to a power of two."""
    return 4 * 2.0 ** math.ceil(math.log2(max(needed_gb * GB / 4, 1))) / GB
