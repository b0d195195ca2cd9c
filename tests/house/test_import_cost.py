"""`import salq` and the command line's help are light: no torch, no gradio, no transformers."""

import json
import subprocess
import sys

import pytest

from tests.house.files import ROOT

HEAVY = {"torch", "gradio", "transformers", "datasets", "plotly", "triton", "pandas", "accelerate"}

REPORT = """
import contextlib, io, json, runpy, sys
sys.argv = ["salq", *{arguments!r}]
with contextlib.redirect_stdout(io.StringIO()):
    try:
        {statement}
    except SystemExit as stop:
        assert not stop.code, stop.code
print(json.dumps(sorted(sys.modules)))
"""


def modules_after(statement: str, arguments: list[str]) -> set[str]:
    """Top-level modules loaded in a fresh process after `statement`."""
    code = REPORT.format(statement=statement, arguments=arguments)
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return {name.partition(".")[0] for name in json.loads(result.stdout)}


@pytest.mark.parametrize(
    ("statement", "arguments"),
    [
        ("import salq", []),
        ("import salq; dir(salq)", []),
        ("runpy.run_module('salq', run_name='__main__')", ["--help"]),
        ("runpy.run_module('salq', run_name='__main__')", ["calibrate", "--help"]),
        ("import salq.models.catalogue", []),
    ],
    ids=["import", "dir", "help", "calibrate-help", "catalogue"],
)
def test_is_light(statement: str, arguments: list[str]) -> None:
    assert not modules_after(statement, arguments) & HEAVY
