"""Every bad input of the command line is one sentence with exit code 2, and nothing was done before it was said."""

import json
from pathlib import Path

import pytest

from salq.cli import main
from salq.core import settings
from salq.runs.store import RunStore
from tests.e2e.commands import Salq, assert_one_sentence

BAD: list[tuple[str, str]] = [
    ("calibrate --bits 5", "--bits"),
    ("calibrate --bits two", "--bits"),
    ("calibrate --group-size big", "group size"),
    ("calibrate --group-size 0", "Group size 0"),
    ("calibrate --nonsense", "nonsense"),
    ("nothing", "invalid choice"),
    ("sweep --bits 2,7", "7"),
    ("sweep --recipe ,", "empty"),
    ("runs show 20260101-000000-abcd", "does not exist"),
    ("runs show ../../etc", "not known"),
    ("runs resume nothing", "not known"),
    ("runs delete nothing", "not known"),
    ("compare a b", "not known"),
    ("compare original rtn", "name no run"),
    ("evaluate --model smollm2-135m --tasks piqa --limit 0", "--limit is 0"),
    ("evaluate", "--run ID or --model NAME"),
    ("evaluate --run x --model y", "leave --model"),
    ("evaluate --model smollm2-135m --windows 0", "cannot be evaluated"),
    ("evaluate --model smollm2-135m --windows 1000000000", "cannot be evaluated"),
    ("saliency --samples 0", "n_samples"),
    ("saliency --samples 100000", "n_samples"),
    ("errors --group-size 1", "Group size 1"),
    ("saliency --seed -1", "seed"),
    ("saliency --device tpu", "Device"),
    ("calibrate --recipe magic", "Recipe 'magic'"),
    ("calibrate --preset slow", "Preset"),
    ("calibrate --set epochs", "key=value"),
    ("calibrate --set colour=red", "colour"),
    ("calibrate --set epochs=many", "epochs"),
    ("calibrate --rank 100000", "rank"),
    ("calibrate --rank -1", "rank"),
    ("calibrate --blocks 0", "n_blocks"),
    ("calibrate --group-size 100", "not a multiple of group size 100"),
    ("calibrate --model no-such-model", "no-such-model"),
    ("calibrate --model llama-2-13b --recipe sapr --preset published --device cpu", "GB"),
    ("calibrate --windows 99999999", "windows"),
    ("calibrate --text no/such.txt", "'no/such.txt' is neither a readable file nor a known text source"),
    ("calibrate --recipe rtn --eval-text no/such.txt", "'no/such.txt' is neither a readable file"),
    ("calibrate --text chats:many", "write chats:N with N"),
    ("calibrate --eval-text self:1000", "for calibration only"),
    ("sweep --text no/such.txt", "no/such.txt"),
    ("experiment salq-vs-apiq --text no/such.txt", "no/such.txt"),
    ("saliency --text no/such.txt", "no/such.txt"),
    ("errors --text no/such.txt", "no/such.txt"),
    ("evaluate --model smollm2-135m --text no/such.txt", "no/such.txt"),
    ("recipes magic", "Recipe 'magic'"),
    ("evaluate --model smollm2-135m --recipe rtn --executor fastest", "invalid choice"),
    ("export nothing packed", "not known"),
    ("bench kernels --shape 4096", "is not a shape"),
    ("bench kernels --shape 64x64 --calls 0", "--calls 0"),
    ("bench kernels --shape 64x100", "not a multiple of group size 64"),
    ("bench decode --tokens 0", "--tokens 0"),
]


@pytest.mark.parametrize(("words", "told"), BAD)
def test_bad_input_is_one_sentence(salq: Salq, words: str, told: str) -> None:
    result = salq(*words.split(), "--json")
    assert_one_sentence(result, told)
    assert RunStore(settings.runs_dir()).ids() == []


@pytest.mark.parametrize("words", ["calibrate --bits 5", "runs show nothing", "calibrate --group-size 100"])
def test_bad_input_as_a_process(process: Salq, words: str) -> None:
    assert_one_sentence(process(*words.split(), "--json"), "")


def test_files_that_are_no_model_or_no_text(capsys: pytest.CaptureFixture[str], tmp_path: Path, tiny_folder: Path) -> None:
    (tmp_path / "empty.txt").write_text(" \n")
    (tmp_path / "latin.txt").write_bytes("größer".encode("latin-1") * 500)
    (tmp_path / "short.txt").write_text("Too short for a window.")
    (tmp_path / "gpt").mkdir()
    (tmp_path / "gpt" / "config.json").write_text('{"model_type": "gpt2"}')
    rtn = ["calibrate", "--recipe", "rtn", "--group-size", "32", "--device", "cpu", "--json"]
    for words, told in (
        (["--model", str(tmp_path / "gpt")], "not a LLaMA"),
        (["--model", str(tmp_path)], "config.json"),
        (["--model", str(tiny_folder), "--eval-text", str(tmp_path / "empty.txt")], "is empty"),
        (["--model", str(tiny_folder), "--eval-text", str(tmp_path / "latin.txt")], "UTF-8"),
        (["--model", str(tiny_folder), "--eval-text", str(tmp_path / "short.txt")], "tokens"),
        (["--model", str(tiny_folder), "--eval-text", str(tmp_path / "nothing.txt")], "nothing.txt"),
    ):
        code = main([*rtn, *words])
        printed = capsys.readouterr()
        errors = [line for line in printed.err.splitlines() if line.startswith("salq: ")]
        assert (code, len(errors)) == (2, 1), printed.err
        assert told in errors[0]
        assert "Traceback" not in printed.err
        assert json.loads(printed.out.splitlines()[-1])["error"] == errors[0].removeprefix("salq: ")


def test_a_catalogue_model_on_a_public_host(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tiny_folder: Path) -> None:
    monkeypatch.setenv("SPACE_ID", "someone/salq")
    assert main(["calibrate", "--model", str(tiny_folder), "--json"]) == 2
    assert "not offered on this public host" in capsys.readouterr().err
