"""Runs the tests of `interpreted_triton.py` in a process in which triton is the interpreter from its import on."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.files import ROOT
from tests.kernel_cases import cases


@pytest.mark.interpret
@pytest.mark.slow
def test_every_case_in_the_interpreter() -> None:
    command = [sys.executable, "-m", "pytest", str(Path(__file__).with_name("interpreted_triton.py")), "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) > len(cases()), done.stdout
    assert "skipped" not in done.stdout, done.stdout
