"""Benchmarks measure what they say, and refuse to time what is wrong."""

import pytest

from salq.core.errors import ConfigError
from salq.kernels import measure
from salq.models.llama import Llama
from salq.quant.spec import QuantSpec


def test_products_of_every_executor_are_checked_and_timed() -> None:
    found = measure.kernel_times((64, 128), [QuantSpec(bits=2, group_size=64), QuantSpec(bits=8, group_size=64)], calls=3)
    names = [timing.name for timing in found]
    assert names == ["torch float32", "onnxruntime w2g64", "torch-int4 w2g64", "reference w2g64", "onnxruntime w8g64", "reference w8g64"]
    assert all(timing.seconds > 0 and timing.calls == 3 for timing in found)
    assert found[0].bytes == 64 * 128 * 4
    assert found[1].bytes == 64 * 128 * 2 // 8 + 128 * 2 + 128 * 2 // 8


def test_decoding_and_prompts_of_original_and_rounded_models(tiny: Llama) -> None:
    spec = QuantSpec(bits=4, group_size=64)
    found = measure.decode_times(tiny, [spec], rank=2, prompt_tokens=4, tokens=3, rounds=1, head=True)
    packed = ["engine, w4g64", "engine, w4g64 adapters r2"]
    names = ["transformers, original", "engine, original", *packed, *(f"{name}, 8-bit head" for name in packed)]
    assert [timing.name for timing in found] == names
    assert all(timing.seconds > 0 for timing in found)
    assert found[2].note.startswith("onnxruntime")
    assert found[2].bytes < found[1].bytes
    found = measure.prefill_times(tiny, [spec], tokens=5, rounds=1)
    assert [timing.name for timing in found] == ["transformers, original", "engine, original", "engine, w4g64"]


def test_what_is_wrong_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "ROUNDED", 1e-9)
    with pytest.raises(ConfigError, match="Contender 'onnxruntime w4g64' is wrong"):
        measure.kernel_times((16, 64), [QuantSpec(bits=4, group_size=64)], calls=3)
