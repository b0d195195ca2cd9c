"""Executors against float64, how one is chosen, and what happens when one fails."""

import copy
import importlib.util
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from salq.core.errors import ConfigError, UnknownNameError
from salq.kernels import executors as ex
from salq.kernels.assemble import execution, fill, quantized_copy, round_head, rtn_blocks
from salq.kernels.groups import GroupedLinear, LinearGroup, shared_group
from salq.kernels.int4_linear import Int4Linear
from salq.kernels.onnx_linear import OnnxLinear
from salq.models.llama import Llama, load_model
from salq.quant.frozen import FrozenLinear, merged, rtn
from salq.quant.spec import BITS, QuantSpec
from tests.helpers import assert_close, random_tokens, random_weight

CPU = torch.device("cpu")
INT8 = 0.02
"""Relative error that 8-bit activations may add: 0.4 % of a block's largest input on average, and normal inputs have no outliers."""


def frozen_linear(
    shape: tuple[int, int], bits: int, group_size: int | None, *, symmetric: bool = False, rank: int = 0, seed: int = 0
) -> FrozenLinear:
    frozen = rtn(random_weight(*shape, seed=seed), QuantSpec(bits=bits, group_size=group_size, symmetric=symmetric))
    if not rank:
        return frozen
    generator = torch.Generator().manual_seed(seed + 1)
    adapter = (torch.randn(*size, generator=generator).mul_(0.1).half() for size in ((rank, shape[1]), (shape[0], rank)))
    return FrozenLinear(frozen.spec, frozen.codes, frozen.scale, frozen.zero_point, *adapter, 0.5)


def in_float64(frozen: FrozenLinear, x: Tensor, bias: Tensor | None) -> Tensor:
    """x @ ((q - z) * s + scaling * B @ A).T + bias from the definitions, in float64."""
    size = frozen.codes.shape[1] // frozen.scale.shape[1]
    zero, scale = (part.double().repeat_interleave(size, 1) for part in (frozen.zero_point, frozen.scale))
    weight = (frozen.codes.double() - zero) * scale
    if frozen.lora_A is not None and frozen.lora_B is not None:
        weight = weight + frozen.scaling * frozen.lora_B.double() @ frozen.lora_A.double()
    return x.double() @ weight.T + (0 if bias is None else bias.double())


def relative(got: Tensor, want: Tensor) -> float:
    return float((got.double() - want).norm() / want.norm())


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize(
    ("shape", "group_size", "symmetric", "rank"),
    [((33, 96), 32, False, 0), ((7, 192), 96, True, 3), ((64, 576), 64, False, 8), ((5, 64), None, False, 2), ((16, 48), 16, True, 0)],
)
def test_onnxruntime_against_float64(bits: int, shape: tuple[int, int], group_size: int | None, symmetric: bool, rank: int) -> None:
    frozen = frozen_linear(shape, bits, group_size, symmetric=symmetric, rank=rank)
    x, bias = torch.randn(2, 3, shape[1], generator=torch.Generator().manual_seed(5)), torch.randn(shape[0])
    assert relative(OnnxLinear([frozen], [bias])(x), in_float64(frozen, x, bias)) < INT8


def test_the_weights_that_onnxruntime_sees_are_exact() -> None:
    """Inputs that 8 bits hold without rounding (0 and one other value per block) leave no error but float32's."""
    for bits in BITS:
        frozen = frozen_linear((20, 128), bits, 64)
        for column in (0, 63, 64, 127):
            x = torch.zeros(1, 128)
            x[0, column] = 127.0
            assert_close(f"{bits} bits", OnnxLinear([frozen], [None])(x), in_float64(frozen, x, None), rtol=1e-5, atol=1e-5)


def test_linears_with_one_input_run_as_one() -> None:
    linears = [frozen_linear((size, 64), 3, 32, rank=rank, seed=size) for size, rank in ((24, 4), (8, 0), (16, 2))]
    biases = [torch.randn(24), None, torch.randn(16)]
    x = torch.randn(5, 64)
    want = torch.cat([in_float64(linear, x, bias) for linear, bias in zip(linears, biases, strict=True)], dim=-1)
    assert relative(OnnxLinear(linears, biases)(x), want) < INT8
    one = merged(linears)
    assert relative(ex.Reference().build([one], [None])(x), want - torch.cat([biases[0], torch.zeros(8), biases[2]]).double()) < 1e-3  # type: ignore[list-item]


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_torch_int4_against_float64(bits: int) -> None:
    frozen = frozen_linear((48, 192), bits, 64, rank=4)
    x, bias = torch.randn(2, 3, 192), torch.randn(48)
    # bfloat16 keeps 8 significant bits of activations and scales
    assert relative(Int4Linear(frozen, bias)(x), in_float64(frozen, x, bias)) < 0.01


def test_choice_says_what_runs_and_why() -> None:
    executor, reason = ex.choose(frozen_linear((8, 64), 3, 64), CPU, torch.float32)
    assert executor.name == "onnxruntime"
    assert reason == "onnxruntime MatMulNBits: 3-bit codes held in 4 on the CPU, activations in 8 bits"
    executor, reason = ex.choose(frozen_linear((8, 64), 3, 8), CPU, torch.float32)
    assert executor.name == "reference"
    assert "onnxruntime: group size 8 is not a multiple of 16" in reason
    executor, reason = ex.choose(frozen_linear((32, 64), 4, 64), CPU, torch.bfloat16)
    assert executor.name == "torch-int4"
    assert "computes in bfloat16" in reason


def test_without_onnxruntime_the_next_one_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnxruntime" else found(name))
    executor, reason = ex.choose(frozen_linear((32, 64), 4, 64), CPU, torch.float32)
    assert executor.name == "torch-int4"
    assert "not installed" in reason
    assert ex.choose(frozen_linear((8, 64), 8, 64), CPU, torch.float32)[0].name == "reference"


def test_a_wanted_executor_runs_or_is_refused_in_one_sentence() -> None:
    assert ex.choose(frozen_linear((8, 64), 3, 64), CPU, torch.float32, "reference")[0].name == "reference"
    with pytest.raises(ConfigError, match="Executor triton cannot run this model: it works on a GPU, and the model is on cpu; use"):
        ex.choose(frozen_linear((8, 64), 3, 64), CPU, torch.float32, "triton")
    with pytest.raises(UnknownNameError, match="Executor 'fastest' is not known"):
        ex.Executors("fastest")


class Broken(ex.OnnxRuntime):
    """Builds nothing, or builds what fails when it is called."""

    def __init__(self, when: str) -> None:
        self.when = when

    def build(self, linears: object, biases: object) -> nn.Module:
        if self.when == "building":
            raise OSError("no compiler")
        return nn.Threshold(float("inf"), float("nan"))  # every element becomes NaN


@pytest.mark.parametrize(("when", "words"), [("building", "no compiler"), ("calling", "not finite")])
def test_what_fails_gives_way_and_is_said(when: str, words: str, tiny: Llama, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ex, "EXECUTORS", (Broken(when), ex.Reference()))
    frozen = rtn_blocks(tiny, QuantSpec(bits=4, group_size=64))
    said = execution(quantized_copy(tiny, frozen, "auto"))
    assert said.startswith("torch reference")
    assert f"onnxruntime: it failed ({words}" in said.replace("its first result is ", "")
    with pytest.raises(ConfigError, match="Executor onnxruntime cannot run this model: it failed"):
        quantized_copy(tiny, frozen, "onnxruntime")


def test_the_model_runs_on_every_executor(tiny: Llama, tiny_folder: object) -> None:
    frozen = rtn_blocks(tiny, QuantSpec(bits=3, group_size=64))
    tokens = random_tokens(tiny.config.vocab_size, n_samples=2, seq_len=12)
    want = quantized_copy(tiny, frozen).model(tokens).logits
    for name in ("onnxruntime", "torch-int4"):
        got = quantized_copy(tiny, frozen, name)
        # rounded activations add up over the blocks
        assert float((got.model(tokens).logits - want).norm() / want.norm()) < 0.05, name
    alone = fill(load_model(str(tiny_folder), device="cpu"), {index: partial(dict, block) for index, block in frozen.items()})
    assert execution(alone) == "onnxruntime MatMulNBits: 3-bit codes held in 4 on the CPU, activations in 8 bits"
    assert execution(tiny) == "torch float32"
    assert isinstance(alone.linears(0)["self_attn.k_proj"], GroupedLinear)
    ids = alone.model.generate(tokens[:1], max_new_tokens=4, do_sample=False, pad_token_id=0)
    assert ids.shape == (1, 16)


def test_a_head_in_8_bits_changes_the_logits_little_and_says_so(tiny: Llama) -> None:
    rounded = round_head(tiny)
    tokens = random_tokens(tiny.config.vocab_size, n_samples=1, seq_len=8)
    want = tiny.model(tokens).logits
    assert float((rounded.model(tokens).logits - want).norm() / want.norm()) < 0.02
    assert execution(rounded) == "torch float32; the head in 8 bits"
    assert isinstance(tiny.model.lm_head, nn.Linear)
    assert rounded.model.model.embed_tokens.weight is tiny.model.model.embed_tokens.weight


def test_siblings_are_computed_once_and_never_mixed_up() -> None:
    calls = []

    class Counting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            calls.append(x)
            return torch.cat([x, 2 * x], dim=-1)

    group = LinearGroup(Counting(), (4, 4))
    spec = QuantSpec(bits=4, group_size=4)
    first, second = GroupedLinear(group, 0, 4, spec), GroupedLinear(group, 1, 4, spec)
    x, other = torch.ones(1, 4), torch.full((1, 4), 3.0)
    assert torch.equal(second(x), 2 * x)
    assert torch.equal(first(x), x)
    assert len(calls) == 1
    assert torch.equal(first(x), x)  # asked again: computed again, not taken from another input's rest
    assert torch.equal(second(other), 2 * other)
    assert len(calls) == 3
    assert shared_group([first, second]) is group
    assert shared_group([second, first]) is None
    assert shared_group([first]) is None
    pair = copy.deepcopy(nn.ModuleList([first, second]))
    assert pair[0].group is pair[1].group
