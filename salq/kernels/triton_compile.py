"""Compiles the shipped kernels for a GPU that need not be here, and reads registers, spills and instructions per weight from the machine code.

triton brings ptxas, nvdisasm and cuobjdump along, so that this works in a plain installation; where cuobjdump is missing, so are the figures.
"""

import dataclasses
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from salq.core.errors import ResourceError
from salq.kernels.triton_configs import KernelConfig, config_for, register_limit
from salq.kernels.triton_launch import BLOCK_K, OPTIONS, PREPARE_WARPS
from salq.kernels.triton_layout import WordLayout

MOVES = ("IMAD.MOV", "MOV", "HFMA2.MMA R", "CS2R", "UMOV")
INTEGER = "LOP3 SHF IADD3 IMAD LEA PRMT ISETP VIADD IABS SEL SGXT BFE BFI I2F I2FP F2I VIMNMX IMNMX".split()
"""Opcodes that run on the integer units; moves and the uniform datapath (one instruction per warp, U...) do not count."""

_INSTRUCTION = re.compile(r"^\s+/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?(.*?);")
_POINTERS = {"words_ptr": "*i32", "scale_ptr": "*fp16", "zero_ptr": "*u8", "lora_a_ptr": "*fp16", "lora_b_ptr": "*fp16"}
_TYPED = ("out_ptr", "bias_ptr")
_TORCH_NAMES = {"float16": "fp16", "bfloat16": "bf16", "float32": "fp32"}


class Variant(NamedTuple):
    """One kernel as it would be compiled for a matrix: everything that is constant in it."""

    kernel: str
    bits: int
    in_features: int
    group_size: int | None
    block_m: int
    zero: int
    rank_block: int
    dtype: str

    @property
    def layout(self) -> WordLayout:
        """The layout of a matrix of 4096 rows."""
        layout = WordLayout.of(self.bits, (4096, self.in_features), self.group_size, rows=1)
        return dataclasses.replace(layout, rows=config_for(layout.units).rows)

    @property
    def config(self) -> KernelConfig:
        """The shipped setting for it."""
        return config_for(self.layout.units)


class Compiled(BaseModel):
    """What came out of one compilation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kernel: str = Field(description="Name of the Triton function.")
    bits: int = Field(description="Width of a code in bits.")
    in_features: int = Field(description="Inputs of the matrix.")
    group_size: int | None = Field(description="Inputs per scale; none: a whole row.")
    block_m: int = Field(description="Rows of x per program.")
    zero: int = Field(description="Zero point of all groups, or -1: one per group is read.")
    rank_block: int = Field(description="Rank of the adapter rounded up to a power of two; 0: none.")
    dtype: str = Field(description="dtype of x and of the result.")
    capability: int = Field(description="Compute capability of the target, times 10.")
    triton: str = Field(description="Version of triton.")
    rows: int = Field(description="Rows of the matrix per program.")
    warps: int = Field(description="Warps per program.")
    registers: int = Field(description="Registers per thread.")
    stack_bytes: int = Field(description="Stack per thread in bytes; more than 0 are spilled registers.")
    shared_bytes: int = Field(description="Shared memory per program in bytes.")
    integer_per_weight: float | None = Field(description="Integer instructions per weight of the main loop.")
    instructions_per_weight: float | None = Field(description="All instructions per weight in the main loop.")


def shipped(block_ms: tuple[int, ...] = (1, 2, 4)) -> Iterator[Variant]:
    """The kernels of one usual matrix (4096 inputs, groups of 64, float16, asymmetric, an adapter of rank 64) at every width."""
    for bits in (2, 3, 4, 8):
        yield from (Variant("gemv_kernel", bits, 4096, 64, block_m, -1, 64, "float16") for block_m in block_ms)
        yield Variant("prepare_kernel", bits, 4096, 64, 1, -1, 64, "float16")
        yield Variant("dequantize_kernel", bits, 4096, 64, 1, -1, 0, "float16")


def shipped_in_full() -> Iterator[Variant]:
    """Every width x group size x dtype x kind of zero point x adapter, and the classes of row length that differ in their setting."""
    yield from shipped()
    for bits in (2, 3, 4, 8):
        for group_size in (16, 32, 64, 96, 128, 256, None):
            inputs = 4608 if group_size == 96 else 4096
            yield Variant("gemv_kernel", bits, inputs, group_size, 1, -1, 64, "bfloat16")
            yield Variant("gemv_kernel", bits, inputs, group_size, 1, 1, 0, "float32")
        for inputs in (576, 1536, 11008, 14336):
            yield Variant("gemv_kernel", bits, inputs, 64, 1, -1, 64, "float16")


def compile_variant(variant: Variant, capability: int) -> Compiled:
    """Compile for compute capability `capability` / 10. Raises ResourceError when the machine code cannot be read."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from salq.kernels import triton_kernels

    function, config = getattr(triton_kernels, variant.kernel), variant.config
    constants, warps, rows = _constants(variant, function.arg_names)
    signature = {name: "constexpr" if name in constants else _type_of(name, variant) for name in function.arg_names}
    aligned: Any = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(function.arg_names) if signature[name].startswith("*")}
    source = ASTSource(fn=function, signature=signature, constexprs=constants, attrs=aligned)
    options: dict[str, Any] = {"num_warps": warps, **OPTIONS}
    if variant.kernel == "gemv_kernel":
        options["maxnreg"] = register_limit(variant.bits, variant.block_m)
    kernel = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    usage, code = _cuobjdump(kernel.asm["cubin"])
    weights = rows * variant.layout.words * variant.layout.fields * config.units // (32 * warps)
    counts = loop_counts(code, weights * variant.block_m) if variant.kernel == "gemv_kernel" else None
    return Compiled(
        **variant._asdict(), capability=capability, triton=triton.__version__, rows=rows, warps=warps, shared_bytes=kernel.metadata.shared,
        registers=int(usage["REG"]), stack_bytes=int(usage["STACK"]),
        integer_per_weight=None if counts is None else round(counts[0] * variant.block_m, 3),
        instructions_per_weight=None if counts is None else round(counts[1] * variant.block_m, 3),
    )  # fmt: skip


def loop_counts(code: str, products: int) -> tuple[float, float]:
    """(integer, all) instructions per product in the longest loop of a disassembly, whose body holds a whole number of times `products` FFMA."""
    lines = [(int(found[1], 16), found[2]) for found in map(_INSTRUCTION.match, code.splitlines()) if found]
    bodies = [[line for line in lines if target <= line[0] <= address] for address, target in _backward(lines)]
    if not bodies:
        raise ResourceError("The compiled kernel has no loop to count; its code is not what this counter was written for.")
    body = [text for _, text in max(bodies, key=len)]
    opcodes = Counter(text.split()[0].partition(".")[0] for text in body if not text.startswith(MOVES))
    copies = max(1, round(opcodes["FFMA"] / products))
    return sum(opcodes[name] for name in INTEGER) / (copies * products), len(body) / (copies * products)


def _backward(lines: list[tuple[int, str]]) -> Iterator[tuple[int, int]]:
    """(address, target) of the branches that go back, without the endless loop that ends every kernel."""
    for address, text in lines:
        found = re.match(r"BRA.*?0x([0-9a-f]+)", text)
        if found and int(found[1], 16) < address:
            yield address, int(found[1], 16)


def _constants(variant: Variant, names: list[str]) -> tuple[dict[str, Any], int, int]:
    """(constants of the compilation, warps, rows of a program)."""
    layout, config = variant.layout, variant.config
    rows = config.program_rows(variant.block_m) if variant.kernel == "gemv_kernel" else config.rows
    values = {
        "BITS": variant.bits, "WORDS": layout.words, "UNITS_PER_GROUP": layout.units_per_group, "BLOCK_ROWS": config.rows, "ROWS": rows,
        "UNITS": config.units, "BLOCK_M": variant.block_m, "ZERO": variant.zero, "RANK_BLOCK": variant.rank_block, "HAS_BIAS": True,
        "BLOCK_K": BLOCK_K, "PADDED": layout.padded, "OVERLAP": config.overlap,
    }  # fmt: skip
    warps = PREPARE_WARPS if variant.kernel == "prepare_kernel" else config.warps
    return {name: value for name, value in values.items() if name in names}, warps, rows


def _type_of(name: str, variant: Variant) -> str:
    """Triton's name for the type of an argument."""
    if name == "high_ptr":
        return "*i16" if variant.bits == 3 else "*i32"
    if name in _TYPED or (name == "x_ptr" and variant.kernel == "prepare_kernel"):
        return "*" + _TORCH_NAMES[variant.dtype]
    return _POINTERS.get(name) or ("*fp32" if name.endswith("_ptr") else "fp32" if name == "scaling" else "i32")


def _cuobjdump(cubin: bytes) -> tuple[dict[str, str], str]:
    """(resource usage, disassembly)."""
    import triton

    tool = triton.knobs.nvidia.cuobjdump.path
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        outputs = []
        for option in ("-res-usage", "-sass"):
            done = subprocess.run([tool, option, str(path)], capture_output=True, text=True, check=False)
            if done.returncode:
                raise ResourceError(f"cuobjdump {option} failed on a compiled kernel: {done.stderr.strip() or done.stdout.strip()}")
            outputs.append(done.stdout + done.stderr)
    return dict(re.findall(r"([A-Z]+):(\d+)", outputs[0])), outputs[1]
