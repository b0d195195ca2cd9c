"""Commands as people type them, over one home for every test file: later commands see what earlier ones made.

Where the process itself matters (streams, signals, exit codes) it is a real one; the other commands share this process, because every
new one takes seconds to import torch.
"""

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from salq.cli import main
from salq.core import settings
from tests.e2e.commands import Result, Salq


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One SALQ_HOME for the whole file: later commands see what earlier ones made."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def text(home: Path) -> str:
    path = home / "text.txt"
    path.write_text("A run is stored as plain files, so that everybody sees the same one, and nothing is lost. " * 60)
    return str(path)


@pytest.fixture(scope="module")
def environment(home: Path) -> dict[str, str]:
    return {**os.environ, "SALQ_HOME": str(home), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def process(environment: dict[str, str]) -> Salq:
    """`python -m salq WORDS...` as a process, from the repository's root."""

    def call(*words: str) -> Result:
        return subprocess.run(
            [sys.executable, "-m", "salq", *words], cwd=settings.ROOT, env=environment, capture_output=True, text=True, timeout=280, check=False
        )

    return call


@pytest.fixture
def salq(home: Path, monkeypatch: pytest.MonkeyPatch) -> Salq:
    """The same in this process."""
    monkeypatch.setenv("SALQ_HOME", str(home))

    def call(*words: str) -> Result:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(words)
        return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())

    return call
