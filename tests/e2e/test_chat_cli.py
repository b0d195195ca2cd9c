"""`python -m salq chat` as a person types it, on a tiny model."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from salq.cli import main
from salq.core import settings
from salq.models.tiny import save_tiny


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


def test_an_exported_folder_answers_as_its_run_does_and_needs_no_original(tmp_path: Path) -> None:
    original = save_tiny(tmp_path / "original", "smollm2-135m")
    arguments = ["--model", str(original), "--recipe", "rtn", "--bits", "4", "--windows", "1", "--window", "16", "--run", "small"]
    assert main(["calibrate", *arguments]) == 0
    assert main(["export", "small", str(tmp_path / "small")]) == 0
    beside = answered("--run", "small", "--packed", str(tmp_path / "small"))
    shutil.rmtree(original)
    alone = answered("--packed", str(tmp_path / "small"))
    assert [side["kind"] for side in beside] == ["original", "run", "packed"]
    assert [side["kind"] for side in alone] == ["packed"]
    assert alone[0]["text"] == beside[2]["text"] == beside[1]["text"]


def answered(*arguments: str) -> list[dict[str, Any]]:
    result = chat(*arguments, "--executor", "reference", "--prompt", "hi", "--max-new-tokens", "6", "--json")
    assert result.returncode == 0, result.stderr
    sides: list[dict[str, Any]] = json.loads(result.stdout.splitlines()[-1])["sides"]
    return sides


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
        (["--prompt", "hi", "--packed", "tests"], "python -m salq export"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    tiny_folder: Path, arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["chat", "--model", str(tiny_folder), *arguments]) == 2  # in this process: every start of another one takes seconds
    told = capsys.readouterr().err
    assert sentence in told
    assert "Traceback" not in told
