"""A few of the points of benchmarks/crashes.py: killed, cut, refused by the disk or misled by the clock, a run goes on as if nothing had been."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from salq.core import settings

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="processes are forked")]
POINTS = 7


def test_a_few_points(tmp_path: Path, salq_home: Path) -> None:
    """In a process of its own: it forks, and this one may have threads."""
    out = tmp_path / "reliability.json"
    command = [sys.executable, "benchmarks/crashes.py", "--points", str(POINTS), "--out", str(out)]
    done = subprocess.run(command, cwd=settings.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(out.read_text())["crashes"]
    assert (found["done"], found["failed"]) == (POINTS, 0)
    assert sum(found["by_kind"].values()) == POINTS
