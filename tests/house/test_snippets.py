"""The README's own code works: Python blocks and `python -m salq` lines run on a tiny model, `make` lines name targets that exist."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from salq.cli import main
from tests.house.files import ROOT

DEFAULT = "smollm2-135m"
# The tests' own wishes: a tiny model, and a calibration that is short.
SHORTER = {
    'preset="quick"': 'preset="quick", overrides={"epochs": 1, "samples": 2}',
    "--preset quick": "--preset quick --set epochs=1 --set samples=2",
}
README = (ROOT / "README.md").read_text(encoding="utf-8")
SECONDS = 240


def blocks(language: str) -> list[str]:
    """Fenced blocks of that language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def shell_lines(start: str) -> list[str]:
    """Lines of the shell blocks that begin with `start`, without comments."""
    lines = [line.partition("  #")[0].strip() for block in blocks("bash") for line in block.splitlines()]
    return [line for line in lines if line.startswith(start)]


def as_tested(code: str, model: Path) -> str:
    """`code` on `model`, and with less work."""
    for shown, tested in {DEFAULT: str(model), **SHORTER}.items():
        code = code.replace(shown, tested)
    return code


def run(arguments: list[str], home: Path) -> str:
    """Output of a process that uses one thread and an empty home; fails with what it said."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "SALQ_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    result = subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert result.returncode == 0, f"{shlex.join(arguments)}\n{result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("code", blocks("python"))
def test_python_snippets(code: str, tiny_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In this process, with no name but its own: another one takes seconds to import torch."""
    assert DEFAULT in code, "a snippet that names no model cannot be run here"
    exec(compile(as_tested(code, tiny_folder), "README.md", "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out


@pytest.mark.slow
def test_shell_snippets(tiny_folder: Path, salq_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In order, over one home: later lines may use what earlier ones made. The first one as a process, the others in this one."""
    first, *others = ([*shlex.split(as_tested(line, tiny_folder))] for line in shell_lines(".venv/bin/python -m salq"))
    assert run([sys.executable, *first[1:]], salq_home)
    for python, dash_m, salq, *words in others:
        assert (Path(python).name, dash_m, salq) == ("python", "-m", "salq")
        assert main(words) == 0, words
        assert capsys.readouterr().out, words


def test_make_lines() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = {line.split()[1] for line in shell_lines("make ")}
    assert {"run", "test"} <= targets
    assert not [target for target in targets if not re.search(rf"^{re.escape(target)}:", makefile, flags=re.MULTILINE)]
