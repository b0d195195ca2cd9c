"""The list of `tests/kernel_cases.py` on a real GPU, and what the interpreter cannot see: large shapes, graphs, equal results of repeated runs."""

import pytest
import torch

from salq.kernels.triton_configs import MAX_SMALL_BATCH
from salq.kernels.triton_linear import TritonLinear, refusal
from salq.quant.spec import BITS
from tests.kernel_cases import TOLERANCE, Case, cases, frozen_of, inputs_of, product, relative_error

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("case", cases(), ids=str)
def test_against_float64(case: Case) -> None:
    frozen, (x, bias) = frozen_of(case, "cuda"), inputs_of(case, "cuda")
    assert refusal(frozen, x.device, x.dtype) is None
    assert relative_error(TritonLinear(frozen, bias)(x), product(frozen, x, bias)) < TOLERANCE[case.dtype]


@pytest.mark.parametrize("m", [1, 2, 3, 4, 7, 8, 9, 40])
@pytest.mark.parametrize("bits", BITS)
def test_large_shapes_and_every_number_of_rows(bits: int, m: int) -> None:
    case = Case(bits, 64, torch.float16, (1032, 11008), m, 64, symmetric=False)
    frozen, (x, bias) = frozen_of(case, "cuda"), inputs_of(case, "cuda")
    linear = TritonLinear(frozen, bias)
    got = linear(x)
    assert relative_error(got, product(frozen, x, bias)) < TOLERANCE[torch.float16]
    if m <= MAX_SMALL_BATCH:
        assert torch.equal(got, linear(x))


@pytest.mark.parametrize("bits", BITS)
def test_a_captured_graph_replays_on_new_inputs(bits: int) -> None:
    case = Case(bits, 64, torch.float16, (256, 4096), 1, 64, symmetric=False)
    frozen, (x, bias) = frozen_of(case, "cuda"), inputs_of(case, "cuda")
    linear, graph = TritonLinear(frozen, bias), torch.cuda.CUDAGraph()
    linear(x)  # compiled before the capture
    with torch.cuda.graph(graph):
        out = linear(x)
    x.mul_(-3.0)
    graph.replay()
    assert relative_error(out, product(frozen, x, bias)) < TOLERANCE[torch.float16]


@pytest.mark.parametrize("bits", BITS)
def test_overlapping_launches_change_nothing(bits: int) -> None:
    if torch.cuda.get_device_capability() < (9, 0):
        pytest.skip("programmatic dependent launch needs compute capability 9.0")
    case = Case(bits, 64, torch.float16, (1032, 4096), 1, 64, symmetric=False)
    frozen, (x, bias) = frozen_of(case, "cuda"), inputs_of(case, "cuda")
    plain = TritonLinear(frozen, bias)
    overlapping = TritonLinear(frozen, bias, plain.config.model_copy(update={"overlap": True}))
    for step in range(50):  # scratch memory is reused: what was read too early would be that of the step before
        now = x * (step + 1)
        assert torch.equal(overlapping(now), plain(now))
