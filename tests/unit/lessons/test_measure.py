"""Measuring the lessons' material on a tiny model: its parts agree with each other and with the model."""

import pytest
import torch

from salq.core.drain import drain
from salq.data.sources import load_text
from salq.evaluation.errors import output_error
from salq.evaluation.scores import perplexity
from salq.kernels.assemble import quantized_copy, rtn_blocks
from salq.lessons.facts import left
from salq.lessons.measure import Wanted, dense_copy, input_moment, measure
from salq.models.llama import Llama
from salq.quant.frozen import rtn
from salq.quant.spec import QuantSpec
from salq.saliency.maps import compute_saliency
from tests.helpers import random_tokens


def test_the_material_of_a_tiny_model(tiny: Llama, tokens: torch.Tensor) -> None:
    saliency = drain(compute_saliency(tiny, load_text("bundled", "calibration"), n_samples=2, seq_len=32))
    windows = random_tokens(tiny.config.vocab_size, 1, 48, seed=1)
    sides = {"8 bits": rtn_blocks(tiny, QuantSpec(bits=8, group_size=64))}
    told: list[str] = []
    found = measure(
        tiny, saliency, tokens, windows, Wanted((1, "mlp.down_proj", 3, 0), "self_attn.q_proj", "Hello", "Tiny", "A note."), sides, told.append
    )
    assert len(told) == 4
    weight = tiny.linears(1)["mlp.down_proj"].weight.detach()
    residual_share = output_error(
        weight, rtn(weight, QuantSpec(bits=3, group_size=64)).effective_weight(), input_moment(tiny, tokens, 1, "mlp.down_proj")
    )
    assert found.spectrum.output_norm is not None
    assert sum(one * one for one in found.spectrum.output["3"]) ** 0.5 / found.spectrum.output_norm == pytest.approx(residual_share, rel=1e-3)
    assert left(found.spectrum.weight["3"], 0) == 1
    for way in found.travel.values():
        assert way.together[0] == pytest.approx(way.alone[0], rel=1e-3)
        assert way.without[1][0] == way.together[0]
        assert way.without[0][0] == 0
    assert found.travel["2"].together[-1] > found.travel["4"].together[-1]
    budget = found.budget
    assert budget is not None
    uniform, dealt, _ = budget.measured
    assert dealt.predicted <= uniform.predicted
    want = perplexity(quantized_copy(tiny, rtn_blocks(tiny, QuantSpec(bits=3, group_size=64))), windows).value
    assert uniform.perplexity == pytest.approx(want, rel=1e-3)
    assert 0 < found.shares["left_saliency"] < 1
    talk = found.talk
    assert talk is not None
    assert set(talk.sides) == {"rtn w4g64", "rtn w3g64", "rtn w2g64", "8 bits"}
    mean = {name: sum(one.kl for one in side) / len(side) for name, side in talk.sides.items()}
    assert mean["8 bits"] < mean["rtn w4g64"] < mean["rtn w2g64"]


def test_a_dense_copy_answers_as_the_quantized_one(tiny: Llama, tokens: torch.Tensor) -> None:
    frozen = rtn_blocks(tiny, QuantSpec(bits=3, group_size=64))
    before = tiny.linears(0)["mlp.up_proj"].weight.clone()
    one, other = (made.model(input_ids=tokens).logits for made in (dense_copy(tiny, frozen), quantized_copy(tiny, frozen)))
    assert torch.allclose(one, other, atol=1e-4)
    assert torch.equal(tiny.linears(0)["mlp.up_proj"].weight, before)
