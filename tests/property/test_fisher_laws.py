"""Laws of saliency: what the sampling looks like must not matter, only which samples there are."""

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from salq.core.drain import drain
from salq.models.llama import Llama
from salq.saliency.fisher import Fisher, fisher_diagonal
from salq.saliency.pooling import Reduction, pool
from tests.helpers import assert_close, random_tokens

LAWS = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def saliency(model: Llama, tokens: Tensor, batch_size: int = 4) -> Fisher:
    return drain(fisher_diagonal(model, tokens, batch_size=batch_size))


def assert_same(got: Fisher, want: Fisher) -> None:
    for block, matrices in want.items():
        for name, matrix in matrices.items():
            # float32 gradients of differently shaped batches agree to about 1e-6 of the matrix's largest entry
            assert_close(f"{block} {name}", got[block][name], matrix, rtol=1e-4, atol=1e-6 * float(matrix.max()))


@LAWS
@given(seed=st.integers(0, 2**16), n_samples=st.integers(1, 5), seq_len=st.integers(4, 16), batch_size=st.integers(1, 6), order=st.randoms())
def test_independent_of_batch_size_and_sample_order(tiny: Llama, seed: int, n_samples: int, seq_len: int, batch_size: int, order) -> None:
    # from 4 tokens on: a single predicted token attends to itself only, and the gradients of q and k are rounding noise
    tokens = random_tokens(tiny.config.vocab_size, n_samples, seq_len, seed)
    shuffled = list(range(n_samples))
    order.shuffle(shuffled)
    assert_same(saliency(tiny, tokens[shuffled], batch_size), saliency(tiny, tokens, batch_size=1))


@LAWS
@given(seed=st.integers(0, 2**16), first=st.integers(1, 4), second=st.integers(1, 4))
def test_additive_over_sample_sets(tiny: Llama, seed: int, first: int, second: int) -> None:
    """N F is a sum over samples: (n1 + n2) F(both) = n1 F(first) + n2 F(second)."""
    tokens = random_tokens(tiny.config.vocab_size, first + second, 12, seed)
    one, two = saliency(tiny, tokens[:first]), saliency(tiny, tokens[first:])
    total = first + second
    summed = {b: {n: (first * one[b][n] + second * two[b][n]) / total for n in one[b]} for b in one}
    assert_same(saliency(tiny, tokens), summed)


@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 10)),
    group_size=st.sampled_from([None, 2, 6, 8]),
    limits=st.tuples(st.integers(1, 20), st.integers(1, 30)),
    how=st.sampled_from(["max", "mean", "p99"]),
    seed=st.integers(0, 2**16),
)
def test_pooling_keeps_groups_whole_and_bins_summarise_their_own_entries(
    shape: tuple[int, int], group_size: int | None, limits: tuple[int, int], how: Reduction, seed: int
) -> None:
    group = group_size or 1
    matrix = torch.rand(shape[0], shape[1] * group, generator=torch.Generator().manual_seed(seed))
    pooled = pool(matrix, *limits, how=how, group_size=group_size)
    assert pooled.values.shape == (len(pooled.row_edges) - 1, len(pooled.col_edges) - 1)
    assert pooled.values.shape[0] <= limits[0]
    assert pooled.values.shape[1] <= limits[1]
    if group_size:
        for left, right in zip(pooled.col_edges, pooled.col_edges[1:], strict=False):
            inside_one_group = left // group == (right - 1) // group
            assert inside_one_group or (left % group == 0 and right % group == 0)
    reduce = {"max": torch.max, "mean": torch.mean, "p99": lambda entries: entries.flatten().quantile(0.99)}[how]
    for r, (top, bottom) in enumerate(zip(pooled.row_edges, pooled.row_edges[1:], strict=False)):
        for c, (left, right) in enumerate(zip(pooled.col_edges, pooled.col_edges[1:], strict=False)):
            assert_close(f"bin {r} {c}", pooled.values[r, c], reduce(matrix[top:bottom, left:right]))
