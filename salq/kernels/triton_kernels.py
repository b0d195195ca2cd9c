"""The Triton kernels: x @ quantized weight for a few rows of x, and the weight dequantized for many rows. Nothing else lives here.

**Algebra.** With codes q, scale s and zero point z of group g (OmniQuant, arXiv 2308.13137, eq. 2), scale and zero point leave the sum over inputs:

    y[n] = sum_g s[n,g] * ( sum_{k in g} x[k] q[n,k]  -  z[n,g] * sum_{k in g} x[k] )  +  sum_r B[n,r] * t[r]  +  bias[n]

The sums of x, and t = scaling * A x of the adapter, are the same for all rows n: `prepare_kernel` makes them once, `gemv_kernel` reads them.

**A code becomes a float without a conversion.** A constant shift brings one byte of a word to bits MANTISSA_BIT and up of a float32. A mask and the
exponent of 1.0 (one LOP3 instruction) then make, of the field that begins at bit f of that byte,

    v = 1 + q * 2**(f + MANTISSA_BIT - 23)        and with x' = x * 2**-f (exact; made by prepare_kernel)
    sum x' v = sum x'  +  2**(MANTISSA_BIT - 23) * sum x q

    bit  31     23 22            15 14            0       MANTISSA_BIT = 15; at 3 bits 14, the third bit comes from the companion
         | 1.0    | one byte of w  | 0            |       2 and 3 bits: f = 0, 2, 4, 6      4 bits: f = 0, 4      8 bits: f = 0

So a weight costs one LOP3 and one FFMA; 4, 2 or 1 weights share the shift of a byte: 1.25, 1.5 and 2 integer instructions per weight at 2, 4 and 8
bits; 2.5 at 3 bits (two LOP3, two shared shifts). The bias is 1 and not the 1024 of the half-precision trick, and everything is summed in
float32, so taking the bias off again, once per unit, costs about 1e-5 of the result (1e-4 where one channel of x is 50 times the others): less than
rounding to float16.

**Work.** A program owns ROWS rows and walks along them in tiles of UNITS units (`triton_layout.py`): one unit, 16 bytes, per thread and row. The
lanes of a warp lie along the row: loads are contiguous, a thread needs only its own scales, and threads meet once, in the sum at the end. Words
of the next tile are on their way while this one is summed. Sums have a fixed order (no atomics): equal results in every run.

**LoRA.** No row of the result can be finished before all of x was seen by A, so t cannot be made by the kernel that needs it. Extra programs of
`prepare_kernel`, which runs anyway, make it; B t is added at the end of a row, from 2 * rank bytes. An adapter adds no launch.
"""

from typing import no_type_check  # shapes are Triton's here: neither mypy nor the run-time check of annotations reads these functions

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@triton.jit
@no_type_check
def byte_to_mantissa(word, BYTE: tl.constexpr, MANTISSA_BIT: tl.constexpr):
    """`word` shifted so that its byte BYTE begins at bit MANTISSA_BIT."""
    if MANTISSA_BIT >= 8 * BYTE:
        return word << (MANTISSA_BIT - 8 * BYTE)
    else:  # noqa: RET505 - Triton compiles one branch only when it is an else
        return word >> (8 * BYTE - MANTISSA_BIT)


@triton.jit
@no_type_check
def high_to_mantissa(high, BYTE: tl.constexpr):
    """The companion shifted so that the high bits of the fields of byte BYTE lie at bits 16, 18, 20, 22: above their low bits at 14."""
    return high << (16 - BYTE % 2 - 8 * (BYTE // 2))


@triton.jit
@no_type_check
def magic(low, high, one, FIELD: tl.constexpr, BITS: tl.constexpr, WIDTH: tl.constexpr, MANTISSA_BIT: tl.constexpr):
    """1 + code * 2**(FIELD * WIDTH + MANTISSA_BIT - 23) as float32, for field FIELD of the byte that was shifted into place.

    `one`, the bits of 1.0, must be a register: a LOP3 has room for one constant, and that is the mask.
    """
    START: tl.constexpr = MANTISSA_BIT + FIELD * WIDTH
    pattern = (low & (((1 << WIDTH) - 1) << START)) | one
    if BITS == 3:
        pattern = pattern ^ (high & (4 << START))  # ^ for |: LLVM reassociates a chain of |, and three LOP3 come out instead of two
    return pattern.to(tl.float32, bitcast=True)


@triton.jit
@no_type_check
def load_words(ptr, offsets, mask):
    """Words as unsigned integers; read once, so they may leave the cache first."""
    return tl.load(ptr + offsets, mask=mask, other=0, eviction_policy="evict_first").to(tl.uint32, bitcast=True)


@triton.jit
@no_type_check
def load_high(ptr, offsets, mask, low, BITS: tl.constexpr):
    """Companions widened to 32 bits at 3 bits; at other widths there are none, and what is returned is not used."""
    if BITS == 3:
        return tl.load(ptr + offsets, mask=mask, other=0, eviction_policy="evict_first").to(tl.uint16, bitcast=True).to(tl.uint32)
    else:  # noqa: RET505
        return low


@triton.jit
@no_type_check
def units_dot(
    low, high, one, x_ptr, x_offsets, BITS: tl.constexpr, BLOCK_M: tl.constexpr, ROWS: tl.constexpr, UNITS: tl.constexpr, WORDS: tl.constexpr
):
    """sum x' v over every unit, [BLOCK_M, ROWS, UNITS]; low and high [ROWS, UNITS * WORDS], x_offsets [BLOCK_M, 1, UNITS * WORDS] of field 0.

    Units and words are one axis until the end: then every version of triton lays threads along it in the same way, 4 words each, for words and x.
    """
    WIDTH: tl.constexpr = 2 if BITS == 3 else BITS
    MANTISSA_BIT: tl.constexpr = 14 if BITS == 3 else 15
    total = tl.zeros((BLOCK_M, ROWS, UNITS * WORDS), dtype=tl.float32)
    for byte in tl.static_range(4):
        low_byte = byte_to_mantissa(low, byte, MANTISSA_BIT)
        high_byte = high_to_mantissa(high, byte)
        for field in tl.static_range(8 // WIDTH):
            x = tl.load(x_ptr + (byte * (8 // WIDTH) + field) * UNITS * WORDS + x_offsets)
            total += x * magic(low_byte, high_byte, one, field, BITS, WIDTH, MANTISSA_BIT)[None, :, :]
    return tl.sum(tl.reshape(total, (BLOCK_M, ROWS, UNITS, WORDS)), axis=3)


@triton.jit
@no_type_check
def load_grid(ptr, offsets, mask):
    """Scales or zero points [UNITS, ROWS] as float32 [ROWS, UNITS]: a thread takes those of all its rows in one load."""
    return tl.trans(tl.load(ptr + offsets, mask=mask, other=0).to(tl.float32))


@triton.jit(do_not_specialize=["m", "out_features", "n_units", "rank", "one"])
@no_type_check
def gemv_kernel(
    words_ptr, high_ptr, scale_ptr, zero_ptr,  # the matrix: int32, int16 [rows, units, WORDS]; float16, uint8 [blocks, groups, ROWS]
    x_ptr, sums_ptr, biases_ptr, t_ptr,  # what prepare_kernel made of x: float32, by row of x
    lora_b_ptr, bias_ptr,  # float16 [out, rank]; any dtype [out]
    out_ptr,  # [m, out]
    m, out_features, n_units, rank, one,
    BITS: tl.constexpr,
    WORDS: tl.constexpr,  # words of a unit
    UNITS_PER_GROUP: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,  # rows whose scales are interleaved
    ROWS: tl.constexpr,  # rows of a program: divides BLOCK_ROWS
    UNITS: tl.constexpr,  # units of a tile: 32 per warp
    BLOCK_M: tl.constexpr,  # rows of x of a program
    ZERO: tl.constexpr,  # the zero point of all groups, or -1: read them
    RANK_BLOCK: tl.constexpr,  # power of two >= rank; 0: no adapter
    HAS_BIAS: tl.constexpr,
    OVERLAP: tl.constexpr,  # started before prepare_kernel has ended (sm_90 and newer)
):  # fmt: skip
    """out = x @ dequantize(codes).T + B t + bias for BLOCK_M rows of x and ROWS rows of the matrix. Grid: (all rows / ROWS, m blocks)."""
    FIELDS: tl.constexpr = 16 if BITS == 3 else 32 // BITS
    FIELD_UNIT: tl.constexpr = 512.0 if BITS == 3 else 256.0  # 2**(23 - MANTISSA_BIT)
    first_row = tl.program_id(0).to(tl.int64) * ROWS  # 64 bits: rows * units * words passes 2**31 for large heads
    first_m = tl.program_id(1) * BLOCK_M
    n_tiles = tl.cdiv(n_units, UNITS)
    one |= m >> 31  # 0: but now no compiler knows the value, nor takes it from the constant bank, where it would cost a LOP3 of its own
    n_words = n_units * WORDS
    rows, units, words = tl.arange(0, ROWS), tl.arange(0, UNITS), tl.arange(0, UNITS * WORDS)
    TILE_X: tl.constexpr = FIELDS * UNITS * WORDS

    words_ptr += first_row * n_words
    high_ptr += first_row * n_words
    word_offsets = tl.max_contiguous(rows[:, None] * n_words + words[None, :], [1, WORDS])  # no more than a unit: companions like words
    n_groups = n_units // UNITS_PER_GROUP
    grid_start = first_row // BLOCK_ROWS * BLOCK_ROWS * n_groups + tl.multiple_of(first_row % BLOCK_ROWS, ROWS)
    scale_ptr += grid_start
    zero_ptr += grid_start
    ms, row = first_m + tl.arange(0, BLOCK_M), first_row + rows
    x_offsets = ms[:, None, None] * (n_tiles * TILE_X) + words[None, None, :]
    sum_offsets = first_m * n_tiles * UNITS + units[:, None] * BLOCK_M + tl.arange(0, BLOCK_M)[None, :]

    inside = (words < n_words)[None, :]
    low = load_words(words_ptr, word_offsets, inside)
    high = load_high(high_ptr, word_offsets, inside, low, BITS)
    if RANK_BLOCK:
        ranks = tl.arange(0, RANK_BLOCK)
        b_mask = (row < out_features)[:, None] & (ranks < rank)[None, :]
        b = tl.load(lora_b_ptr + row[:, None] * rank + ranks[None, :], mask=b_mask, other=0.0)  # early: needed last
    if OVERLAP:
        gdc_wait()  # the matrix does not depend on prepare_kernel; everything below does
    total = tl.zeros((BLOCK_M, ROWS, UNITS), dtype=tl.float32)
    for tile in range(n_tiles):
        next_words = (tile + 1) * (UNITS * WORDS)
        inside = (words + next_words < n_words)[None, :]
        next_low = load_words(words_ptr + next_words, word_offsets, inside)
        next_high = load_high(high_ptr + next_words, word_offsets, inside, next_low, BITS)

        groups = (units + tile * UNITS) // UNITS_PER_GROUP
        grid_offsets, grid_mask = groups[:, None] * BLOCK_ROWS + rows[None, :], (groups < n_groups)[:, None]
        scale = load_grid(scale_ptr, grid_offsets, grid_mask)[None, :, :]
        dot = units_dot(low, high, one, x_ptr + tile * TILE_X, x_offsets, BITS, BLOCK_M, ROWS, UNITS, WORDS)
        dot = dot * FIELD_UNIT - tl.trans(tl.load(biases_ptr + tile * (UNITS * BLOCK_M) + sum_offsets))[:, None, :]
        if ZERO < 0:
            sums = tl.trans(tl.load(sums_ptr + tile * (UNITS * BLOCK_M) + sum_offsets))[:, None, :]
            dot -= load_grid(zero_ptr, grid_offsets, grid_mask)[None, :, :] * sums
        total += scale * dot
        low, high = next_low, next_high

    out = tl.sum(total, axis=2)
    if RANK_BLOCK:
        t = tl.load(t_ptr + ms[:, None] * RANK_BLOCK + ranks[None, :])
        out += tl.sum(b.to(tl.float32)[None, :, :] * t[:, None, :], axis=2)
    if HAS_BIAS:
        out += tl.load(bias_ptr + row, mask=row < out_features, other=0.0).to(tl.float32)[None, :]
    out_mask = (ms < m)[:, None] & (row < out_features)[None, :]
    tl.store(out_ptr + ms[:, None].to(tl.int64) * out_features + row[None, :], out.to(out_ptr.dtype.element_ty), mask=out_mask)


@triton.jit(do_not_specialize=["m", "in_features", "n_units", "rank"])
@no_type_check
def prepare_kernel(
    x_ptr, lora_a_ptr,  # [m, in]; float16 [rank, in]
    prepared_ptr, sums_ptr, biases_ptr, t_ptr,
    m, in_features, n_units, rank, scaling,
    BITS: tl.constexpr,
    WORDS: tl.constexpr,
    UNITS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    ZERO: tl.constexpr,
    RANK_BLOCK: tl.constexpr,
    BLOCK_K: tl.constexpr,  # inputs that a program of the adapter reads at once
    OVERLAP: tl.constexpr,
):  # fmt: skip
    """What the main kernel needs of x. Grid: (tiles + RANK_BLOCK, rows of x, padded to BLOCK_M rows that give 0)."""
    if OVERLAP:
        gdc_launch_dependents()
    n_tiles = tl.cdiv(n_units, UNITS)
    if tl.program_id(0) < n_tiles:
        prepare_tile(x_ptr, prepared_ptr, sums_ptr, biases_ptr, m, in_features, n_tiles, BITS, WORDS, UNITS, BLOCK_M, ZERO)
    elif RANK_BLOCK:
        lora_input(x_ptr, lora_a_ptr, t_ptr, m, in_features, n_tiles, rank, scaling, RANK_BLOCK, BLOCK_K)


@triton.jit
@no_type_check
def prepare_tile(
    x_ptr, prepared_ptr, sums_ptr, biases_ptr, m, in_features, n_tiles,
    BITS: tl.constexpr, WORDS: tl.constexpr, UNITS: tl.constexpr, BLOCK_M: tl.constexpr, ZERO: tl.constexpr,
):  # fmt: skip
    """x' of one tile, [fields, UNITS, WORDS], and per unit sum x and what the biases of the codes come to: 2**(23 - MANTISSA_BIT) * sum x'.

    The sums of BLOCK_M rows of x lie side by side, so that a thread takes them in one load. Where all zero points are equal, their part of the
    result (ZERO * sum x) is in the bias too.
    """
    WIDTH: tl.constexpr = 2 if BITS == 3 else BITS
    FIELDS: tl.constexpr = 32 // WIDTH
    FIELD_UNIT: tl.constexpr = 512.0 if BITS == 3 else 256.0
    tile, row = tl.program_id(0), tl.program_id(1)
    inputs = tl.where(row < m, in_features, 0)  # a padded row of x has none
    units, words = tl.arange(0, UNITS), tl.arange(0, WORDS)
    place = units[:, None] * WORDS + words[None, :]
    sums = tl.zeros((UNITS, WORDS), dtype=tl.float32)
    biases = tl.zeros((UNITS, WORDS), dtype=tl.float32)
    for field in tl.static_range(FIELDS):
        k = ((tile * UNITS + units) * FIELDS)[:, None] * WORDS + field * WORDS + words[None, :]
        x = tl.load(x_ptr + row.to(tl.int64) * in_features + k, mask=k < inputs, other=0.0).to(tl.float32)
        scaled = x * (1.0 / (1 << ((field * WIDTH) % 8)))
        tl.store(prepared_ptr + ((row * n_tiles + tile) * FIELDS + field) * (UNITS * WORDS) + place, scaled)
        sums += x
        biases += scaled
    per_unit = (row // BLOCK_M * n_tiles + tile) * (UNITS * BLOCK_M) + units * BLOCK_M + row % BLOCK_M
    unit_sum, bias = tl.sum(sums, axis=1), tl.sum(biases, axis=1) * FIELD_UNIT
    if ZERO < 0:
        tl.store(sums_ptr + per_unit, unit_sum)
    else:
        bias += ZERO * unit_sum
    tl.store(biases_ptr + per_unit, bias)


@triton.jit
@no_type_check
def lora_input(x_ptr, lora_a_ptr, t_ptr, m, in_features, n_tiles, rank, scaling, RANK_BLOCK: tl.constexpr, BLOCK_K: tl.constexpr):
    """One element of t = scaling * A x; 0 beyond the rank and for padded rows of x."""
    component, row = tl.program_id(0) - n_tiles, tl.program_id(1)
    inputs = tl.where(row < m, tl.where(component < rank, in_features, 0), 0)
    total = tl.zeros((BLOCK_K,), dtype=tl.float32)
    for start in range(0, inputs, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        mask = k < inputs
        x = tl.load(x_ptr + row.to(tl.int64) * in_features + k, mask=mask, other=0.0).to(tl.float32)
        total += x * tl.load(lora_a_ptr + component.to(tl.int64) * in_features + k, mask=mask, other=0.0).to(tl.float32)
    tl.store(t_ptr + row * RANK_BLOCK + component, scaling * tl.sum(total, axis=0))


@triton.jit(do_not_specialize=["first_block", "in_features", "n_units", "n_rows", "one"])
@no_type_check
def dequantize_kernel(
    words_ptr, high_ptr, scale_ptr, zero_ptr, out_ptr,
    first_block, in_features, n_units, n_rows, one,
    BITS: tl.constexpr,
    WORDS: tl.constexpr,
    UNITS_PER_GROUP: tl.constexpr,
    ROWS: tl.constexpr,
    UNITS: tl.constexpr,
    ZERO: tl.constexpr,
    PADDED: tl.constexpr,  # the last unit of a row is not full
):  # fmt: skip
    """out[n] = (codes - zero_point) * scale for n_rows rows from row first_block * ROWS on; the arithmetic of `quant.grid.dequantize`, bit for bit.

    Grid: (blocks, tiles).
    """
    WIDTH: tl.constexpr = 2 if BITS == 3 else BITS
    MANTISSA_BIT: tl.constexpr = 14 if BITS == 3 else 15
    FIELDS: tl.constexpr = 32 // WIDTH
    block, tile = (tl.program_id(0) + first_block).to(tl.int64), tl.program_id(1)
    n_words = n_units * WORDS
    rows, units, words = tl.arange(0, ROWS), tile * UNITS + tl.arange(0, UNITS), tile * (UNITS * WORDS) + tl.arange(0, UNITS * WORDS)
    inside = (words < n_words)[None, :]
    offsets = tl.max_contiguous(rows[:, None] * n_words + words[None, :], [1, WORDS])
    low = load_words(words_ptr + block * ROWS * n_words, offsets, inside)
    high = load_high(high_ptr + block * ROWS * n_words, offsets, inside, low, BITS)

    n_groups = n_units // UNITS_PER_GROUP
    groups = units // UNITS_PER_GROUP
    grid_offsets, grid_mask = block * n_groups * ROWS + groups[:, None] * ROWS + rows[None, :], (groups < n_groups)[:, None]
    scale = per_word(load_grid(scale_ptr, grid_offsets, grid_mask), ROWS, UNITS, WORDS)
    if ZERO < 0:
        zero = per_word(load_grid(zero_ptr, grid_offsets, grid_mask), ROWS, UNITS, WORDS)
    else:
        zero = ZERO + 0.0 * scale

    inputs = in_features if PADDED else n_words * FIELDS  # the second is known to be a multiple of 16 bytes, so that stores can be wide
    out_ptr += tl.program_id(0).to(tl.int64) * ROWS * inputs
    pair = tl.arange(0, UNITS * 2 * WORDS)
    first_k = (tile * UNITS + pair // (2 * WORDS)) * (FIELDS * WORDS) + pair % (2 * WORDS)
    row_mask = (tl.program_id(0) * ROWS + rows < n_rows)[:, None]
    for field in tl.static_range(0, FIELDS, 2):
        even = centered(low, high, one, zero, field, BITS, WIDTH, MANTISSA_BIT) * scale
        odd = centered(low, high, one, zero, field + 1, BITS, WIDTH, MANTISSA_BIT) * scale
        weight = in_order(even, odd, ROWS, UNITS, WORDS).to(out_ptr.dtype.element_ty)
        k = first_k + field * WORDS
        tl.store(out_ptr + rows[:, None] * inputs + k[None, :], weight, mask=row_mask & (k < inputs)[None, :])


@triton.jit
@no_type_check
def centered(low, high, one, zero, FIELD: tl.constexpr, BITS: tl.constexpr, WIDTH: tl.constexpr, MANTISSA_BIT: tl.constexpr):
    """code - zero_point of field FIELD of the words: exact, because every step is an integer far below 2**24."""
    PER_BYTE: tl.constexpr = 8 // WIDTH
    UNIT: tl.constexpr = 1 << (23 - MANTISSA_BIT - FIELD % PER_BYTE * WIDTH)
    low_byte, high_byte = byte_to_mantissa(low, FIELD // PER_BYTE, MANTISSA_BIT), high_to_mantissa(high, FIELD // PER_BYTE)
    return magic(low_byte, high_byte, one, FIELD % PER_BYTE, BITS, WIDTH, MANTISSA_BIT) * UNIT - (zero + UNIT)


@triton.jit
@no_type_check
def in_order(even, odd, ROWS: tl.constexpr, UNITS: tl.constexpr, WORDS: tl.constexpr):
    """Two fields of all words [ROWS, UNITS * WORDS] as runs of 2 * WORDS inputs, each in the registers of one thread: one store of 16 bytes."""
    both = tl.reshape(tl.join(even, odd), (ROWS, UNITS, WORDS, 2))
    return tl.reshape(tl.permute(both, (0, 1, 3, 2)), (ROWS, UNITS * 2 * WORDS))


@triton.jit
@no_type_check
def per_word(grid, ROWS: tl.constexpr, UNITS: tl.constexpr, WORDS: tl.constexpr):
    """[ROWS, UNITS] repeated for the words of every unit: [ROWS, UNITS * WORDS]."""
    return tl.reshape(tl.broadcast_to(grid[:, :, None], (ROWS, UNITS, WORDS)), (ROWS, UNITS * WORDS))
