"""The words of the Triton kernels lose no code, put it where their picture says, and take exactly the stated bytes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from salq.core.errors import ShapeError
from salq.kernels.triton_layout import HIGH_START, WIDTH, WordLayout, interleave_rows, pack_words, unpack_words
from salq.quant.spec import BITS


def random_codes(bits: int, shape: tuple[int, int], seed: int) -> torch.Tensor:
    return torch.randint(0, 2**bits, shape, generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


BLOCKS = st.sampled_from([1, 2, 4])


@given(st.sampled_from(BITS), st.integers(1, 9), st.sampled_from([16, 32, 48, 64, 96, 128]), st.integers(1, 4), BLOCKS, st.integers(0, 99))
def test_round_trip(bits: int, rows: int, group: int, groups: int, block: int, seed: int) -> None:
    codes = random_codes(bits, (rows, group * groups), seed)
    layout = WordLayout.of(bits, (rows, group * groups), group, block)
    words, high = pack_words(codes, layout)
    assert torch.equal(unpack_words(words, high, layout), codes)
    assert (high is None) == (bits != 3)
    assert words.nbytes + (0 if high is None else high.nbytes) == layout.code_bytes
    if rows % block == 0:
        assert layout.code_bytes * 8 == codes.numel() * bits


@given(st.sampled_from(BITS), st.integers(1, 5), st.integers(1, 150), st.integers(0, 99))
def test_round_trip_of_whole_rows(bits: int, rows: int, count: int, seed: int) -> None:
    codes = random_codes(bits, (rows, count), seed)
    layout = WordLayout.of(bits, (rows, count), None, 4)
    assert layout.units_per_group == layout.units
    assert torch.equal(unpack_words(*pack_words(codes, layout), layout), codes)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("count", [576, 1536, 4096, 11008])
def test_exactly_the_stated_bits_for_the_shapes_of_models(bits: int, count: int) -> None:
    assert WordLayout.of(bits, (8, count), 64, 4).code_bytes * 8 == 8 * count * bits


@pytest.mark.parametrize("bits", BITS)
def test_every_code_lies_where_the_picture_says(bits: int) -> None:
    codes = random_codes(bits, (2, 128), 0)
    layout = WordLayout.of(bits, (2, 128), 64, 1)
    words, high = pack_words(codes, layout)
    for k in range(128):
        unit, inside = divmod(k, layout.words * layout.fields)
        field, word = divmod(inside, layout.words)
        got = (int(words[1, unit, word]) >> (field * WIDTH[bits])) & ((1 << WIDTH[bits]) - 1)
        if high is not None:
            got |= ((int(high[1, unit, word]) >> (HIGH_START[field // 4] + 2 * (field % 4))) & 1) << 2
        assert got == int(codes[1, k])


@given(st.integers(1, 9), st.integers(1, 5), BLOCKS)
def test_scales_of_a_block_of_rows_lie_side_by_side(rows: int, groups: int, block: int) -> None:
    grid = torch.randn(rows, groups).half()
    layout = WordLayout.of(2, (rows, groups * 16), 16, block)
    interleaved = interleave_rows(grid, layout)
    assert interleaved.shape == (layout.blocks, groups, block)
    for row in range(rows):
        assert torch.equal(interleaved[row // block, :, row % block], grid[row])


def test_what_has_no_layout_is_refused() -> None:
    with pytest.raises(ShapeError, match="multiple of 16, or a whole row; got 24"):
        WordLayout.of(2, (4, 48), 24, 4)
    with pytest.raises(ShapeError, match="48 inputs are not a multiple of group size 32"):
        WordLayout.of(4, (4, 48), 32, 4)
    with pytest.raises(ShapeError, match="got 5"):
        WordLayout.of(5, (4, 48), 16, 4)
