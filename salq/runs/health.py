"""What of this machine salq can use: Python, packages, torch, GPU, compiler, executors, folders, disk, hub; each with the fix for what does not work.

Light until a check needs torch. A check never raises: what it runs into is its answer.
"""

import importlib
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from salq.core import settings
from salq.core.errors import SalqError
from salq.core.files import atomic_path

State = Literal["ok", "notice", "problem"]
"""ok: works. notice: salq works without it, or as well. problem: salq cannot work at all."""

GB = 1e9
LOW_DISK_GB = 2.0
LOW_MEMORY_GB = 2.0
PROBE = 128
"""Outputs and inputs of the matrix that every executor multiplies with."""
ALLOWED_ERROR = 0.05
"""Relative, to the reference: far above what activations and scales in bfloat16 cost, far below another order of inputs."""
WRONG = "Its results are not those of the reference: choose another one with --executor, and please report it."
INSTALL = "pip install -r requirements.txt -c constraints.txt (or `make setup`)"
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;#]+)")
_REQUIRED = re.compile(r"^([A-Za-z0-9._-]+)\s*([^;#]*)(?:;\s*(.*?))?\s*$")


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: what was found, and what to do when it is not as it should be."""

    name: str
    state: State
    found: str
    fix: str = ""

    def to_json(self) -> dict[str, str]:
        """JSON object."""
        return asdict(self)


def checks() -> Iterator[Check]:
    """All checks, those first without which nothing works. Takes a few seconds: torch is imported, every executor computes a small product."""
    for look in LOOKS:
        try:
            yield from look()
        except Exception as error:  # noqa: BLE001 - a diagnosis goes on whatever is broken
            yield Check(look.__name__.strip("_"), "problem", f"{type(error).__name__}: {error}", "This is a bug in salq; please report it.")


def works(found: list[Check]) -> bool:
    """Whether salq can work at all."""
    return all(check.state != "problem" for check in found)


def _python() -> Iterator[Check]:
    recent = sys.version_info >= (3, 11)
    yield Check("python", "ok" if recent else "problem", platform.python_version(), "" if recent else "Use Python 3.11 or newer.")


def _packages() -> Iterator[Check]:
    """Installed versions against requirements.txt and constraints.txt, where the checkout has them."""
    required, pins = _requirements(settings.ROOT / "requirements.txt"), _pins(settings.ROOT / "constraints.txt")
    if not required:
        yield Check("packages", "notice", "requirements.txt is not here to compare with")
        return
    missing, outside, other = [], [], []
    for name, bounds in required.items():
        have = _version(name)
        if have is None:
            missing.append(name)
        elif not within(have, bounds):
            outside.append(f"{name} {have} (needed {bounds})")
        elif name in pins and have.partition("+")[0] != pins[name]:
            other.append(f"{name} {have} (tested with {pins[name]})")
    if missing:
        yield Check("packages", "problem", f"not installed: {', '.join(missing)}", INSTALL)
    if outside:
        yield Check("versions", "problem", ", ".join(outside), INSTALL)
    if other:
        yield Check("versions", "notice", ", ".join(other), f"These may work; the tested versions come with {INSTALL}.")
    if not (missing or outside or other):
        yield Check("packages", "ok", f"all {len(required)} required packages, in the tested versions")


def _torch() -> Iterator[Check]:
    try:
        torch = importlib.import_module("torch")
        product = torch.eye(3) @ torch.ones(3, 1)
        assert float(product.sum()) == 3.0  # noqa: PLR2004 - three ones
    except Exception as error:  # noqa: BLE001 - a broken installation raises anything
        yield Check("torch", "problem", f"does not work: {type(error).__name__}: {error}", INSTALL)
        return
    from salq.core.device import thread_count

    yield Check("torch", "ok", f"{torch.__version__}, {torch.get_num_threads()} threads on {thread_count()} usable cores")
    yield from _gpu(torch)


def _gpu(torch: Any) -> Iterator[Check]:
    if torch.cuda.is_available():
        names = [
            f"cuda:{index} {torch.cuda.get_device_name(index)}, {torch.cuda.mem_get_info(index)[0] / GB:.1f} GB free"
            for index in range(torch.cuda.device_count())
        ]
        yield Check("gpu", "ok", "; ".join(names))
    elif torch.version.cuda is None:
        yield Check(
            "gpu", "notice", "none: this torch is a CPU build", "With an NVIDIA GPU, install a CUDA build of torch; without one, all is well."
        )
    else:
        yield Check("gpu", "notice", "none answers", "With an NVIDIA GPU, check that `nvidia-smi` lists it and that its driver fits this torch.")
    yield from _triton(torch.cuda.is_available())


def _triton(has_gpu: bool) -> Iterator[Check]:
    have = _version("triton")
    if have is None:
        yield Check("triton", "notice", "not installed", f"It is used on a GPU only: {INSTALL}." if has_gpu else "")
    else:
        yield Check("triton", "ok", have if has_gpu else f"{have}, used once there is a GPU")
    compiler = settings.c_compiler()
    if compiler is not None:
        yield Check("compiler", "ok", Path(compiler).name)
    else:
        fix = "Install gcc or clang, or point CC at one: Triton starts its kernels with it." if has_gpu else ""
        yield Check("compiler", "notice", "no C compiler" + ("" if has_gpu else "; needed with a GPU only"), fix)


def _executors() -> Iterator[Check]:
    """Every executor computes a small product with 4-bit codes, which is compared with the reference's."""
    import torch

    from salq.core.device import choose_device
    from salq.kernels.executors import EXECUTORS
    from salq.kernels.linear import QuantLinear
    from salq.quant.frozen import rtn
    from salq.quant.spec import QuantSpec

    choice = choose_device()
    generator = torch.Generator().manual_seed(0)
    frozen = rtn(torch.randn(PROBE, PROBE, generator=generator), QuantSpec(bits=4, group_size=64)).to(choice.device)
    x = torch.randn(1, PROBE, generator=generator).to(choice.device, choice.dtype)  # not all alike: inputs in another order must show
    with torch.no_grad():
        want = QuantLinear(frozen, None)(x).float()
    for executor in EXECUTORS:
        name = f"executor {executor.name}"
        if executor.device not in {choice.device.type, "any"}:
            continue
        why = executor.refusal(frozen, choice.device, choice.dtype)
        if why is not None:
            yield Check(name, "notice", why, "The next executor takes over; nothing else changes.")
            continue
        try:
            with torch.no_grad():
                got = executor.build([frozen], [None])(x).float()
            error = float((got - want).norm() / want.norm())
        except Exception as error_found:  # noqa: BLE001 - a driver, a compiler or a library may fail in any way
            yield Check(name, "notice", f"failed: {' '.join(str(error_found).split())[:160]}", "The next executor takes over; reinstall its library.")
            continue
        bad = not error < ALLOWED_ERROR
        yield Check(name, "notice" if bad else "ok", f"on {choice.device}, relative error {error:.1e} to the reference", WRONG if bad else "")


def _folders() -> Iterator[Check]:
    """salq's home can be written, and has room."""
    home = settings.home()
    fix = "Point SALQ_HOME at a folder that you may write to."
    try:
        with atomic_path(home / ".doctor") as probe:
            probe.write_bytes(b"salq")
        (home / ".doctor").unlink(missing_ok=True)  # another doctor may look at the same time
    except SalqError as error:
        yield Check("cache folder", "problem", str(error), fix)
        return
    except OSError as error:
        yield Check("cache folder", "problem", f"{home}: {error.strerror or error}", fix)
        return
    yield Check("cache folder", "ok", str(home))
    free = shutil.disk_usage(home).free / GB
    low = free < LOW_DISK_GB
    yield Check("disk", "notice" if low else "ok", f"{free:.1f} GB free", "Free some space or point SALQ_HOME at another disk." if low else "")


def _memory() -> Iterator[Check]:
    import torch

    from salq.core.device import available_memory_gb

    free = available_memory_gb(torch.device("cpu"))
    low = free < LOW_MEMORY_GB
    yield Check("memory", "notice" if low else "ok", f"{free:.1f} GB free", "Close other programs, or choose a small model." if low else "")


def _hub() -> Iterator[Check]:
    """Whether the model hub answers; says whether there is a token, never which."""
    from salq.core.network import hub_answers

    token = "a token is set" if settings.has_hub_token() else "no token, so gated models are refused"
    if settings.hub_is_disabled():
        yield Check("hub", "notice", "switched off by HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE", "Unset it to fetch models and texts.")
    elif hub_answers():
        yield Check("hub", "ok", f"{settings.hub_endpoint()} answers; {token}")
    else:
        fix = "The default model then comes from the package index, or name a local folder; HF_ENDPOINT points at a mirror."
        yield Check("hub", "notice", f"{settings.hub_endpoint()} does not answer", fix)


def _models() -> Iterator[Check]:
    from salq.models.catalogue import CATALOGUE, DEFAULT_MODEL
    from salq.models.source import is_local

    here = [key for key in CATALOGUE if is_local(key)]
    state: State = "ok" if DEFAULT_MODEL in here else "notice"
    fix = "" if DEFAULT_MODEL in here else f"The first use of {DEFAULT_MODEL} fetches it."
    yield Check("models", state, f"on this machine: {', '.join(here) or 'none yet'}", fix)


def _store() -> Iterator[Check]:
    from salq.runs.store import RunStore

    runs = RunStore(settings.runs_dir()).list()
    damaged = [info.id for info in runs if info.status == "unreadable"]
    fix = f"`python -m salq runs delete {damaged[0]}` removes it; its finished blocks stay until then." if damaged else ""
    active = sum(info.is_active for info in runs)
    yield Check("runs", "notice" if damaged else "ok", f"{len(runs)} runs, {active} active, {len(damaged)} that cannot be read", fix)


LOOKS: tuple[Callable[[], Iterator[Check]], ...] = (_python, _packages, _folders, _torch, _memory, _executors, _hub, _models, _store)


def within(have: str, bounds: str) -> bool:
    """Whether a version lies within bounds such as `>=6.20,<7`; parts that are not numbers are passed over."""
    mine = _numbers(have)
    for bound in filter(None, (part.strip() for part in bounds.split(","))):
        match = re.match(r"(>=|<=|==|<|>)\s*(.+)", bound)
        if match is None:
            continue
        sign, other = match[1], _numbers(match[2])
        size = max(len(mine), len(other))
        left, right = (part + (0,) * (size - len(part)) for part in (mine, other))
        if not {">=": left >= right, "<=": left <= right, "==": left == right, "<": left < right, ">": left > right}[sign]:
            return False
    return True


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text.partition("+")[0])[:4])


def _requirements(path: Path) -> dict[str, str]:
    """{name: bounds} of what this system needs."""
    found = {}
    for line in _lines(path):
        match = _REQUIRED.match(line)
        if match and (match[3] is None or sys.platform in match[3]):
            found[match[1]] = match[2].strip()
    return found


def _pins(path: Path) -> dict[str, str]:
    return {match[1]: match[2] for line in _lines(path) if (match := _PIN.match(line))}


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        return []
    return [line for raw in text.splitlines() if (line := raw.partition("#")[0].strip())]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
