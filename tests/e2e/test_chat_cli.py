"""`python -m salq chat` as a person types it, on a tiny model."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from salq.cli import main
from salq.core import settings


def chat(*arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "salq", "chat", *arguments]
    return subprocess.run(command, input=typed, capture_output=True, text=True, encoding="utf-8", cwd=settings.ROOT, timeout=120, check=False)


def test_json_has_both_sides_and_their_costs(tiny_folder: Path) -> None:
    result = chat("--model", str(tiny_folder), "--bits", "4", "--group-size", "row", "--prompt", "hi", "--max-new-tokens", "6", "--json")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout.splitlines()[-1])
    assert [side["kind"] for side in report["sides"]] == ["original", "rtn"]
    assert report["sides"][1]["title"].endswith("RTN w4row")
    assert all(side["state"] == "done" and side["memory_gb"] > 0 and side["count"] > 0 for side in report["sides"])


def test_a_conversation_goes_on_until_exit(tiny_folder: Path) -> None:
    result = chat("--model", str(tiny_folder), "--max-new-tokens", "4", typed="hello\n\nagain\n/exit\nnever\n")
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("original (full precision)") == 2
    assert "tokens/s" in result.stdout
    assert "\x1b" not in result.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--prompt", "  "], "empty"),
        (["--prompt", "hi", "--group-size", "100", "--max-new-tokens", "2"], "group size 100"),
        (["--prompt", "hi", "--group-size", "many"], "group_size"),
        (["--prompt", "hi", "--temperature", "9"], "temperature"),
        (["--prompt", "hi", "--run", "nothing-like-it"], "nothing-like-it"),
        (["--prompt", "hi", "--bits", "5"], "5"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    tiny_folder: Path, arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["chat", "--model", str(tiny_folder), *arguments]) == 2  # in this process: every start of another one takes seconds
    told = capsys.readouterr().err
    assert sentence in told
    assert "Traceback" not in told
