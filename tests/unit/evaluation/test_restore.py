"""Where it breaks: the shared walk through the model gives what restoring one part and running the whole model gives."""

import dataclasses
from copy import deepcopy

import pytest
from torch import Tensor

from salq.core.drain import drain
from salq.core.errors import ConfigError, ModelError
from salq.core.events import PhaseDone, PhaseStarted, PhaseStep
from salq.evaluation import restore
from salq.evaluation.restore import Breakdown, Variant, break_down, kl_restored
from salq.evaluation.tokens import score_tokens
from salq.kernels.assemble import quantized_copy, rtn_blocks
from salq.models.llama import LINEARS, Llama, load_model
from salq.models.tiny import save_tiny
from salq.quant.spec import QuantSpec

SPEC = QuantSpec(bits=2, group_size=32)


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Llama:
    """A tiny LLaMA of 4 blocks."""
    return load_model(str(save_tiny(tmp_path_factory.mktemp("four") / "tiny-four", seed=3, n_blocks=4)), device="cpu")


def directly(original: Llama, variant: Variant, ids: list[int]) -> float:
    """The KL of the last prediction with a model that is put together for this one variant."""
    frozen = rtn_blocks(original, SPEC)
    kept = {index: {name: one for name, one in block.items() if (index, name) not in variant} for index, block in frozen.items()}
    return score_tokens(original, quantized_copy(original, kept), ids)[-1].kl


@pytest.mark.parametrize("at_once", [4096, 5])
def test_every_block_and_every_kind_of_matrix(four: Llama, tokens: Tensor, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restore, "BATCH_TOKENS", at_once)  # 5: one variant after the other
    ids, position = (tokens[0] % four.config.vocab_size).tolist(), 12
    quantized = quantized_copy(four, rtn_blocks(four, SPEC))
    found = drain(break_down(four, quantized, ids, position))
    upto = ids[: position + 1]
    assert found.position == position
    assert found.kl == pytest.approx(score_tokens(four, quantized, ids)[position - 1].kl, rel=1e-3)
    for index, left in enumerate(found.blocks):
        assert left == pytest.approx(directly(four, frozenset((index, name) for name in LINEARS), upto), rel=1e-3, abs=1e-6)
    for name, left in found.matrices.items():
        assert left == pytest.approx(directly(four, frozenset((index, name) for index in range(4)), upto), rel=1e-3, abs=1e-6)
    assert list(found.matrices) == list(LINEARS)
    assert found.block_shares == pytest.approx([1 - left / found.kl for left in found.blocks])


def test_any_set_of_matrices_and_everything_restored_is_the_original(four: Llama, tokens: Tensor) -> None:
    ids = (tokens[1] % four.config.vocab_size).tolist()
    quantized = quantized_copy(four, rtn_blocks(four, SPEC))
    everything = frozenset((index, name) for index in range(4) for name in LINEARS)
    mixed = frozenset({(0, "mlp.down_proj"), (2, "self_attn.v_proj"), (2, "self_attn.q_proj"), (3, "mlp.up_proj")})
    nothing, whole, some, again = drain(kl_restored(four, quantized, ids[:-1], [frozenset(), everything, mixed, mixed]))
    assert whole < 1e-9
    assert some == again == pytest.approx(directly(four, mixed, ids), rel=1e-3)
    assert nothing == pytest.approx(directly(four, frozenset(), ids), rel=1e-3)


def test_events_tell_how_far_it_is(four: Llama) -> None:
    events = list(break_down(four, quantized_copy(four, rtn_blocks(four, SPEC)), [5, 6, 7], 1))
    assert isinstance(events[0], PhaseStarted)
    assert [event.done for event in events if isinstance(event, PhaseStep)] == [1, 2, 3, 4]
    assert isinstance(events[-1], PhaseDone)


def test_what_cannot_be_restored_is_said(four: Llama, tiny: Llama) -> None:
    quantized = quantized_copy(four, rtn_blocks(four, SPEC))
    for position in (0, 3, -1):
        with pytest.raises(ConfigError, match="is not predicted"):
            drain(break_down(four, quantized, [5, 6, 7], position))
    other = dataclasses.replace(tiny, tokenizer=four.tokenizer, model=deepcopy(tiny.model))
    with pytest.raises(ModelError, match="not made from"):
        drain(break_down(four, other, [5, 6, 7], 1))


def test_the_reading_is_honest() -> None:
    found = Breakdown(3, 2.0, (1.0, 2.5, 0.5), {"self_attn.q_proj": 1.9, "mlp.down_proj": 0.2})
    assert found.block_shares == pytest.approx((0.5, -0.25, 0.75))
    assert "block 2 alone removes 75%" in found.reading
    assert "mlp.down_proj in all blocks removes 90%" in found.reading
    assert "sum to 100%" in found.reading
    assert "do not add up" in found.reading
    assert "One block alone makes it larger" in found.reading
    assert "nothing to put back" in Breakdown(3, 0.0, (0.0,), {"mlp.up_proj": 0.0}).reading
