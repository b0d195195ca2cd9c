"""Damaged and hostile inputs, by the ten thousand, for everything that reads what others wrote: files, logs, links, requests, raw calls of the page.

    python benchmarks/fuzz.py                         every part at its full length; about half an hour on one core
    python benchmarks/fuzz.py --part packed --seconds 120     goes on where the part was; results add up in benchmarks/results/reliability.json

Inputs are mutated from valid ones; those that reach lines of salq that no input before them reached are mutated further (coverage-guided).
An input is a finding when it raises anything but a SalqError, takes more than two seconds of CPU, or makes memory grow without end.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402 - the checkout is put on the path first

from benchmarks.fuzz_targets import PARTS, Target  # noqa: E402
from benchmarks.reliability import RESULT, record, section  # noqa: E402
from salq.core.device import process_memory_gb, release_memory  # noqa: E402
from salq.core.errors import SalqError  # noqa: E402

LENGTHS = {"packed": 30_000, "safetensors": 15_000, "gguf": 15_000, "events": 10_000, "links": 20_000, "requests": 20_000, "endpoints": 5_000}
HANG_SECONDS = 2.0
GROWTH_MB = 100.0
GUIDED_SHARE = 0.3
"""Share of inputs whose lines are traced: tracing takes several times longer than the input itself."""
CORPUS = 400


class Hang(Exception):  # noqa: N818 - raised into whatever is running
    """An input took too long."""


@dataclass
class Found:
    """What a part has seen so far."""

    inputs: int = 0
    refused: int = 0
    lines: int = 0
    seconds: float = 0.0
    slowest_seconds: float = 0.0
    growth_mb: float = 0.0
    findings: list[dict[str, str]] = field(default_factory=list)


class Fuzzer:
    """One part: a corpus that grows with what reaches new lines."""

    def __init__(self, target: Target, seed: int) -> None:
        """The corpus begins with the target's valid inputs."""
        self.target, self.generator = target, np.random.default_rng([23, seed])
        self.corpus: list[Any] = list(target.seeds)
        self.lines: set[tuple[str, int]] = set()
        self.found = Found()

    def run(self, most: int, seconds: float = float("inf")) -> Found:
        """So many inputs, or until the time is over."""
        started, warm = time.monotonic(), None
        for number in range(most):
            if time.monotonic() - started > seconds:
                break
            self._one(guided=number < len(self.target.seeds) or self.generator.random() < GUIDED_SHARE)
            if number == min(most // 5, 2000):
                release_memory()
                warm = process_memory_gb()
        if warm is not None:
            release_memory()
            self.found.growth_mb = max(0.0, (process_memory_gb() - warm) * 1000)
        self.found.lines, self.found.seconds = len(self.lines), time.monotonic() - started
        return self.found

    def _one(self, *, guided: bool) -> None:
        number = self.found.inputs
        seeds = len(self.target.seeds)
        base = self.corpus[number] if number < seeds else self.corpus[int(self.generator.integers(len(self.corpus)))]
        value = base if number < seeds else self.target.mutate(base, self.generator)
        self.found.inputs += 1
        seen: set[tuple[str, int]] = set()
        started = time.process_time()
        try:
            with _limited(HANG_SECONDS), _traced(seen if guided else None):
                self.target.read(value)
        except SalqError:
            self.found.refused += 1
        except Hang:
            self._finding(value, f"more than {HANG_SECONDS} s of CPU")
        except Exception as error:  # noqa: BLE001 - that is what is looked for
            self._finding(value, f"{type(error).__name__}: {error}")
        self.found.slowest_seconds = max(self.found.slowest_seconds, time.process_time() - started)
        if seen - self.lines and len(self.corpus) < CORPUS:
            self.corpus.append(value)
        self.lines |= seen

    def _finding(self, value: Any, words: str) -> None:
        if len(self.found.findings) < 20:  # noqa: PLR2004 - enough to see what is wrong
            self.found.findings.append({"input": repr(value)[:400], "error": words[:300]})


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Raise Hang in this thread after so many seconds of CPU; a busy machine does not count."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise Hang

    signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


@contextmanager
def _traced(seen: set[tuple[str, int]] | None) -> Iterator[None]:
    """Note the lines of salq that run; None: do not."""
    if seen is None:
        yield
        return
    inside = str(ROOT / "salq")

    def trace(frame: FrameType, event: str, _: Any) -> Callable[..., Any] | None:
        name = frame.f_code.co_filename
        if not name.startswith(inside):
            return None
        if event == "line":
            seen.add((name, frame.f_lineno))
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


def merged(before: dict[str, Any], found: Found) -> dict[str, Any]:
    """What a part has seen in all its calls."""
    now = vars(found)
    sums = {name: before.get(name, 0) + now[name] for name in ("inputs", "refused", "seconds")}
    most = {name: max(before.get(name, 0), now[name]) for name in ("lines", "slowest_seconds", "growth_mb")}
    return {**sums, **most, "findings": [*before.get("findings", []), *found.findings]}


def main() -> int:
    """Every part, or one; exit code 1 when something was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=[*PARTS])
    parser.add_argument("--seconds", type=float, default=float("inf"), help="of each part; the next call goes on with other inputs")
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    known = section("fuzz", args.out)
    parts: dict[str, Any] = known.get("parts", {})
    os.environ["HF_HUB_OFFLINE"] = "1"
    for name in [args.part] if args.part else PARTS:
        before = parts.get(name, {})
        left = LENGTHS[name] - before.get("inputs", 0)
        if left <= 0:
            continue
        with tempfile.TemporaryDirectory() as folder:
            os.environ["SALQ_HOME"] = folder
            found = Fuzzer(PARTS[name](Path(folder)), seed=before.get("inputs", 0)).run(left, args.seconds)
        parts[name] = merged(before, found)
        print(name, json.dumps(parts[name])[:3000], flush=True)
        value = {"command": "python benchmarks/fuzz.py", "inputs": sum(one["inputs"] for one in parts.values()), "parts": parts}
        value["findings"] = sum(len(one["findings"]) for one in parts.values())
        value["growth_mb_allowed"], value["cpu_seconds_allowed"] = GROWTH_MB, HANG_SECONDS
        record("fuzz", value, args.out)
    bad = [name for name, one in parts.items() if one["findings"] or one["growth_mb"] > GROWTH_MB]
    return 1 if bad else 0


if __name__ == "__main__":
    asyncio.set_event_loop(asyncio.new_event_loop())
    sys.exit(main())
