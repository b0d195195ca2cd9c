"""What the Triton executor refuses, and what it keeps in memory; its arithmetic is tested in the interpreter and on a GPU."""

import dataclasses
import subprocess
import sys

import pytest
import torch

from salq.core.errors import ShapeError
from salq.kernels import triton_linear
from salq.kernels.triton_configs import KernelConfig, block_m, config_for
from salq.kernels.triton_linear import TritonLinear, refusal
from salq.quant.frozen import FrozenLinear, rtn
from salq.quant.spec import BITS, QuantSpec
from tests.helpers import random_weight
from tests.house.files import ROOT

CUDA = torch.device("cuda:0")


def frozen_of(bits: int, shape: tuple[int, int], group_size: int | None, symmetric: bool = False) -> FrozenLinear:
    return rtn(random_weight(*shape), QuantSpec(bits=bits, group_size=group_size, symmetric=symmetric))


def with_gpu(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int]) -> None:
    """What torch would say of a GPU of this capability: only the answers of the driver are made up, the refusals are real."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _device: "Tesla T4")


def test_refused_without_a_gpu() -> None:
    reason = refusal(frozen_of(2, (8, 128), 64), torch.device("cpu"), torch.float16)
    assert reason == "The Triton kernels need a CUDA GPU; the device is cpu."


def test_refused_on_an_old_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpu(monkeypatch, (7, 5))
    reason = refusal(frozen_of(2, (8, 128), 64), CUDA, torch.float16)
    assert reason is not None
    assert "8.0 (Ampere) or newer; Tesla T4 has 7.5" in reason


def test_refused_dtype_and_group_size(monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpu(monkeypatch, (9, 0))
    assert "got float64" in str(refusal(frozen_of(4, (8, 128), 64), CUDA, torch.float64))
    assert "multiple of 16, or a whole row; got 8" in str(refusal(frozen_of(2, (8, 128), 8), CUDA, torch.float16))


def test_refused_without_triton_or_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpu(monkeypatch, (9, 0))
    with monkeypatch.context() as patch:
        patch.setattr(triton_linear.importlib.util, "find_spec", lambda _name: None)
        assert "triton package is not installed" in str(refusal(frozen_of(2, (8, 128), 64), CUDA, torch.float16))


@pytest.mark.interpret
def test_refused_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpu(monkeypatch, (9, 0))
    monkeypatch.setenv("CC", "no-such-compiler")
    assert "C compiler" in str(refusal(frozen_of(2, (8, 128), 64), CUDA, torch.float16))
    monkeypatch.setenv("CC", sys.executable)  # anything that can be run: whether it compiles is found out by the first launch
    assert refusal(frozen_of(2, (8, 128), 64), CUDA, torch.float16) is None


def test_imports_and_refuses_where_triton_is_absent() -> None:
    code = (
        "import sys; sys.modules['triton'] = None\n"
        "import torch\nfrom salq.kernels.triton_linear import TritonLinear, refusal\n"
        "from salq.quant.frozen import rtn\nfrom salq.quant.spec import QuantSpec\n"
        "frozen = rtn(torch.randn(8, 64), QuantSpec(bits=3, group_size=64))\n"
        "print(refusal(frozen, torch.device('cpu'), torch.float16), TritonLinear(frozen).words.shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "torch.Size([8, 1, 4])" in done.stdout


@pytest.mark.parametrize("bits", BITS)
def test_bytes_are_those_that_are_stated(bits: int) -> None:
    frozen, weights = frozen_of(bits, (8, 256), 64), 8 * 256
    linear = TritonLinear(frozen)
    assert linear.layout.code_bytes == weights * bits // 8
    assert sum(buffer.nbytes for buffer in linear.buffers()) == weights * bits // 8 + (2 + 1) * weights // 64


def test_a_symmetric_grid_stores_no_zero_points() -> None:
    linear = TritonLinear(frozen_of(4, (8, 128), 64, symmetric=True))
    assert (linear.zero, linear.zero_point) == (7, None)


def test_adapters_and_bias_are_kept() -> None:
    frozen = dataclasses.replace(frozen_of(2, (8, 128), 64), lora_A=torch.randn(3, 128).half(), lora_B=torch.randn(8, 3).half(), scaling=0.5)
    linear = TritonLinear(frozen, torch.ones(8))
    assert (linear.packed.rank, linear.packed.rank_block, linear.packed.scaling) == (3, 4, 0.5)
    assert set(linear.state_dict()) == {"words", "scale", "zero_point", "lora_A", "lora_B", "bias"}


def test_a_group_without_a_layout_raises() -> None:
    with pytest.raises(ShapeError, match="group size that is a multiple of 16"):
        TritonLinear(frozen_of(2, (8, 128), 8))


def test_settings_cover_every_row_and_every_small_batch() -> None:
    assert [config_for(units).warps for units in (1, 32, 33, 128, 129, 4000)] == [1, 1, 2, 2, 4, 4]
    config = KernelConfig()
    for m in range(1, 9):
        assert config.rows % config.program_rows(block_m(m)) == 0
