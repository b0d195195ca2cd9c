"""A short part of benchmarks/fuzz.py: whatever the bytes, nothing but a SalqError, and nothing that hangs."""

import os
from pathlib import Path

import pytest

from benchmarks.fuzz import HANG_SECONDS, Fuzzer, merged
from benchmarks.fuzz_targets import PARTS

INPUTS = {"packed": 300, "safetensors": 250, "gguf": 150, "events": 120, "links": 250, "requests": 120}


@pytest.mark.parametrize("part", INPUTS)
def test_nothing_is_found(part: str, tmp_path: Path) -> None:
    found = Fuzzer(PARTS[part](tmp_path), seed=os.getpid()).run(INPUTS[part])
    assert found.findings == []
    assert found.inputs == INPUTS[part]
    assert found.lines > 20
    assert found.slowest_seconds < HANG_SECONDS


def test_pieces_add_up(tmp_path: Path) -> None:
    piece = Fuzzer(PARTS["links"](tmp_path), seed=1).run(10)
    assert merged(merged({}, piece), piece)["inputs"] == 20
