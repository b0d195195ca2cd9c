"""What `make check` checks, as tests, so that `make test` alone is enough."""

import subprocess
import sys

import pytest

from tests.house.files import ROOT


def run(*arguments: str) -> None:
    """Run a tool's module in the repository; fail with its output."""
    result = subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{' '.join(arguments)}\n{result.stdout}{result.stderr}"


def test_lint() -> None:
    run("ruff", "check", ".")


def test_format() -> None:
    run("ruff", "format", "--check", ".")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_types() -> None:
    run("mypy")
