"""What the tests of commands share: short words for long command lines, and what a result must look like."""

import json
import subprocess
from collections.abc import Callable
from typing import Any

SMALL = ["--group-size", "32", "--rank", "2", "--windows", "2", "--window", "32", "--device", "cpu", "--seed", "1"]
SMALL += ["--set", "epochs=1", "--set", "data.n_samples=2", "--set", "data.seq_len=24"]
SALIENCY = ["--set", "saliency.n_samples=2", "--set", "saliency.seq_len=24"]
FEW = ["--samples", "2", "--seq-len", "24", "--device", "cpu"]
Result = subprocess.CompletedProcess[str]
Salq = Callable[..., Result]


def texts(text: str) -> list[str]:
    return ["--text", text, "--eval-text", text]


def report(result: Result) -> dict[str, Any]:
    """The JSON object in the last line of a command that succeeded."""
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout.splitlines()[-1])
    assert isinstance(found, dict)
    return found


def assert_one_sentence(result: Result, told: str) -> None:
    """Exit code 2, one line on stderr that contains `told`, the same as JSON on stdout, no traceback."""
    assert result.returncode == 2, result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("salq: ")
    assert told in lines[0]
    assert lines[0].endswith(".")
    assert json.loads(result.stdout.splitlines()[-1])["error"] == lines[0].removeprefix("salq: ")
