"""The real default model, two blocks of it: the whole path on the command line, and a chat that talks English."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from salq.cli import main
from salq.core import settings
from tests.helpers import link_models

pytestmark = [pytest.mark.real_model, pytest.mark.timeout(900)]

SHORT = ("--text", "bundled", "--eval-text", "bundled", "--windows", "2", "--window", "256", "--blocks", "2", "--device", "cpu")


@pytest.fixture(scope="module")
def real_home(tmp_path_factory: pytest.TempPathFactory, real_models: Path) -> Path:
    """A home of its own with the real model in it."""
    return link_models(tmp_path_factory.mktemp("real") / "home", real_models)


def salq(home: Path, *words: str) -> dict[str, Any]:
    """`python -m salq ... --json`; the last line of its output."""
    environment = os.environ | {"SALQ_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "salq", *words, "--json"], cwd=settings.ROOT, env=environment, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def here(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    """The same in this process, which has torch already."""
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_two_blocks_of_quick_calibration_beat_rounding(real_home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SALQ_HOME", str(real_home))
    rounded = here(capsys, "calibrate", "--recipe", "rtn", "--bits", "2", *SHORT)
    learned = here(capsys, "calibrate", "--recipe", "apiq", "--bits", "2", "--set", "n_samples=8", "--set", "epochs=3", *SHORT)
    for result in (rounded, learned):
        for key in ("perplexity", "kl", "bits_per_weight", "size_mb", "seconds", "peak_memory_gb"):
            assert result[key] is not None, key
        assert "4-bit" in result["reference"] or result["reference"] == "full precision"
    assert 10 < rounded["perplexity_original"] < 100
    assert learned["kl"] < 0.8 * rounded["kl"]
    assert rounded["bits_per_weight"] == pytest.approx(2 + 18 / 64)


def test_the_original_and_its_rounding_answer_a_question(real_home: Path) -> None:
    said = salq(real_home, "chat", "--recipe", "rtn", "--bits", "4", "--prompt", "What is the capital of France?", "--max-new-tokens", "24")
    original, rounded = said["sides"]
    assert "Paris" in original["text"]
    assert rounded["text"].strip()
    for side in (original, rounded):
        assert side["tokens_per_second"] > 0
        assert side["memory_gb"] > 0.1
