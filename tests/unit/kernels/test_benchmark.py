"""The benchmark's command line: what it plans, refuses and lists where there is no GPU; it measures nothing here and invents nothing."""

import subprocess

import pytest
import torch

from benchmarks import kernels
from benchmarks.kernel_contenders import GROUP_SIZE, RANK, Matrix, makers
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
