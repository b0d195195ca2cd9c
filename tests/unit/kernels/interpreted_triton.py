"""The Triton kernels in Triton's interpreter, against float64: every width, group size and dtype, ragged shapes, poisoned memory.

Not collected by itself: triton decides at its import between interpreter and compiler, so `test_triton_interpreted.py` runs this file in a process
of its own, with TRITON_INTERPRET=1.
"""

import pytest
import torch

from salq.kernels import triton_launch
from salq.kernels.linear import QuantLinear
from salq.kernels.triton_configs import MAX_SMALL_BATCH
from salq.kernels.triton_launch import Scratch, dequantize_rows, gemv, padded_rows
from salq.kernels.triton_linear import TritonLinear
from salq.quant.spec import BITS
from tests.kernel_cases import TOLERANCE, Case, cases, frozen_of, inputs_of, product, relative_error

GUARD = 64
SENTINEL = 12345.0


def poisoned(scratch: Scratch) -> Scratch:
    """The scratch memory full of NaN: whatever is read must have been written before."""
    for tensor in (scratch.prepared, scratch.sums, scratch.biases, scratch.t):
        tensor.fill_(torch.nan)
    return scratch


@pytest.mark.parametrize("case", cases(), ids=str)
def test_against_float64(case: Case) -> None:
    frozen, (x, bias) = frozen_of(case), inputs_of(case)
    packed = TritonLinear(frozen, bias).packed
    memory = torch.full((2 * GUARD + case.m * case.shape[0],), torch.nan, dtype=case.dtype)
    memory[:GUARD] = memory[-GUARD:] = SENTINEL
    out = memory[GUARD:-GUARD].view(case.m, -1)
    gemv(packed, x, out, poisoned(Scratch.empty(packed, padded_rows(case.m), x.device)))
    assert relative_error(out, product(frozen, x, bias)) < TOLERANCE[case.dtype]
    assert torch.equal(memory[:GUARD], memory[-GUARD:])
    assert set(memory[:GUARD].tolist()) == {float(torch.tensor(SENTINEL, dtype=case.dtype))}


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize(("group", "inputs"), [(16, 48), (64, 192), (None, 100)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=["float16", "float32"])
def test_dequantized_weights_are_those_of_the_specification(bits: int, group: int | None, inputs: int, dtype: torch.dtype) -> None:
    frozen = frozen_of(Case(bits, group, dtype, (11, inputs), 1, 0, symmetric=inputs == 192))
    out = torch.full((11, inputs), torch.nan, dtype=dtype)
    packed = TritonLinear(frozen).packed
    dequantize_rows(packed, 0, out[:8])
    dequantize_rows(packed, 8, out[8:])
    assert torch.equal(out, frozen.dequantize().to(dtype))


def test_many_rows_go_through_one_small_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(2, 64, torch.float32, (13, 128), MAX_SMALL_BATCH + 3, 3, symmetric=False)
    frozen, (x, bias) = frozen_of(case), inputs_of(case)
    monkeypatch.setattr(triton_launch, "DEQUANTIZED_BYTES", 4 * 128 * 4)
    got = TritonLinear(frozen, bias)(x.reshape(1, -1, 128))
    assert got.shape == (1, case.m, 13)
    assert torch.allclose(got[0], QuantLinear(frozen, bias)(x), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("m", [0, 1, 4])
def test_the_module_agrees_with_its_specification(m: int) -> None:
    case = Case(3, 32, torch.float16, (6, 96), m, 3, symmetric=False)
    frozen, (x, bias) = frozen_of(case), inputs_of(case)
    got, want = TritonLinear(frozen, bias)(x), QuantLinear(frozen, bias)(x)
    assert (got.shape, got.dtype) == (want.shape, want.dtype)
    assert torch.allclose(got.float(), want.float(), rtol=4e-3, atol=4e-2 if m else 0.0)


def test_results_are_equal_from_run_to_run() -> None:
    case = Case(2, 16, torch.float32, (5, 576), 2, 3, symmetric=False)
    linear, (x, _) = TritonLinear(frozen_of(case)), inputs_of(case)
    assert torch.equal(linear(x), linear(x))
