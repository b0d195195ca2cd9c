"""What a newcomer waits for: the page, the default model, the first answer. Measured from outside, with processes as a person starts them.

    python benchmarks/first_minutes.py                  about three minutes on two free cores; writes benchmarks/results/first-minutes.json

Uses a home of its own, empty at the start, so that "the first time" is one; nothing is installed.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from salq.core.device import choose_device  # noqa: E402 - the checkout is put on the path first
from salq.core.files import write_json  # noqa: E402
from salq.runs.environment import environment  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "first-minutes.json"
PORT = 17860
CHAT = (
    "chat",
    "--bits",
    "3",
    "--group-size",
    "64",
    "--prompt",
    "What is the capital of France?",
    "--max-new-tokens",
    "48",
    "--device",
    "cpu",
    "--json",
)


def page_seconds(around: Mapping[str, str]) -> float:
    """From `python app.py` until the page answers."""
    process = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env={**around, "GRADIO_SERVER_PORT": str(PORT)}, stdout=subprocess.DEVNULL)
    started = time.perf_counter()
    try:
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/", timeout=5):
                    return time.perf_counter() - started
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                if process.poll() is not None:
                    raise RuntimeError("the page ended before it answered") from None
                time.sleep(0.1)
    finally:
        process.terminate()
        process.wait(60)


def command_seconds(around: Mapping[str, str], *words: str) -> tuple[float, dict[str, Any]]:
    """Seconds of a whole `python -m salq WORDS...`, start of Python included, and its report."""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "salq", *words], cwd=ROOT, env=dict(around), capture_output=True, text=True, check=True)
    return time.perf_counter() - started, json.loads(done.stdout.strip().splitlines()[-1])


def model_seconds(around: Mapping[str, str]) -> float:
    """Until the default model is in memory, start of Python included."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import salq; salq.load_model(device='cpu')"], cwd=ROOT, env=dict(around), check=True)
    return time.perf_counter() - started


def main() -> int:
    """Measure everything once, in the order of a newcomer."""
    with tempfile.TemporaryDirectory() as home:
        around = {**os.environ, "SALQ_HOME": home, "GRADIO_ANALYTICS_ENABLED": "False"}
        page = page_seconds(around)
        first, later = model_seconds(around), model_seconds(around)
        answered, said = command_seconds(around, *CHAT)
        sides = {side["title"]: {name: side[name] for name in SHOWN} for side in said["sides"]}
    found = {
        "command": "python benchmarks/first_minutes.py",
        "page_up_seconds": page,
        "model_first_seconds": first,
        "model_later_seconds": later,
        "chat": sides,
        "chat_all_seconds": answered,
        "chat_command": f"python -m salq {' '.join(CHAT)}",
        "environment": environment(choose_device("cpu")),
    }
    write_json(RESULT, found)
    print(json.dumps(found, indent=1))
    return 0


SHOWN = ("first_token_seconds", "tokens_per_second", "memory_gb", "seconds", "count")


if __name__ == "__main__":
    sys.exit(main())
