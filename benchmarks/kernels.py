"""Measure the GPU kernels against every contender in one process, check them, compile them for GPUs that are not here, or try other settings.

python benchmarks/kernels.py --shape 4096x4096 --m 1 --json benchmarks/results/kernels-4096x4096.json      (a CUDA GPU)
python benchmarks/kernels.py --check --json ...       the list of the tests, on the GPU
python benchmarks/kernels.py --sweep --shape ...      other settings than the shipped ones
python benchmarks/kernels.py --compile --json ...     registers, spills, instructions per weight (--full: of all variants); needs triton and no GPU
python benchmarks/kernels.py --dry                    who would take part, and how many bytes each reads; measures nothing
"""

import argparse
import importlib.metadata
import json
import math
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.gpu_timing import clocks, copies_for, copy_bandwidth, microseconds_per_call  # noqa: E402 - the checkout is put on the path first
from benchmarks.kernel_contenders import Contender, Matrix, Unavailable, makers, ours  # noqa: E402
from salq.core.files import write_json  # noqa: E402
from salq.kernels.triton_configs import KernelConfig  # noqa: E402
from salq.kernels.triton_linear import TritonLinear, refusal  # noqa: E402

LLAMA_2_7B = ("12288x4096", "4096x4096", "22016x4096", "4096x11008")
"""Merged q, k and v; o; merged gate and up; down."""

TOLERANCE = {torch.float16: 2e-3, torch.bfloat16: 1.5e-2}
"""Relative Frobenius error above which a contender is wrong and is not timed; bfloat16 rounds x, scale and offset too."""


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    started = time.time()
    rows = work(options)
    result = {"command": " ".join(["python", "benchmarks/kernels.py", *(sys.argv[1:] if arguments is None else arguments)]), **machine(options)}
    result |= {"seconds": round(time.time() - started, 1), "units": UNITS, "rows": rows}
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        write_json(options.json, result)
    return 1 if any((row.get("wrong") or row.get("failed")) and not row["name"].startswith(OTHERS) for row in rows) else 0


OTHERS = ("cuBLAS", "torch", "gemlite")
"""Contenders that are not ours: theirs may be wrong or fail without failing the run."""

UNITS = {
    "microseconds": "median of 9 replays of a CUDA graph of 20 or more calls, per call, each call on another copy of the weight (cold cache)",
    "gb_per_s": "bytes that a call must read of the weight (codes, scale, zero point, adapter) per second",
    "share_of_copy": "gb_per_s as a share of the measured bandwidth of a copy on the same GPU in the same process",
    "error": "relative Frobenius error against float64",
    "weights": "random",
}


def work(options: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of the result, printed as they come."""
    if options.compile:
        return compiled(options.capability, options.full)
    if options.dry:
        return planned(options)
    device = torch.device(options.device)
    if device.type != "cuda" or not torch.cuda.is_available():
        raise SystemExit("kernels.py measures CUDA kernels and no GPU answers here; use --dry or --compile, which need none.")
    with torch.no_grad():
        if options.check:
            return checked(device)
        return [row for shape in options.shape for row in (swept if options.sweep else measured)(shape, options, device)]


def measured(shape: tuple[int, int], options: argparse.Namespace, device: torch.device) -> list[dict[str, Any]]:
    """Every contender on one shape, for every number of rows of x: correctness first, then time."""
    matrix, copy, rows = Matrix(shape, device), copy_bandwidth(device), []
    for name, make in makers(matrix):
        if options.only and not any(word in name for word in options.only):
            continue
        try:
            rows += timed(make(), shape, options.m, copy, device)
        except Unavailable as reason:
            rows.append(said({"name": name, "shape": shape, "unavailable": str(reason)}))
        except Exception as error:  # noqa: BLE001 - one contender's failure is a row, not the end of the others
            rows.append(said({"name": name, "shape": shape, "failed": f"{type(error).__name__}: {error}"}))
        torch.cuda.empty_cache()
    return rows


def swept(shape: tuple[int, int], options: argparse.Namespace, device: torch.device) -> list[dict[str, Any]]:
    """Our kernels at every width under other settings; what does not compile is a row that says so."""
    matrix, copy, rows = Matrix(shape, device), copy_bandwidth(device), []
    for bits in (2, 3, 4):
        for config in settings(device):
            try:
                rows += timed(ours(matrix, bits, adapter=False, config=config), shape, options.m, copy, device, config.model_dump())
            except Unavailable as reason:
                rows.append(said({"name": f"salq {bits}-bit", "shape": shape, "config": config.model_dump(), "unavailable": str(reason)}))
            except Exception as error:  # noqa: BLE001 - too many registers or too much shared memory is a finding of a sweep
                rows.append(
                    said({"name": f"salq {bits}-bit", "shape": shape, "config": config.model_dump(), "failed": f"{type(error).__name__}: {error}"})
                )
    return rows


def settings(device: torch.device) -> list[KernelConfig]:
    """What a sweep tries: rows and warps of a program, and where the GPU can do it, launches that overlap."""
    overlaps = (False, True) if torch.cuda.get_device_capability(device) >= (9, 0) else (False,)
    return [KernelConfig(rows=rows, warps=warps, overlap=overlap) for rows in (2, 4, 8) for warps in (1, 2, 4) for overlap in overlaps]


def timed(one: Contender, shape: tuple[int, int], ms: list[int], copy: float, device: torch.device, config: object = None) -> list[dict[str, Any]]:
    """Rows for one contender, one per number of rows of x."""
    calls = [one.make() for _ in range(copies_for(one.read_bytes, device))]
    rows = []
    for m in ms:
        x = torch.randn(m, shape[1], generator=torch.Generator(device=device).manual_seed(m), device=device).to(one.dtype)
        error = relative_error(calls[-1](x), one.want(x))
        row: dict[str, Any] = {"name": one.name, "shape": shape, "m": m, "error": finite(error), "read_bytes": one.read_bytes, "copies": len(calls)}
        if config is not None:
            row["config"] = config
        if not error <= TOLERANCE[one.dtype]:
            rows.append(said({**row, "wrong": True}))
            continue
        spent = microseconds_per_call(calls, x)
        rate = one.read_bytes / spent / 1e3
        rows.append(
            said(
                {
                    **row,
                    "microseconds": round(spent, 2),
                    "gb_per_s": round(rate, 1),
                    "share_of_copy": round(rate / copy, 4),
                    "copy_gb_per_s": round(copy, 1),
                }
            )
        )
    return rows


def checked(device: torch.device) -> list[dict[str, Any]]:
    """The list of tests/kernel_cases.py, and every number of rows up to 9 on a large matrix.

    Each also for equal results of two runs, and of launches that overlap where the GPU can do that.
    """
    from tests.kernel_cases import TOLERANCE as LIMITS
    from tests.kernel_cases import Case, cases, frozen_of, inputs_of, product

    large = [Case(bits, 64, dtype, (1032, 11008), m, 64, symmetric=False) for bits in (2, 3, 4, 8) for dtype in LIMITS for m in (*range(1, 10), 33)]
    rows = []
    for case in [*cases(), *large]:
        frozen, (x, bias) = frozen_of(case, str(device)), inputs_of(case, str(device))
        if reason := refusal(frozen, device, case.dtype):
            rows.append(said({"name": str(case), "wrong": True, "refused": reason}))
            continue
        linear = TritonLinear(frozen, bias)
        got = linear(x)
        error, equal = relative_error(got, product(frozen, x, bias)), torch.equal(got, linear(x))
        if torch.cuda.get_device_capability(device) >= (9, 0):
            overlapping = TritonLinear(frozen, bias, linear.config.model_copy(update={"overlap": True}))
            equal = equal and all(torch.equal(overlapping(x * sign), linear(x * sign)) for sign in (1, -1, 2))
        rows.append(said({"name": str(case), "error": finite(error), "equal_runs": equal, "wrong": not (error <= LIMITS[case.dtype] and equal)}))
    return rows


def compiled(capabilities: list[int], full: bool) -> list[dict[str, Any]]:
    """Every shipped kernel for every capability: for one usual matrix at every width, or in full for every group size, dtype and row length."""
    from salq.kernels.triton_compile import compile_variant, shipped, shipped_in_full

    rows = []
    for variant in shipped_in_full() if full else shipped():
        for capability in capabilities:
            one = compile_variant(variant, capability)
            rows.append(said({**one.model_dump(), "name": f"{one.kernel} {one.bits}-bit", "wrong": one.stack_bytes > 0}))
    return rows


def planned(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Contenders and shapes, without building or measuring anything."""
    names = [name for name, _ in makers(Matrix((64, 128), torch.device("cpu"))) if not options.only or any(word in name for word in options.only)]
    return [said({"name": name, "shape": shape, "m": options.m, "planned": True}) for shape in options.shape for name in names]


def relative_error(got: torch.Tensor, want: torch.Tensor) -> float:
    """Frobenius norm of the difference over that of `want`."""
    return float((got.double() - want).norm() / want.norm())


def finite(error: float) -> float | None:
    """`error`, or None for NaN and infinity, which JSON does not have."""
    return error if math.isfinite(error) else None


def machine(options: argparse.Namespace) -> dict[str, Any]:
    """Versions, GPU and clocks."""
    versions = {name: version_of(name) for name in ("torch", "triton", "gemlite", "pydantic")}
    gpu = None
    if torch.cuda.is_available() and not options.compile:
        found = torch.cuda.get_device_properties(torch.device(options.device if options.device != "cpu" else "cuda"))
        gpu = {
            "name": found.name,
            "multiprocessors": found.multi_processor_count,
            "l2_bytes": found.L2_cache_size,
            "memory_bytes": found.total_memory,
        }
    return {"python": platform.python_version(), "versions": versions, "cuda": torch.version.cuda, "gpu": gpu, "clocks": clocks() if gpu else {}}


def version_of(name: str) -> str | None:
    """The installed version, or None."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def said(row: dict[str, Any]) -> dict[str, Any]:
    """`row`, printed on one line."""
    print(json.dumps(row), flush=True)
    return row


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="cuda", help="cuda or cuda:N (default cuda)")
    parser.add_argument("--shape", type=shape_of, nargs="+", default=[shape_of(text) for text in LLAMA_2_7B], help="OUTxIN, such as 4096x11008")
    parser.add_argument("--m", type=int, nargs="+", default=[1], help="rows of x (default 1)")
    parser.add_argument("--only", nargs="+", help="contenders whose name contains one of these words")
    parser.add_argument("--capability", type=int, nargs="+", default=[80, 89, 90], help="targets of --compile (default 80 89 90)")
    parser.add_argument(
        "--full", action="store_true", help="--compile: every group size, dtype, zero point and row length too (some 280 compilations)"
    )
    parser.add_argument("--json", type=Path, help="file to write the result to")
    actions: dict[str, str] = {
        "--check": "compare with float64 on the list of the tests", "--sweep": "try other settings than the shipped ones",
        "--compile": "compile for --capability, without a GPU", "--dry": "say what would be measured",
    }  # fmt: skip
    group = parser.add_mutually_exclusive_group()
    for name, text in actions.items():
        group.add_argument(name, action="store_true", help=text)
    return parser.parse_args(arguments)


def shape_of(text: str) -> tuple[int, int]:
    """(out, in) from OUTxIN."""
    rows, sign, columns = text.partition("x")
    if not (sign and rows.isdigit() and columns.isdigit() and int(rows) and int(columns)):
        raise argparse.ArgumentTypeError(f"{text!r} is not OUTxIN, such as 4096x11008")
    return int(rows), int(columns)


if __name__ == "__main__":
    raise SystemExit(main())
