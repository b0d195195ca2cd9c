"""`evaluate` and `compare` on real runs: the same numbers, one verdict, a report to take away, and refusals of one sentence."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.commands import Salq, report

WINDOWS = ["--windows", "8", "--window", "32"]
SHARED = ("perplexity", "perplexity_se", "kl", "kl_se", "kl_median", "kl_p99", "top1_agreement", "bits_per_weight", "size_mb", "model_size_mb")


@pytest.fixture
def calibrated(salq: Salq, tiny_folder: Path, text: str) -> Callable[..., dict[str, Any]]:
    """A finished run of a recipe at some bits, found again when it is there."""

    def run(name: str, recipe: str, bits: int, windows: list[str] = WINDOWS) -> dict[str, Any]:
        shown = salq("runs", "show", name, "--json")
        if shown.returncode == 0:
            return report(shown)
        small = [] if recipe == "rtn" else ["--rank", "2", "--set", "epochs=2", "--set", "data.n_samples=2", "--set", "data.seq_len=24"]
        words = ["--model", str(tiny_folder), "--recipe", recipe, "--bits", str(bits), "--group-size", "32", "--device", "cpu", "--run", name]
        return report(salq("calibrate", *words, *small, "--text", text, "--eval-text", text, *windows, "--json"))

    return run


def test_evaluate_and_compare_give_the_same_numbers(salq: Salq, calibrated: Callable[..., dict[str, Any]], text: str) -> None:
    calibrated("mine", "apiq", 2)
    calibrated("rounded", "rtn", 2)
    compared = report(salq("compare", "mine", "rounded", "--json"))
    for side, name in (("a", "mine"), ("b", "rounded")):
        measured = report(salq("evaluate", "--run", name, "--text", text, *WINDOWS, "--device", "cpu", "--json"))
        assert {key: measured[key] for key in SHARED} == pytest.approx({key: compared[side][key] for key in SHARED})
        assert (measured["text"], measured["windows"], measured["window"]) == tuple(
            compared["conditions"][key] for key in ("text", "windows", "window")
        )
    assert compared["differences"]["kl"]["value"] == pytest.approx(compared["b"]["kl"] - compared["a"]["kl"])
    low, high = compared["differences"]["kl"]["interval"]
    assert low <= compared["differences"]["kl"]["value"] <= high


def test_the_verdict_is_printed_with_text_window_and_blocks(salq: Salq, calibrated: Callable[..., dict[str, Any]]) -> None:
    calibrated("rounded", "rtn", 2)
    calibrated("fine", "rtn", 8)
    shown = salq("compare", "rounded", "fine").stdout
    assert re.search(r"^fine lowers KL by [\d.]+ nats/token, 95 % interval [\d.]+ to [\d.]+, over rounded", shown, flags=re.MULTILINE), shown
    assert "text.txt" in shown
    assert "8 windows of 32 tokens" in shown
    against = salq("compare", "original", "fine").stdout
    assert "fine is " in against
    assert "of KL from the original" in against
    assert "rounded is on both sides" in salq("compare", "rounded", "rtn").stderr


def test_a_report_of_one_file(salq: Salq, calibrated: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    calibrated("rounded", "rtn", 2)
    calibrated("fine", "rtn", 8)
    target = tmp_path / "report.html"
    found = report(salq("compare", "rounded", "fine", "--html", str(target), "--json"))
    html = target.read_text(encoding="utf-8")
    assert found["html"] == str(target)
    assert found["verdict"] in html
    assert "<script" not in html
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", html)
    assert str(tmp_path.parent) not in html
    assert len(found["trade_off"]) >= 2
    assert "is a folder" in salq("compare", "rounded", "fine", "--html", str(tmp_path)).stderr


def test_what_cannot_be_paired_is_refused_in_one_sentence(salq: Salq, calibrated: Callable[..., dict[str, Any]], home: Path) -> None:
    rounded = calibrated("rounded", "rtn", 2)
    calibrated("shorter", "rtn", 8, ["--windows", "2", "--window", "32"])
    for words, told in ((("rounded", "shorter"), "measured on different text"), (("rounded", "rounded"), "on both sides")):
        result = salq("compare", *words, "--json")
        assert result.returncode == 2
        assert told in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1
    calibrated("old", "rtn", 4)
    metrics = home / "runs" / report(salq("runs", "show", "old", "--json"))["run"] / "metrics.json"
    kept = json.loads(metrics.read_text())
    metrics.write_text(json.dumps({key: value for key, value in kept.items() if key != "per_window"}))
    assert "kept no sums of single windows" in salq("compare", rounded["run"], "old").stderr
    again = report(salq("compare", "shorter", "old", "--windows", "8", "--device", "cpu", "--json"))  # measured anew, both alike
    assert again["b"]["kl"] == pytest.approx(kept["kl"])
    assert again["conditions"]["windows"] == 8
    assert again["differences"]["kl"]["value"] == pytest.approx(again["b"]["kl"] - again["a"]["kl"])
    assert "cannot be evaluated" in salq("compare", "shorter", "old", "--windows", "0").stderr


def test_the_noise_floor_is_measured_once_and_printed_ever_after(salq: Salq, calibrated: Callable[..., dict[str, Any]], text: str) -> None:
    calibrated("rounded", "rtn", 2)
    calibrated("fine", "rtn", 8)
    where = ["--run", "rounded", "--text", text, *WINDOWS, "--device", "cpu"]
    assert report(salq("evaluate", *where, "--json"))["noise_floor"] is None
    measured = report(salq("evaluate", *where, "--noise-floor", "--json"))["noise_floor"]
    assert 0 < measured["kl"] < 0.05
    assert "bfloat16" in measured["how"]
    assert "noise floor" in salq("evaluate", *where).stdout
    assert report(salq("compare", "rounded", "fine", "--json"))["noise_floor"] == measured


def test_tasks_without_the_harness_are_refused_before_any_work(salq: Salq, monkeypatch: pytest.MonkeyPatch, tiny_folder: Path) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    result = salq("evaluate", "--model", str(tiny_folder), "--tasks", "piqa", "--json")
    assert result.returncode == 2
    assert "pip install 'salq[tasks]'" in result.stderr
    assert "windows" not in result.stdout
