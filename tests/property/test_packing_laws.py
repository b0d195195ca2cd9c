"""Packing loses nothing and stores exactly the stated bits, for every width and ragged shape."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from salq.core.errors import ShapeError
from salq.packing.matrix import pack_matrix, unpack_matrix
from salq.packing.planes import pack, unpack
from salq.quant.frozen import FrozenLinear, rtn
from salq.quant.size import PLANES, matrix_bits, packed_bytes
from salq.quant.spec import BITS, SIGN_BITS, QuantSpec


@given(st.sampled_from((SIGN_BITS, *BITS)), st.integers(1, 7), st.integers(1, 130), st.integers(0, 2**20))
def test_round_trip(bits: int, rows: int, count: int, seed: int) -> None:
    codes = torch.randint(0, 2**bits, (rows, count), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)
    planes = pack(codes, bits)
    assert torch.equal(unpack(planes, bits, count), codes)
    assert sum(plane.numel() for plane in planes) == packed_bytes(rows, count, bits)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("count", [576, 1536, 11008])
def test_exactly_the_stated_bits(bits: int, count: int) -> None:
    assert packed_bytes(3, count, bits) * 8 == 3 * count * bits
    assert sum(PLANES[bits]) == bits


def test_the_picture_of_the_bits() -> None:
    (plane,) = pack(torch.tensor([[1, 2, 3, 0, 2]], dtype=torch.uint8), 2)
    assert plane.tolist() == [[0b00_11_10_01, 0b10]]
    low, high = pack(torch.tensor([[5, 2, 7]], dtype=torch.uint8), 3)
    assert (low.tolist(), high.tolist()) == ([[0b11_10_01]], [[0b101]])


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ShapeError, match="Code 4 does not fit 2 bits"):
        pack(torch.tensor([[4]], dtype=torch.uint8), 2)
    with pytest.raises(ShapeError, match="have planes of"):
        unpack((torch.zeros(2, 3, dtype=torch.uint8),), 2, 100)


@given(st.sampled_from(BITS), st.integers(1, 7), st.integers(1, 5), st.integers(2, 40), st.booleans(), st.integers(0, 3), st.integers(0, 2**20))
def test_a_matrix_survives_packing(bits: int, rows: int, groups: int, size: int, symmetric: bool, rank: int, seed: int) -> None:
    """Every bit-width, group size and ragged shape, symmetric or not, with an adapter or without: bit for bit, in the announced bytes."""
    generator = torch.Generator().manual_seed(seed)
    spec = QuantSpec(bits=bits, group_size=size, symmetric=symmetric)
    frozen = rtn(torch.randn(rows, groups * size, generator=generator), spec)
    adapter = [torch.randn(*shape, generator=generator).half() for shape in ((rank, groups * size), (rows, rank))] if rank else [None, None]
    frozen = FrozenLinear(spec, frozen.codes, frozen.scale, frozen.zero_point, *adapter, 0.5)
    tensors = pack_matrix(frozen)
    again = unpack_matrix(spec, (rows, groups * size), 0.5, tensors)
    assert all(torch.equal(getattr(again, name), tensor) for name, tensor in frozen.tensors().items())
    assert 8 * sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) == sum(
        matrix_bits(spec, rows, groups * size, rank).values()
    )
