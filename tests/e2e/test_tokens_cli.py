"""`python -m salq tokens` as a person types it, on a tiny model: the same numbers as the library, and refusals in one sentence."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from salq.cli import main
from salq.core import settings
from salq.core.drain import drain
from salq.evaluation.restore import break_down
from salq.evaluation.tokens import score_tokens
from salq.kernels.assemble import quantized_copy, rtn_blocks
from salq.models.llama import Llama
from salq.quant.spec import QuantSpec


def tokens(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "salq", "tokens", *arguments]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", cwd=settings.ROOT, timeout=180, check=False)


def test_the_numbers_of_the_library_and_where_a_token_breaks(tiny: Llama, tiny_folder: Path) -> None:
    text = "A grey fox\tran.\nIt slept \x1b[2J well"
    result = tokens("--model", str(tiny_folder), "--bits", "2", "--group-size", "32", "--text", text, "--where", "9", "--json")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout.splitlines()[-1])
    ids = tiny.tokenizer("A grey fox\tran.\nIt slept [2J well", split_special_tokens=True).input_ids
    quantized = quantized_copy(tiny, rtn_blocks(tiny, QuantSpec(bits=2, group_size=32)))
    want = score_tokens(tiny, quantized, ids)
    assert [one["token_id"] for one in report["tokens"]] == ids[1:]
    assert [one["kl"] for one in report["tokens"]] == pytest.approx([one.kl for one in want], abs=1e-6)
    assert [one["rank"] for one in report["tokens"]] == [one.rank for one in want]
    found = drain(break_down(tiny, quantized, ids, 9))
    assert report["where"]["blocks"] == pytest.approx(found.blocks, rel=1e-3, abs=1e-7)
    assert report["where"]["matrices"] == pytest.approx(found.matrices, rel=1e-3, abs=1e-7)
    assert "⏎" in "".join(one["text"] for one in report["tokens"])
    assert report["execution"].startswith("torch reference")


def test_a_person_reads_tables_and_the_originals_own_answer_is_the_default(tiny_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tokens", "--model", str(tiny_folder), "--prompt", "Hello", "--max-new-tokens", "6", "--where", "2"]) == 0
    printed = capsys.readouterr().out
    assert "KL(original || quantized) is" in printed
    assert "down_proj" in printed
    assert "effects do not add up" in printed
    assert "\x1b" not in printed


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "nothing to score"),
        (["--text", "   "], "no text to score"),
        (["--text", "a"], "single token"),
        (["--prompt", "  "], "empty"),
        (["--text", "abc", "--where", "9"], "tokens 1 to 2"),
        (["--text", "abc", "--run", "nothing-like-it"], "nothing-like-it"),
        (["--text", "abc", "--group-size", "100"], "group size 100"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    tiny_folder: Path, arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tokens", "--model", str(tiny_folder), *arguments]) == 2  # in this process: seven starts would take half a minute
    assert sentence in capsys.readouterr().err
