"""BinaryMoS against its equations in float64: products, gradients, what is stored and packed, what runs, what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from salq import recipes
from salq.calibration.engine import calibrate
from salq.calibration.recipe import Recipe
from salq.calibration.store import DirectoryBlocks, MemoryBlocks
from salq.core import events as ev
from salq.core.errors import ConfigError, ShapeError
from salq.kernels.executors import choose
from salq.kernels.signs import SignLinear
from salq.models.llama import Llama
from salq.packing.files import PackedFile, write_packed
from salq.packing.matrix import pack_matrix
from salq.quant.adapter import LoRA
from salq.quant.binary_mos import BinaryMoS, FrozenMoS, ScaleExperts
from salq.quant.frozen import rtn
from salq.quant.size import matrix_bits
from salq.quant.spec import QuantSpec
from tests.contract.test_recipes import RandomSaliency, small
from tests.helpers import assert_close, random_tokens, random_weight
from tests.parity import oracles

SIGNS = QuantSpec(bits=1)
OUT, IN, EXPERTS = 5, 12, 3


def seeded(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def trained(weight: Tensor, experts: int = EXPERTS) -> ScaleExperts:
    """Experts that differ, and a router that decides."""
    made = BinaryMoS(experts=experts).build(weight, SIGNS)
    with torch.no_grad():
        for seed, parameter in enumerate(made.parameters()):
            parameter.mul_(1 + 0.5 * seeded(*parameter.shape, seed=seed).to(parameter))
        made.router.mul_(5)
    return made


def wanted(x: Tensor, weight: Tensor, router: Tensor, scale_in: Tensor, scale_out: Tensor) -> np.ndarray:
    parts = [part.detach().double().numpy() for part in (weight, router, scale_in, scale_out)]
    return np.array([oracles.binary_mos(token.tolist(), *parts) for token in x.reshape(-1, x.shape[-1])]).reshape(*x.shape[:-1], -1)


def test_products_of_every_token() -> None:
    weight, x = seeded(OUT, IN), seeded(2, 4, IN, seed=1)
    weight[0, 0] = 0.0  # counts as +1
    experts = trained(weight)
    assert np.allclose(experts.product(x).detach().numpy(), wanted(x, weight, experts.router, experts.scale_in, experts.scale_out), rtol=1e-12)


def test_gradients_of_experts_router_and_input() -> None:
    experts, x = trained(seeded(OUT, IN)), seeded(3, IN, seed=1).requires_grad_()
    learned = (experts.router, experts.scale_in, experts.scale_out)

    def product(x: Tensor, router: Tensor, scale_in: Tensor, scale_out: Tensor) -> Tensor:
        values = {"router": router, "scale_in": scale_in, "scale_out": scale_out}
        return torch.func.functional_call(_Product(experts), {f"experts.{name}": value for name, value in values.items()}, (x,))

    assert torch.autograd.gradcheck(product, (x, *(parameter.detach().clone().requires_grad_() for parameter in learned)))


class _Product(torch.nn.Module):
    def __init__(self, experts: ScaleExperts) -> None:
        super().__init__()
        self.experts = experts

    def forward(self, x: Tensor) -> Tensor:
        return self.experts.product(x)


def test_experts_start_at_the_best_rank_one_approximation() -> None:
    weight = random_weight(24, 40)
    experts = BinaryMoS(experts=4).build(weight, SIGNS)
    left, values, right = np.linalg.svd(weight.abs().double().numpy(), full_matrices=False)
    want = torch.from_numpy(values[0] * np.abs(np.outer(left[:, 0], right[0])))
    for expert in range(4):
        assert_close("rank 1", torch.outer(experts.scale_out[expert], experts.scale_in[expert]).double(), want, rtol=1e-4)
    gates = torch.nn.functional.linear(torch.randn(50, 40, generator=torch.Generator().manual_seed(0)), experts.router.detach()).softmax(-1)
    assert float(gates.std(dim=0).min()) > 0.01  # the router tells tokens apart, so that experts can learn to differ


@pytest.mark.parametrize("rank", [0, 3])
def test_what_is_stored_runs_and_takes_the_announced_bytes(tmp_path: Path, rank: int) -> None:
    weight = random_weight(33, 64)
    frozen = trained(weight).freeze(weight)
    if rank:
        frozen = FrozenMoS(**{**vars(frozen), "lora_A": seeded(rank, 64).half(), "lora_B": seeded(33, rank, seed=1).half(), "scaling": 0.5})
    packed = pack_matrix(frozen)
    assert sum(tensor.nbytes for tensor in packed.values()) * 8 == sum(matrix_bits(SIGNS, 33, 64, rank, "binary_mos", EXPERTS).values())
    assert packed["qweight.0"].shape == (33, 8)  # eight signs a byte
    write_packed(tmp_path / "x.safetensors", [("m", frozen)])
    read = PackedFile(tmp_path / "x.safetensors").matrix("m")
    assert isinstance(read, FrozenMoS)
    for name, tensor in frozen.tensors().items():
        assert torch.equal(read.tensors()[name], tensor), name
    x, bias = seeded(2, 5, 64, seed=3).float(), seeded(33, seed=4).float()
    want = torch.from_numpy(wanted(x, weight, read.router, read.scale_in, read.scale.T)) + bias.double()
    if read.lora_A is not None and read.lora_B is not None:
        want = want + 0.5 * x.double() @ read.lora_A.double().T @ read.lora_B.double().T
    assert_close("SignLinear", SignLinear(read, bias)(x), want, rtol=1e-4, atol=1e-4)
    (row,) = (PackedFile(tmp_path / "x.safetensors").row("m", 7),)
    assert_close("row", SignLinear(row)(x)[..., 0], SignLinear(read)(x)[..., 7], rtol=1e-5)


def test_only_the_reference_runs_it() -> None:
    frozen = trained(random_weight(32, 64)).freeze(random_weight(32, 64))
    executor, reason = choose(frozen, torch.device("cpu"), torch.float32)
    assert executor.name == "reference"
    assert "binary_mos" in reason
    with pytest.raises(ConfigError, match="cannot run this model"):
        choose(frozen, torch.device("cpu"), torch.float32, "onnxruntime")


def test_who_asks_for_a_weight_is_told() -> None:
    frozen = trained(random_weight(4, 8)).freeze(random_weight(4, 8))
    for ask in (frozen.effective_weight, frozen.dequantize, lambda: frozen.qparams):
        with pytest.raises(ConfigError, match="no weight that all tokens share"):
            ask()


def test_calibration_learns_and_stores_what_ran(tiny: Llama, tmp_path: Path) -> None:
    def run(epochs: int, folder: str) -> tuple[list[ev.Event], DirectoryBlocks]:
        blocks = DirectoryBlocks(tmp_path / folder)
        tokens = random_tokens(tiny.config.vocab_size, 4, 24)
        return list(calibrate(tiny, tokens, small("binary-mos", epochs=epochs, lr_clipping=1e-2), blocks)), blocks

    def errors(events: list[ev.Event]) -> list[float]:
        return [event.output_error for event in events if isinstance(event, ev.BlockDone) and event.output_error is not None]

    (short, _), (long, blocks) = run(1, "short"), run(40, "long")
    assert all(after < 0.9 * before for after, before in zip(errors(long), errors(short), strict=True))
    assert [event.errors for event in long if isinstance(event, ev.BlockDone)] == [{}, {}]  # no weight, no weight error
    for name, linear in blocks.load(0).items():
        assert torch.equal(linear.codes.bool(), tiny.linears(0)[name].weight >= 0)
    learned = blocks.load(0)["mlp.up_proj"]
    assert isinstance(learned, FrozenMoS)
    assert not torch.equal(learned.scale_in[0], learned.scale_in[1])  # the router has told the experts apart


def test_channels_may_be_weighted_by_saliency(tiny: Llama) -> None:
    """The output is compared, not a weight."""
    values = {**small("binary-mos").model_dump(), "saliency": {"n_samples": 4, "seq_len": 24}}
    values["stages"][0]["objective"]["channels"] = "saliency"
    made = Recipe.model_validate(values)
    events = list(calibrate(tiny, random_tokens(tiny.config.vocab_size, 4, 24), made, MemoryBlocks(), RandomSaliency(tiny), n_blocks=1))
    assert isinstance(events[-1], ev.PhaseDone)


def _signs() -> dict[str, object]:
    return {"quantizer": {"kind": "binary_mos"}, "spec": {"bits": 1}}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({}, "a regularizer compares weights"),
        ({"quantizer": {"kind": "lwc"}, "spec": {"bits": 1}}, "1 bit is a sign per weight"),
        ({"spec": {"bits": 2}}, "use --bits 1"),
        ({"spec": {"bits": 1, "symmetric": True}}, "no symmetric grid"),
        ({"stages": (), "adapter": LoRA(rank=2, start="residual").model_dump()}, "adapters cannot start"),
        ({"stages": (), "distillation": {"steps": 1}}, "uniform grid"),
    ],
)
def test_what_needs_a_weight_is_refused_before_any_work(change: dict[str, object], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Recipe.model_validate({**small("sapr").model_dump(), **_signs(), **change})


def test_signs_are_no_grid() -> None:
    with pytest.raises(ConfigError, match="only recipe binary-mos"):
        rtn(random_weight(4, 8), QuantSpec(bits=1, group_size=None))
    with pytest.raises(ConfigError, match="1 bit"):
        recipes.get("binary-mos", bits=3)
    with pytest.raises(ConfigError, match="binary-mos"):
        recipes.get("rtn", bits=1)
    broken = random_weight(4, 8)
    broken[1, 2] = torch.inf
    with pytest.raises(ShapeError, match="NaN or infinite"):
        BinaryMoS().build(broken, SIGNS)
