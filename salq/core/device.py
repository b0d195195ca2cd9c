"""Which device works, in which dtype, and how much memory there really is. The reason is always said to the user."""

import ctypes
import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from salq.core.errors import ConfigError, ResourceError

GB = 1e9
HEAD_BYTES = 200e6
"""Bytes of temporaries with a vocabulary axis that exist at once, whatever the vocabulary and the text: logits are made for so many tokens at a time.
The product with the output head takes a fifth less time for 250 tokens at once than for 100."""
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""Parameters of glibc's mallopt(3)."""


@dataclass(frozen=True)
class DeviceChoice:
    """A device, the dtype that salq computes in on it, and why."""

    device: torch.device
    dtype: torch.dtype
    reason: str


def choose_device(wanted: str = "auto") -> DeviceChoice:
    """Resolve `auto`, `cpu`, `cuda` or `cuda:N`.

    float32 on the CPU (bfloat16 matmul is many times slower there on most machines), bfloat16 on CUDA.
    Raises ConfigError for a device that this machine or this build of torch does not have.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted == "auto":
        if count:
            free = [torch.cuda.mem_get_info(index)[0] for index in range(count)]
            best = max(range(count), key=free.__getitem__)
            return _cuda(best, f"auto: {torch.cuda.get_device_name(best)} has the most free memory ({free[best] / GB:.1f} GB)")
        why = "this torch is a CPU build" if torch.version.cuda is None else "no CUDA GPU answers"
        return _cpu(f"auto: {why}, so {torch.get_num_threads()} CPU threads work, in float32")
    if wanted == "cpu":
        return _cpu(f"chosen: {torch.get_num_threads()} CPU threads, in float32")
    name, _, index = wanted.partition(":")
    if name == "cuda" and (index.isdecimal() or not index):
        number = int(index or 0)
        if number < count:
            return _cuda(number, f"chosen: {torch.cuda.get_device_name(number)}")
        have = f"this machine has cuda:0 to cuda:{count - 1}" if count else "no CUDA GPU answers here"
        raise ConfigError(f"Device {wanted!r} is not available: {have}; use auto or cpu.")
    raise ConfigError(f"Device {wanted!r} is not known; use auto, cpu or cuda:N (for example cuda:0).")


def available_devices() -> list[tuple[str, str]]:
    """(value, label) of every choice on this machine, `auto` first."""
    found = [("auto", f"auto ({choose_device().device})"), ("cpu", "cpu")]
    if torch.cuda.is_available():
        found += [(f"cuda:{i}", f"cuda:{i} ({torch.cuda.get_device_name(i)})") for i in range(torch.cuda.device_count())]
    return found


def process_memory_gb() -> float:
    """True memory of this process in GB: proportional set size on Linux (shared pages counted once), resident size elsewhere."""
    rollup = Path("/proc/self/smaps_rollup")
    try:
        for line in rollup.read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024 / GB
    except OSError:
        pass
    return psutil.Process().memory_info().rss / GB


def available_memory_gb(device: torch.device) -> float:
    """Memory that a new allocation could still take on `device`, in GB; a container's own limit counts."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] / GB
    free = psutil.virtual_memory().available
    for limit, used in (("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),):
        try:
            free = min(free, int(Path(limit).read_text()) - int(Path(used).read_text()))
        except (OSError, ValueError):  # no cgroup, or "max"
            continue
    return free / GB


class PeakMemory:
    """Highest memory in GB between its creation and `gb()`: the allocator's peak on CUDA, the process's high-water mark on CPU."""

    def __init__(self, device: torch.device) -> None:
        """Start measuring. What earlier work in this process freed is handed back, and on Linux the kernel's high-water mark is reset."""
        self._device = device
        release_memory()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            return
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            pass  # not Linux, or not allowed: the mark then covers the whole life of the process

    def gb(self) -> float:
        """The peak so far."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) / GB
        try:
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024 / GB
        except OSError:
            pass
        return psutil.Process().memory_info().rss / GB


@contextmanager
def out_of_memory_as_error(what: str) -> Iterator[None]:
    """Turn CUDA's and the host's out-of-memory into one sentence, and give the cached memory back.

    Never wrap a `yield` of a generator in it: the mode would leak into the consumer.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        release_memory()
        raise ResourceError(
            f"{what} needs more memory than is free on this device; choose a smaller model, fewer or shorter samples, or another device."
        ) from error


@contextmanager
def step_precision(device: torch.device) -> Iterator[None]:
    """For an optimizer's step: on CUDA, float32 products round their factors to TF32, 10 bits of mantissa, and add in float32.

    As many bits as the float16 in which ApiQ's and SAPR's released code trains, without its small range. On a CPU nothing changes.
    Never wrap a `yield` of a generator in it.
    """
    before = torch.get_float32_matmul_precision()
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def release_memory() -> None:
    """Drop garbage, and hand back what the allocators of the GPU and of the C library keep for later."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)  # glibc keeps freed weights otherwise: 180 MB after loading a quantized model of two wide blocks
    except (OSError, AttributeError, TypeError):
        pass  # another C library
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def keep_freed_memory() -> None:
    """Let glibc's allocator keep what is freed for the next request, until `release_memory`; does nothing with another C library.

    A step of an optimizer or of a scoring frees and asks for the same tens of megabytes again and again; handed back to the kernel each time, they
    come back as page faults, a fifth of the time of a step.
    """
    try:
        c_library = ctypes.CDLL(None)
        c_library.mallopt(_M_MMAP_MAX, 0)
        c_library.mallopt(_M_TRIM_THRESHOLD, 1 << 30)
    except (OSError, AttributeError, TypeError):
        pass


def thread_count() -> int:
    """CPU cores that this process may really use (affinity, not the machine's total)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def _cpu(reason: str) -> DeviceChoice:
    return DeviceChoice(torch.device("cpu"), torch.float32, reason)


def _cuda(index: int, reason: str) -> DeviceChoice:
    return DeviceChoice(torch.device("cuda", index), torch.bfloat16, f"{reason}, in bfloat16")
