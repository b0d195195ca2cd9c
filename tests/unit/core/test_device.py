"""Peak memory is that of the work since it was asked for; an optimizer's step has its precision, and nothing else does."""

import sys

import pytest
import torch

from salq.core.device import PeakMemory, keep_freed_memory, step_precision

CPU = torch.device("cpu")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the mark covers the whole life of a process")
def test_the_peak_leaves_out_what_was_freed_before() -> None:
    keep_freed_memory()
    whole = PeakMemory(CPU)
    block = torch.ones(75_000_000)  # 300 MB
    high = whole.gb()
    del block
    after = PeakMemory(CPU)
    assert after.gb() < high - 0.25
    small = torch.ones(25_000_000)
    assert after.gb() > high - 0.3
    assert whole.gb() < high  # one mark for the process: the later measurement began it anew
    del small


def test_a_step_has_its_own_precision_on_a_gpu_alone() -> None:
    before = torch.get_float32_matmul_precision()
    with step_precision(CPU):
        assert torch.get_float32_matmul_precision() == before
    with step_precision(torch.device("cuda")):
        assert torch.get_float32_matmul_precision() == "high"
    assert torch.get_float32_matmul_precision() == before
