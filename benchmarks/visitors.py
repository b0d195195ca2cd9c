"""Many visitors at once: API clients and real browsers explore while a calibration runs; time of a selection, memory, nothing mixed up.

    python benchmarks/visitors.py --clients 30 --during-calibration        about seven minutes; the last two of the clients are real browsers

A selection is what a click in Explore does: the block and matrix are chosen, and the maps of that matrix are drawn. Every client asks for its
own matrices and checks that it is answered with them. Somebody pressed Compute before the class came, so the maps are on disk (--cold: nobody
did, and each is reduced when it is first asked for). Browsers need Playwright and a Chromium; without them, all clients speak HTTP.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402 - the checkout is put on the path first
import psutil  # noqa: E402

from benchmarks.reliability import RESULT, record  # noqa: E402
from salq.models.catalogue import DEFAULT_MODEL  # noqa: E402

PORT = 17870
MATRICES = ("self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj")
SERVE = "import sys; from salq.ui.page import launch; launch(default_model=sys.argv[1])"
P95_SECONDS = 2.0
LEAK_MB = 50.0


@dataclass
class Told:
    """What one client saw."""

    seconds: list[float] = field(default_factory=list)
    mixed_up: int = 0
    refused: int = 0


class Client:
    """A visitor that speaks HTTP like the page's own scripts: joins the queue, reads the stream of its session."""

    def __init__(self, url: str, number: int) -> None:
        """Read the page's description and find the two endpoints of a selection."""
        self.url, self.session = url, f"visitor{number}{os.getpid()}"
        with urllib.request.urlopen(f"{url}config", timeout=120) as response:
            config = json.load(response)
        self._values = {one["id"]: one["props"].get("value") for one in config["components"]}
        ids = {one["props"].get("elem_id"): one["id"] for one in config["components"]}
        self.block, self.matrix = ids["matrix-block"], ids["matrix-name"]
        self.pick = next(one for one in config["dependencies"] if [self.block, "input"] in one["targets"])
        self.draw = next(one for one in config["dependencies"] if [ids["matrix-pooling"], "input"] in one["targets"])

    def select(self, block: int, matrix: str) -> dict[str, Any]:
        """Choose and draw; returns what the page says that it drew: {"block", "matrix"}."""
        self._call(self.pick, {self.block: block, self.matrix: matrix})
        answer = self._call(self.draw, {})
        places = (value for value in answer if isinstance(value, dict) and {"block", "matrix"} <= set(value))
        return next(({"block": one["block"], "matrix": one["matrix"]} for one in places), {})

    def _call(self, endpoint: dict[str, Any], values: dict[int, Any]) -> list[Any]:
        data = [values.get(number, self._values.get(number)) for number in endpoint["inputs"]]
        body = {"data": data, "fn_index": endpoint["id"], "session_hash": self.session, "event_data": None, "trigger_id": None}
        request = urllib.request.Request(f"{self.url}gradio_api/queue/join", json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=120) as response:
            event = json.load(response)["event_id"]
        with urllib.request.urlopen(f"{self.url}gradio_api/queue/data?session_hash={self.session}", timeout=120) as stream:
            for line in stream:
                if not line.startswith(b"data:"):
                    continue
                message = json.loads(line[5:])
                if message.get("event_id") == event and message["msg"] == "process_completed":
                    return list(message["output"].get("data") or [])
        return []


def explore(url: str, number: int, n_blocks: int, end: threading.Event, most: int, told: Told, pause: float) -> None:
    """Select matrix after matrix, with the pauses of somebody who looks at them."""
    generator, client = np.random.default_rng(number), Client(url, number)
    while not end.is_set() and len(told.seconds) < most:
        block, matrix = int(generator.integers(n_blocks)), MATRICES[int(generator.integers(len(MATRICES)))]
        started = time.perf_counter()
        try:
            drawn = client.select(block, matrix)
        except (urllib.error.URLError, OSError, ValueError):
            told.refused += 1
            time.sleep(1)
            continue
        told.seconds.append(time.perf_counter() - started)
        told.mixed_up += drawn != {"block": block, "matrix": matrix}
        end.wait(float(generator.exponential(pause)))


@contextmanager
def served(model: str, home: Path) -> Any:
    """(address, process) of a page of its own."""
    around = {**os.environ, "SALQ_HOME": str(home), "GRADIO_SERVER_PORT": str(PORT), "GRADIO_ANALYTICS_ENABLED": "False"}
    process = subprocess.Popen([sys.executable, "-c", SERVE, model], cwd=ROOT, env=around, stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{PORT}/"
    try:
        while True:
            try:
                with urllib.request.urlopen(url, timeout=5):
                    break
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                if process.poll() is not None:
                    raise RuntimeError("the page ended before it answered") from None
                time.sleep(0.2)
        yield url, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(60)


def calibrating(model: str, home: Path, n_blocks: int) -> subprocess.Popen[bytes]:
    """A calibration that lasts longer than the measurement, with a worker's priority."""
    asked = f"--recipe apiq --bits 3 --preset base --text bundled --eval-text bundled --device cpu --group-size 32 --blocks {n_blocks}"
    command = [sys.executable, "-m", "salq", "calibrate", "--model", model, *asked.split(), "--set", "epochs=1000", "--background"]
    around = {**os.environ, "SALQ_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=around, stdout=subprocess.DEVNULL)


def explored(model: str, home: Path) -> None:
    """What Compute does to the maps: every matrix rounded to the page's first grid is reduced once. Without saliency, which would take longer."""
    from salq.quant.spec import QuantSpec
    from salq.runs.execute import execute
    from salq.runs.requests import ExploreRequest
    from salq.runs.store import RunStore

    store = RunStore(home / "runs")
    asked = ExploreRequest(
        model=model, specs=(QuantSpec(bits=3, group_size=64),), text="bundled", device="cpu", n_samples=2, seq_len=64, saliency=False
    )
    run_id = store.create(asked)
    for _ in execute(store, run_id):
        pass
    if store.get(run_id).status != "done":
        raise RuntimeError(f"the exploration ended as {store.get(run_id).status}")


def memory_mb(process: psutil.Process) -> float:
    """Memory of the page in MB, shared pages counted by their share."""
    try:
        return process.memory_full_info().pss / 1e6
    except (AttributeError, psutil.AccessDenied):
        return process.memory_info().rss / 1e6


def browsers(url: str, count: int, seconds: float) -> list[subprocess.Popen[str]]:
    """Real browsers that select in Explore, each printing what it saw as JSON."""
    command = [sys.executable, "-m", "tests.browser.explorer", url, str(seconds)]
    return [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(count)]


def measure(args: argparse.Namespace, model: str, n_blocks: int, home: Path) -> dict[str, Any]:
    """Everything at once; see the module."""
    real = args.browsers if importlib.util.find_spec("playwright") is not None else 0
    if not args.cold:
        explored(model, home)
    with served(model, home) as (url, page):
        Client(url, 999_999).select(0, MATRICES[0])  # the first one imports torch
        if args.during_calibration:
            calibrating(model, home, n_blocks).wait()
        told, end, samples = [Told() for _ in range(args.clients - real)], threading.Event(), [memory_mb(page)]
        people = [
            threading.Thread(target=explore, args=(url, number, n_blocks, end, args.most, one, args.pause), daemon=True)
            for number, one in enumerate(told)
        ]
        watching, started = browsers(url, real, args.seconds), time.monotonic()
        for person in people:
            person.start()
        while time.monotonic() - started < args.seconds and any(person.is_alive() for person in people):
            time.sleep(1)
            samples.append(memory_mb(page))
        end.set()
        for person in people:
            person.join(60)
        seen = [json.loads(one.communicate(timeout=180)[0].strip().splitlines()[-1]) for one in watching]
        samples.append(memory_mb(page))
        from salq.runs.store import RunStore

        store = RunStore(home / "runs")
        steps = [info.progress.blocks_done for info in store.list()]
        cancelled = time.monotonic()
        for info in store.list():
            if info.is_active:
                store.cancel(info.id)
        while any(store.is_alive(run_id) for run_id in store.ids()) and time.monotonic() - cancelled < 60:  # noqa: PLR2004
            time.sleep(0.02)
        gone = time.monotonic() - cancelled
    seconds = np.array([one for person in told for one in person.seconds] or [float("nan")])
    return {
        "command": f"python benchmarks/visitors.py --clients {args.clients}{' --during-calibration' if args.during_calibration else ''}"
        + (" --cold" if args.cold else ""),
        "model": DEFAULT_MODEL if model == DEFAULT_MODEL else "tiny", "clients": args.clients, "browsers": real,
        "seconds": time.monotonic() - started,
        "selections": len(seconds), "median_seconds": float(np.median(seconds)), "p95_seconds": float(np.quantile(seconds, 0.95)),
        "longest_seconds": float(seconds.max()), "mixed_up": sum(one.mixed_up for one in told), "refused": sum(one.refused for one in told),
        "memory_mb_first": samples[0], "memory_mb_most": max(samples), "memory_mb_last": samples[-1],
        "growth_mb_second_half": float(np.median(samples[-5:]) - np.median(samples[len(samples) // 2 - 2 : len(samples) // 2 + 3])),
        "browser": seen, "calibration_blocks_done": steps, "cancel_seconds": gone if args.during_calibration else None,
    }  # fmt: skip


def main() -> int:
    """Measure and record; exit code 1 when something was mixed up or too slow."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=30)
    parser.add_argument("--browsers", type=int, default=2, help="how many of the clients are real browsers")
    parser.add_argument("--during-calibration", action="store_true")
    parser.add_argument("--cold", action="store_true", help="no map was reduced before")
    parser.add_argument("--seconds", type=float, default=240.0)
    parser.add_argument("--pause", type=float, default=4.0, help="mean seconds that a visitor looks at a matrix")
    parser.add_argument("--most", type=int, default=10_000, help="selections of one client")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="catalogue name, or tiny")
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home, model, n_blocks = Path(folder) / "home", args.model, 30
        home.mkdir()
        if model == "tiny":
            from salq.models.tiny import save_tiny

            model, n_blocks = str(save_tiny(Path(folder) / "tiny", n_blocks=4)), 4
        else:
            from salq.core import settings

            if settings.models_dir().is_dir():
                (home / "models").symlink_to(settings.models_dir(), target_is_directory=True)
        os.environ["SALQ_HOME"] = str(home)
        found = measure(args, model, n_blocks, home)
    record("visitors", found, args.out)
    print(json.dumps(found, indent=1))
    return 1 if found["mixed_up"] or found["p95_seconds"] > P95_SECONDS or found["growth_mb_second_half"] > LEAK_MB else 0


if __name__ == "__main__":
    sys.exit(main())
