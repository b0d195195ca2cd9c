"""The benchmark's command line: what it plans, refuses and lists where there is no GPU; it measures nothing here and invents nothing."""

import json
import subprocess
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig

from benchmarks import gpu_model, kernels
from benchmarks.kernel_contenders import GROUP_SIZE, RANK, Matrix, makers
from benchmarks.live_bytes import LiveBytes
from salq.calibration.estimate import block_weights
from salq.core.device import GB
from salq.models.catalogue import entry_of
from salq.models.tiny import tiny_config
from tests.house.files import ROOT

GPU_SCRIPT = ROOT / "benchmarks" / "gpu.sh"


def gpu_script(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", str(GPU_SCRIPT), *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_plan_names_every_contender_and_no_figure(capsys: pytest.CaptureFixture[str]) -> None:
    assert kernels.main(["--dry", "--shape", "4096x4096"]) == 0
    said = capsys.readouterr().out
    for name in ("cuBLAS float16", "torch int4", "gemlite 4-bit", "salq 2-bit + LoRA r64", "salq 3-bit codes in the 4-bit kernel"):
        assert name in said
    assert "microseconds" not in said


@pytest.mark.skipif(torch.cuda.is_available(), reason="here it would measure")
def test_without_a_gpu_nothing_is_measured() -> None:
    with pytest.raises(SystemExit, match="no GPU answers here"):
        kernels.main(["--shape", "4096x4096"])


@pytest.mark.parametrize("text", ["4096", "4096x", "0x64", "ax4"])
def test_a_shape_is_two_numbers(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        kernels.parse(["--shape", text])
    assert "is not OUTxIN" in capsys.readouterr().err


def test_a_matrix_is_quantized_as_its_name_says() -> None:
    matrix = Matrix((8, 128), torch.device("cpu"))
    frozen = matrix.frozen(3, adapter=True)
    assert (frozen.spec.bits, frozen.spec.group_size, frozen.rank) == (3, GROUP_SIZE, RANK)
    assert len(list(makers(matrix))) == len({name for name, _ in makers(matrix)})


def test_the_gpu_script_lists_its_steps_and_refuses_the_unknown() -> None:
    listed = gpu_script("--list")
    assert listed.returncode == 0, listed.stderr
    assert "kernels-check" in listed.stdout
    assert gpu_script("--nope").returncode == 2
    assert "PYTHON names the interpreter" in gpu_script("--help").stdout


@pytest.mark.parametrize("part", ["decode", "prefill", "calibrate"])
def test_a_model_is_measured_as_on_a_gpu(part: str, tmp_path: Path) -> None:
    short = "--device cpu --shape tiny --bits 2 3 --rank 4 --tokens 4 --rounds 1 --json"
    assert gpu_model.main([part, *short.split(), str(tmp_path / "found.json")]) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["weights"] == "random"
    if part == "calibrate":
        assert (len(found["block_seconds"]), found["extrapolated_minutes"]["blocks"]) == (2, 2)
        return
    names = ["transformers, original", "engine, original", *(f"engine, w{bits}g64{more}" for bits in (2, 3) for more in ("", " adapters r4"))]
    assert [row["name"] for row in found["rows"]] == names
    assert found["rows"][1]["times_original"] == 1


def test_what_a_block_needs_is_counted_without_a_gpu(tmp_path: Path) -> None:
    found = tmp_path / "found.json"
    assert gpu_model.main(["count", *f"--device cpu --shape tiny --bits 2 --json {found}".split()]) == 0
    block = 4 * block_weights(tiny_config(LlamaConfig(**entry_of("smollm2-135m").config))) / GB
    peak = json.loads(found.read_text())["peak_tensors_gb"]
    assert 3 * block < peak < 20 * block, "at the least the weights, the fake-quantized ones and their gradient"


def test_a_tiny_model_is_checked_as_on_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SALQ_HOME", str(tmp_path))
    assert gpu_model.main(["checks", "--device", "cpu", "--json", str(tmp_path / "found.json")]) == 0
    assert len(json.loads((tmp_path / "found.json").read_text())["checks"]) == 11


def test_a_check_that_fails_is_said_and_the_others_are_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ValueError("nothing there")

    monkeypatch.setenv("SALQ_HOME", str(tmp_path))
    monkeypatch.setattr(gpu_model, "decoder_for", broken)
    assert gpu_model.main(["checks", "--device", "cpu", "--json", str(tmp_path / "found.json")]) == 1
    rows = json.loads((tmp_path / "found.json").read_text())["checks"]
    assert [row["failed"] for row in rows if row["wrong"]] == ["ValueError: nothing there"]
    assert len(rows) == 11


def test_bytes_count_once_and_as_long_as_somebody_needs_them() -> None:
    outside = torch.zeros(1000)
    with LiveBytes() as live:
        assert outside.view(10, 100).shape == (10, 100)
        assert live.peak == 0, "a view of what was there before is nothing new"
        learned = torch.ones(1000, requires_grad=True)
        kept = learned.exp()  # its result is what the backward pass needs
        view = kept[:10]
        del kept
        assert live.now == 2 * 4000, "a view holds all of it"
        loss = view.sum()
        del view
        assert live.now == 2 * 4000 + 4, "the graph holds it still"
        loss.backward()
        del loss
        assert live.now == 2 * 4000, "the gradient has come, the result has gone"
    assert live.peak > 3 * 4000
