"""Adapters that start at what rounding loses: the best low-rank approximation, plain or weighted by saliency."""

import pytest
import torch
from torch import Tensor

from salq.quant.adapter import Adapter, LoRA, low_rank


def seeded(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def started(residual: Tensor, saliency: Tensor | None, rank: int) -> Adapter:
    adapter = LoRA(rank=rank, alpha=5.0).build(*residual.shape, torch.Generator().manual_seed(1), torch.device("cpu"))
    with torch.no_grad():
        adapter.start_from(residual, saliency, torch.Generator().manual_seed(2))
    return adapter


def delta(adapter: Adapter) -> Tensor:
    """The matrix that the adapter adds to a weight."""
    return adapter.added_to(torch.zeros(len(adapter.lora_B), adapter.lora_A.shape[1])).detach()


def test_low_rank_is_the_truncated_svd() -> None:
    matrix = seeded(40, 24) * torch.logspace(0, -3, 24)  # singular values that fall, as those of a residual do not quite
    left, values, right = low_rank(matrix, 6, torch.Generator().manual_seed(0))
    u, s, v = torch.linalg.svd(matrix.double(), full_matrices=False)
    assert torch.allclose(values.double(), s[:6], rtol=1e-4)
    assert torch.allclose((left * values @ right).double(), u[:, :6] * s[:6] @ v[:6], atol=1e-3)


def test_full_rank_gives_the_residual_back() -> None:
    residual = seeded(12, 8)
    assert torch.allclose(delta(started(residual, None, 8)), residual, atol=1e-5)


def test_saliency_decides_what_is_approximated() -> None:
    residual, rows, columns = seeded(32, 24), torch.rand(32) + 0.01, torch.rand(24) ** 4 + 0.001
    saliency = rows[:, None] * columns

    def weighted_error(adapter: Adapter) -> float:
        return float((saliency * (residual - delta(adapter)).square()).sum())

    plain, weighted = started(residual, None, 4), started(residual, saliency, 4)
    scaled = saliency.sqrt() * residual  # saliency of rank one: the weighted problem is a plain one
    best = float(torch.linalg.svdvals(scaled.double())[4:].square().sum())
    assert weighted_error(weighted) == pytest.approx(best, rel=0.02)
    assert weighted_error(weighted) < 0.9 * weighted_error(plain)


@pytest.mark.parametrize("saliency", [torch.zeros(12, 8), torch.eye(12, 8)])
def test_rows_and_columns_without_saliency_stay_finite(saliency: Tensor) -> None:
    assert torch.isfinite(delta(started(seeded(12, 8), saliency, 2))).all()


def test_inputs_decide_what_is_approximated_when_the_output_counts() -> None:
    residual, x = seeded(20, 12), seeded(400, 12, seed=3) @ seeded(12, 12, seed=4)
    moment = x.T @ x / len(x)
    adapter = LoRA(rank=3, alpha=5.0).build(20, 12, torch.Generator().manual_seed(1), torch.device("cpu"))
    with torch.no_grad():
        adapter.start_from_output(residual, moment, torch.Generator().manual_seed(2))
    lost = float(((residual - delta(adapter)) @ x.T).square().sum())
    best = float(torch.linalg.svdvals((residual @ x.T).double())[3:].square().sum())  # Eckart and Young, of the lost output itself
    assert lost == pytest.approx(best, rel=0.01)
    plain = float(((residual - delta(started(residual, None, 3))) @ x.T).square().sum())
    assert lost < 0.8 * plain


def test_nothing_lost_starts_the_adapter_at_zero() -> None:
    adapter = LoRA(rank=2).build(6, 4, torch.Generator(), torch.device("cpu"))
    with torch.no_grad():
        adapter.start_from_output(torch.zeros(6, 4), torch.eye(4), torch.Generator())
    assert torch.equal(delta(adapter), torch.zeros(6, 4))
