"""Kills, cuts, full disks and clock jumps at random points of a calibration: the store still lists, finished blocks stay, resumed codes are equal.

    python benchmarks/crashes.py --points 200             about ten minutes on one core; goes on where it was interrupted

Every point is a whole small calibration that is disturbed once in a process of its own, and resumed in another. Point N is always the same one.
"""

import argparse
import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ["OMP_NUM_THREADS"] = "1"  # a child that is forked from a process with OpenMP's threads waits for them forever

import numpy as np  # noqa: E402 - the checkout is put on the path first
import torch._dynamo  # noqa: E402, F401 - the first step of an optimizer would import it in every child

from benchmarks.reliability import RESULT, record, section  # noqa: E402
from salq import recipes  # noqa: E402
from salq.core import events as ev  # noqa: E402
from salq.core.errors import SalqError  # noqa: E402
from salq.models.llama import load_model  # noqa: E402
from salq.models.tiny import save_tiny  # noqa: E402
from salq.runs import work  # noqa: E402, F401 - imported once, so that no child has to
from salq.runs.execute import execute  # noqa: E402
from salq.runs.plan import plan  # noqa: E402
from salq.runs.repeat import codes_hash, is_whole  # noqa: E402
from salq.runs.requests import CalibrateRequest  # noqa: E402
from salq.runs.store import RunStore  # noqa: E402

N_BLOCKS = 3
DISK_MB = 64
FILE_OPERATIONS = {"open", "os.rename", "os.remove", "os.mkdir", "os.truncate", "os.chmod"}
YEAR = 365 * 86400.0
JUMPS = (-30 * YEAR, -3600.0, -1.0, 1.0, 3600.0, 30 * YEAR)
SIZES = {"apiq": {"rank": 2, "epochs": 1, "data.n_samples": 2, "data.seq_len": 16}}
SIZES["salq"] = {
    **SIZES["apiq"],
    "distillation.steps": 2, "distillation.n_samples": 2, "distillation.seq_len": 16,
}  # fmt: skip
TEXT = "A block that is finished stays finished, whatever happens to the power, the disk, the clock or the person at the keyboard. "


@dataclass
class Point:
    """One disturbance and what came of it. `problem` is empty when everything held."""

    number: int
    kind: str
    recipe: str
    detail: str = ""
    status: str = ""
    finished: int = 0
    problem: str = ""
    seconds: float = field(default=0.0)


class Bench:
    """A tiny model, a text and, per recipe, the hash of the codes of a run that nothing disturbed."""

    def __init__(self, folder: Path) -> None:
        """Make the model and the undisturbed runs; `folder` must be empty."""
        self.folder = folder
        self.model = save_tiny(folder / "model", "smollm2-135m", n_blocks=N_BLOCKS)
        self.text = folder / "text.txt"
        self.text.write_text(TEXT * 30)
        os.environ["SALQ_HOME"] = str(folder / "home")
        plan(self.request("apiq"))  # measures this machine, and
        load_model(str(self.model), device="cpu")  # imports what a model needs, once for all children
        self.whole: dict[str, str] = {}
        self.spans: dict[str, float] = {}
        self.operations: dict[str, int] = {}
        for recipe in SIZES:
            self._undisturbed(recipe)

    def request(self, recipe: str) -> CalibrateRequest:
        """The small calibration."""
        made = recipes.get(recipe, bits=2, group_size=32, overrides=SIZES[recipe])
        evaluation = {"text": str(self.text), "windows": 1, "window": 16}
        return CalibrateRequest(model=str(self.model), text=str(self.text), device="cpu", recipe=made, evaluation=evaluation)  # type: ignore[arg-type]

    def _undisturbed(self, recipe: str) -> None:
        store = RunStore(self.folder / f"whole-{recipe}")
        run_id = store.create(self.request(recipe))
        counted = self.folder / "operations"
        started = time.monotonic()
        in_child(store, run_id, lambda: _count_operations(store.root, counted))
        self.spans[recipe] = time.monotonic() - started
        self.operations[recipe] = int(counted.read_text())
        found = codes_hash(store.result_folder(run_id), N_BLOCKS)
        assert found is not None, store.get(run_id).problem
        self.whole[recipe] = found

    def point(self, number: int, kinds: tuple[str, ...]) -> Point:
        """Disturb a run at the place that `number` stands for, look, resume it, look again."""
        generator = np.random.default_rng([7, number])
        kind = kinds[number % len(kinds)]
        recipe = "salq" if generator.random() < 0.25 else "apiq"  # noqa: PLR2004 - a quarter has an end-to-end pass
        point = Point(number, kind, recipe)
        root = self.folder / f"point-{number}"
        started = time.monotonic()
        try:
            self._disturb_and_resume(point, root, generator)
        except (AssertionError, SalqError, OSError) as error:
            point.problem = f"{type(error).__name__}: {error}"[:300]
        finally:
            shutil.rmtree(root, ignore_errors=True)
        point.seconds = time.monotonic() - started
        return point

    def _disturb_and_resume(self, point: Point, root: Path, generator: np.random.Generator) -> None:
        with tempfile.TemporaryDirectory(dir=self.folder) as mount, _place(point, root, Path(mount)) as place:
            store = RunStore(place)
            run_id = store.create(self.request(point.recipe))
            DISTURB[point.kind](self, store, run_id, point, generator)
            if place != root:  # the full disk: everything moves to one with room, as a person would do it
                shutil.copytree(place, root, ignore_dangling_symlinks=True)
        self._check(RunStore(root), run_id, point)

    def _check(self, store: RunStore, run_id: str, point: Point) -> None:
        listed = [info for info in store.list() if info.id == run_id]
        assert len(listed) == 1, "the store does not list the run"
        point.status = listed[0].status
        assert point.status not in {"running", "queued", "unreadable"}, f"the run is told to be {point.status}"
        before = _whole_blocks(store, run_id)
        point.finished = len(before)
        seen = len(store.events(run_id))
        if not is_whole(store, run_id):
            code = in_child(store, run_id, _nothing)
            assert code == 0, f"the resumed process ended with {code}"
        info = store.get(run_id)
        assert info.status == "done", f"after resume: {info.status}: {info.problem}"
        after = store.events(run_id)[seen:]
        again = {event.block for event in after if isinstance(event, ev.BlockStarted) and not event.stored}
        assert not again & set(before), f"finished blocks {sorted(again & set(before))} were computed again"
        assert not list(store.folder(run_id).rglob(".*")), "what was half written is still there"
        now = _whole_blocks(store, run_id)
        assert {index: now.get(index) for index in before} == before, "a finished block changed"
        for index in range(N_BLOCKS):
            store.result(run_id).load(index)
        assert codes_hash(store.result_folder(run_id), N_BLOCKS) == self.whole[point.recipe], "the codes are not those of an undisturbed run"


def in_child(store: RunStore, run_id: str, prepare: Callable[[], None], *, kill_after: float | None = None) -> int:
    """Work on the run in a forked process; returns its exit status (negative: the signal that ended it)."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            prepare()
            for _ in execute(store, run_id, role="worker"):
                pass
            code = 0
        except SalqError:
            code = 2
        finally:
            os._exit(code)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def _writes(root: Path, event: str, arguments: tuple[Any, ...]) -> bool:
    """Whether an audit event is a file operation below `root` that changes something."""
    if event not in FILE_OPERATIONS or not str(arguments[0]).startswith(str(root)):
        return False
    return event != "open" or bool((arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR))


def _at_operation(root: Path, number: int, act: Callable[[], None]) -> None:
    """Call `act` before the file operation of that number (1 is the first) below `root`, reads left out."""
    count, done = 0, False

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count, done
        if done or not _writes(root, event, arguments):
            return
        count += 1
        if count >= number:
            done = True
            act()

    sys.addaudithook(hook)


def _count_operations(root: Path, result: Path) -> None:
    count = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if not _writes(root, event, arguments):
            return
        count += 1
        if count % 5 == 0:
            result.write_text(str(count))

    result.write_text("0")
    sys.addaudithook(hook)


def _nothing() -> None:
    """An undisturbed child."""


def _kill_at_operation(bench: Bench, store: RunStore, run_id: str, point: Point, generator: np.random.Generator) -> None:
    number = int(generator.integers(1, bench.operations[point.recipe] + 1))
    point.detail = f"before file operation {number} of about {bench.operations[point.recipe]}"
    in_child(store, run_id, lambda: _at_operation(store.root, number, lambda: os.kill(os.getpid(), signal.SIGKILL)))


def _kill_at_time(bench: Bench, store: RunStore, run_id: str, point: Point, generator: np.random.Generator) -> None:
    seconds = float(generator.uniform(0, bench.spans[point.recipe]))
    point.detail = f"after {seconds:.3f} s of about {bench.spans[point.recipe]:.3f} s"
    in_child(store, run_id, _nothing, kill_after=seconds)


def _cut(bench: Bench, store: RunStore, run_id: str, point: Point, generator: np.random.Generator) -> None:
    """A run that is over, or was killed somewhere, loses the end of one of its files."""
    if generator.random() < 0.5:  # noqa: PLR2004 - half of them were interrupted before
        _kill_at_operation(bench, store, run_id, point, generator)
    else:
        in_child(store, run_id, _nothing)
    files = sorted(path for path in store.folder(run_id).rglob("*") if path.is_file() and path.stat().st_size)
    path = files[int(generator.integers(len(files)))]
    size = int(generator.integers(path.stat().st_size))
    point.detail = f"{path.relative_to(store.folder(run_id))} cut to {size} of {path.stat().st_size} bytes"
    os.truncate(path, size)


def _no_space(bench: Bench, store: RunStore, run_id: str, point: Point, generator: np.random.Generator) -> None:
    """One file operation is refused with ENOSPC."""
    number = int(generator.integers(1, bench.operations[point.recipe] + 1))
    point.detail = f"ENOSPC at file operation {number}"

    def refuse() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(store.root))

    in_child(store, run_id, lambda: _at_operation(store.root, number, refuse))


def _short_files(bench: Bench, store: RunStore, run_id: str, point: Point, generator: np.random.Generator) -> None:
    """No file may grow beyond some bytes: the write that would is refused by the kernel after its first part."""
    most = int(np.exp(generator.uniform(np.log(100), np.log(120_000))))
    point.detail = f"files end at {most} bytes"
    in_child(store, run_id, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)))


def _full_disk(bench: Bench, store: RunStore, run_id: str, point: Point, generator: np.random.Generator) -> None:
    """Somebody else fills the disk at a random moment, but for a few bytes."""
    number = int(generator.integers(1, bench.operations[point.recipe] + 1))
    left = int(np.exp(generator.uniform(np.log(10), np.log(60_000))))
    point.detail = f"full but for {left} bytes from file operation {number} on"

    def fill() -> None:
        size = max(0, shutil.disk_usage(store.root).free - left)
        os.posix_fallocate(os.open(store.root.parent / "ballast", os.O_CREAT | os.O_WRONLY), 0, max(size, 1))

    in_child(store, run_id, lambda: _at_operation(store.root, number, fill))


def _clock(bench: Bench, store: RunStore, run_id: str, point: Point, generator: np.random.Generator) -> None:
    """The clock jumps by seconds to decades after random calls, and the worker is killed somewhere."""
    real, jumps = time.time, [float(one) for one in generator.choice(JUMPS, 4)]
    at = sorted(int(one) for one in generator.integers(1, 60, 4))
    number = int(generator.integers(1, bench.operations[point.recipe] + 1))
    point.detail = f"jumps of {', '.join(f'{one:.0f} s' for one in jumps)}, killed before file operation {number}"

    def prepare() -> None:
        calls = 0

        def jumping() -> float:
            nonlocal calls
            calls += 1
            return real() + sum(jump for call, jump in zip(at, jumps, strict=True) if calls >= call)

        time.time = jumping
        _at_operation(store.root, number, lambda: os.kill(os.getpid(), signal.SIGKILL))

    in_child(store, run_id, prepare)


DISTURB: dict[str, Callable[[Bench, RunStore, str, Point, np.random.Generator], None]] = {
    "kill at a file operation": _kill_at_operation,
    "kill at a moment": _kill_at_time,
    "cut a file": _cut,
    "ENOSPC at a file operation": _no_space,
    "write refused inside a file": _short_files,
    "full disk": _full_disk,
    "clock jumps": _clock,
}


@contextmanager
def _place(point: Point, root: Path, mount: Path) -> Iterator[Path]:
    """Where the disturbed run lies: a disk of its own that can be filled, else `root`."""
    if point.kind != "full disk":
        yield root
        return
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "salq", str(mount)], check=True, capture_output=True)
    try:
        yield mount / "runs"
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=True, capture_output=True)


def can_mount() -> bool:
    """Whether this process may make a small disk of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["mount", "-t", "tmpfs", "-o", "size=64k", "salq", folder]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode != 0:
            return False
        subprocess.run(["umount", folder], capture_output=True, check=True)
        return True


def kinds_here() -> tuple[str, ...]:
    """The disturbances that can be made on this machine."""
    return tuple(kind for kind in DISTURB if kind != "full disk" or can_mount())


def _whole_blocks(store: RunStore, run_id: str) -> dict[int, bytes]:
    """{index: bytes} of the finished blocks that read without a fault."""
    blocks, found = store.blocks(run_id), {}
    for index in blocks.indices():
        try:
            blocks.load(index)
            found[index] = blocks.path(index).read_bytes()
        except SalqError:
            continue
    return found


def main() -> int:
    """Work through the points that are not recorded yet; exit code 1 when one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after about this long; the next call goes on")
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    known = section("crashes", args.out)
    points = [Point(**one) for one in known.get("points", []) if one["number"] < args.points]
    started, kinds = time.monotonic(), kinds_here()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        for number in sorted(set(range(args.points)) - {point.number for point in points}):
            if time.monotonic() - started > args.seconds:
                break
            points.append(bench.point(number, kinds))
            if points[-1].problem:
                print(points[-1], flush=True)
        whole = bench.whole
    points.sort(key=lambda point: point.number)
    failed = [point for point in points if point.problem]
    value = {
        "command": f"python benchmarks/crashes.py --points {args.points}",
        "done": len(points),
        "failed": len(failed),
        "by_kind": {kind: sum(point.kind == kind for point in points) for kind in DISTURB},
        "with_finished_blocks": sum(point.finished > 0 for point in points),
        "codes_sha256": whole,
        "points": [vars(point) | {"seconds": round(point.seconds, 2)} for point in points],
    }
    record("crashes", value, args.out)
    print({key: value[key] for key in ("done", "failed", "by_kind", "with_finished_blocks")})
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
