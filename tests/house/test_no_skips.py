"""Under CI=true, skipping a browser, real-model or interpreter test is a failure; elsewhere it is a skip that says what to do."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.plugins.no_skips import promised_kinds

ROOT = Path(__file__).parents[2]

CASES = """
import pytest

@pytest.mark.browser
def test_needs_browser(): pass

@pytest.mark.real_model
def test_needs_model(): pytest.skip("the package index does not answer")

@pytest.mark.gpu
def test_needs_gpu(): pytest.skip("no GPU")

def test_ordinary(): pytest.skip("not on this system")
"""


def run_pytest(folder: Path, ci: str) -> str:
    """The output of a pytest of its own over CASES, on a machine with an empty PATH."""
    (folder / "test_cases.py").write_text(CASES)
    (folder / "conftest.py").write_text('pytest_plugins = ["tests.plugins.no_skips"]\n')
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n  browser\n  real_model\n  gpu\n  interpret\n")
    environment = {"PATH": str(folder), "PYTHONPATH": str(ROOT), "CI": ci, "HOME": str(folder)}
    command = [sys.executable, "-m", "pytest", "-ra", "-p", "no:cacheprovider", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, check=False).stdout


def test_a_skip_is_a_failure_under_ci(tmp_path: Path) -> None:
    output = run_pytest(tmp_path, "true")
    assert "1 failed, 2 skipped, 1 error" in output, output
    assert "CI=true and this browser test was skipped: Skipped: no Chromium here" in output
    assert "the package index does not answer" in output


def test_a_skip_is_a_skip_elsewhere(tmp_path: Path) -> None:
    output = run_pytest(tmp_path, "")
    assert "4 skipped" in output, output
    assert "1 browser tests were skipped: install one" in output


@pytest.mark.parametrize(("markers", "kinds"), [(["browser", "slow"], ["browser"]), (["gpu"], []), (["interpret"], ["interpret"])])
def test_promised_kinds(markers: list[str], kinds: list[str]) -> None:
    assert promised_kinds(iter(markers)) == kinds
