"""Time GPU calls of microseconds with a cold second-level cache: many copies of the weight, one CUDA graph of many calls, medians."""

import subprocess
from collections.abc import Callable, Sequence
from statistics import median

import torch
from torch import Tensor

MIN_CALLS = 20
"""Calls in one graph: a graph of one call reads 5 to 7 microseconds too much."""

REPEATS = 9


def copies_for(bytes_of_one: int, device: torch.device) -> int:
    """How many distinct copies push each other out of the second-level cache: together at least four times its size."""
    cache = torch.cuda.get_device_properties(device).L2_cache_size
    return max(2, -(-4 * cache // max(1, bytes_of_one)))


def microseconds_per_call(calls: Sequence[Callable[[Tensor], Tensor]], x: Tensor) -> float:
    """Median over REPEATS replays of one graph that goes through `calls`, as often as it takes for MIN_CALLS, of the time of one call."""
    rounds = -(-MIN_CALLS // len(calls))
    for call in calls:  # compile, and let libraries choose their kernels, before the capture
        call(x)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(rounds):
            for call in calls:
                call(x)
    for _ in range(2):
        graph.replay()
    times = []
    for _ in range(REPEATS):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(1e3 * start.elapsed_time(end) / (rounds * len(calls)))
    return median(times)


def copy_bandwidth(device: torch.device, size: int = 1 << 30) -> float:
    """Measured GB/s of copying 1 GiB on the device: bytes read plus bytes written."""
    source = torch.empty(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    times = []
    for _ in range(2 + REPEATS):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        target.copy_(source)
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) * 1e-3)
    return 2 * size / median(times[2:]) / 1e9


def clocks() -> dict[str, str]:
    """Clocks, power and driver as nvidia-smi says them; empty where it is missing."""
    fields = ("name", "driver_version", "clocks.sm", "clocks.max.sm", "clocks.mem", "power.draw", "power.limit", "temperature.gpu")
    try:
        command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return {}
    first = done.stdout.strip().splitlines()[0] if done.stdout.strip() else ""
    return dict(zip(fields, (value.strip() for value in first.split(",")), strict=False))
