"""Every shipped kernel compiles for GPUs that are not here, without spilled registers, and unpacks a weight in the stated number of instructions."""

import importlib.util
from pathlib import Path

import pytest

from salq.core.errors import ResourceError
from salq.kernels.triton_compile import Variant, compile_variant, loop_counts, shipped

pytestmark = pytest.mark.interpret  # like the interpreter, this needs triton and no GPU

INTEGER_LIMIT = {2: 1.5, 3: 2.9, 4: 2.0, 8: 2.7}
"""Integer instructions per weight at one row of x: 1.25, 2.5, 1.5 and 2 (see `triton_kernels.py`), and what a unit costs beside its weights."""


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


@pytest.mark.parametrize("variant", list(shipped(block_ms=(1, 4))), ids=lambda variant: f"{variant.kernel}-w{variant.bits}-m{variant.block_m}")
def test_compiles_for_hopper(variant: Variant) -> None:
    compiled = compile_variant(variant, 90)
    assert compiled.stack_bytes == 0, "registers are spilled"
    assert compiled.registers <= 255
    if variant.kernel == "gemv_kernel" and variant.block_m == 1:
        assert compiled.integer_per_weight is not None
        assert compiled.integer_per_weight <= INTEGER_LIMIT[variant.bits]


@pytest.mark.parametrize("capability", [80, 89])
@pytest.mark.parametrize("bits", [2, 3])
def test_compiles_for_ampere_and_ada(bits: int, capability: int) -> None:
    compiled = compile_variant(Variant("gemv_kernel", bits, 4096, 64, 1, -1, 64, "bfloat16"), capability)
    assert compiled.stack_bytes == 0, "registers are spilled"
    assert compiled.integer_per_weight is not None
    assert compiled.integer_per_weight <= INTEGER_LIMIT[bits]


LOOP = """
        /*0000*/                   MOV R1, c[0x0][0x28] ;
        /*0010*/                   LOP3.LUT R2, R3, 0x600000, R4, 0xec, !PT ;
        /*0020*/                   FFMA R5, R6, R2, R5 ;
        /*0030*/                   IMAD.MOV.U32 R7, RZ, RZ, R5 ;
        /*0040*/                   FFMA R8, R6, R2, R8 ;
        /*0050*/              @P0  BRA 0x10 ;
        /*0060*/                   BRA 0x60 ;
"""


def test_the_counter_itself() -> None:
    assert loop_counts(LOOP, products=2) == (0.5, 2.5)
    assert loop_counts(LOOP, products=1) == (0.5, 2.5)  # twice unrolled
    with pytest.raises(ResourceError, match="no loop"):
        loop_counts("", products=1)


def test_triton_brings_the_disassembler() -> None:
    """Otherwise the counts above could not be read in a plain installation."""
    import triton

    assert importlib.util.find_spec("triton") is not None
    assert Path(triton.knobs.nvidia.cuobjdump.path).is_file()
