"""What a run was made with: versions, device, threads, processor. Kept beside the run so that its numbers can be repeated."""

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
import torch

import salq
from salq.core.device import GB, DeviceChoice, thread_count

PACKAGES = ("torch", "transformers", "onnxruntime", "triton", "safetensors", "tokenizers", "numpy")


def environment(choice: DeviceChoice) -> dict[str, Any]:
    """JSON values; nothing in it names a user, a folder or a host."""
    found = {
        "salq": salq.__version__,
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
        "device": str(choice.device),
        "device_reason": choice.reason,
        "dtype": str(choice.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "cores": thread_count(),
        "cpu": cpu_name(),
        "memory_gb": round(psutil.virtual_memory().total / GB, 1),
        "system": f"{platform.system()} {platform.machine()}",
    }
    if choice.device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(choice.device)
        found["cuda"] = torch.version.cuda
    return found


def cpu_name() -> str:
    """Name of the processor, as its maker writes it; the architecture when it is not told."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return " ".join(line.partition(":")[2].split())
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
