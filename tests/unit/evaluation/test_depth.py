"""The way of an error: against whole models that were quantized block by block, and never a trace left in the model."""

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from salq.core.drain import drain
from salq.evaluation.depth import depth_errors
from salq.models.capture import capture_block_inputs, relative_error, run_block
from salq.models.llama import LINEARS, Llama
from salq.quant.frozen import rtn
from salq.quant.spec import QuantSpec

W2, W3 = QuantSpec(bits=2, group_size=32), QuantSpec(bits=3, group_size=32)


def hidden_after(model: Llama, tokens: Tensor, rounded: set[int], spec: QuantSpec) -> list[Tensor]:
    """Hidden states after every block of a copy whose blocks in `rounded` are quantized: the slow way."""
    inputs = capture_block_inputs(model, tokens)
    state, found = inputs.hidden.clone(), []
    for index, block in enumerate(model.blocks):
        copied = deepcopy(block)
        for name in LINEARS:
            linear = copied.get_submodule(name)
            assert isinstance(linear, nn.Linear)
            if index in rounded:
                linear.weight = nn.Parameter(rtn(linear.weight.detach(), spec).effective_weight(), requires_grad=False)
        with torch.no_grad():
            state = run_block(copied, state, inputs.kwargs)
        found.append(state)
    return found


def test_both_curves_are_what_quantized_copies_give(tiny: Llama, tokens: Tensor) -> None:
    exact, broken = hidden_after(tiny, tokens, set(), W3), hidden_after(tiny, tokens, {0, 1}, W3)
    [found] = drain(depth_errors(tiny, tokens, [W3]))
    assert found.name == W3.tag
    assert found.together == pytest.approx([relative_error(one, other) for one, other in zip(broken, exact, strict=True)], rel=1e-4)
    alone = [relative_error(hidden_after(tiny, tokens, {index}, W3)[index], exact[index]) for index in range(2)]
    assert found.alone == pytest.approx(alone, rel=1e-4)
    assert found.alone[0] == pytest.approx(found.together[0], rel=1e-6)  # the first block's input is exact in both


def test_finished_blocks_are_a_series_of_their_own_and_the_model_stays_as_it_was(tiny: Llama, tokens: Tensor) -> None:
    before = [parameter.clone() for parameter in tiny.model.parameters()]
    frozen = {b: {name: rtn(linear.weight, W2) for name, linear in tiny.linears(b).items()} for b in range(2)}  # type: ignore[arg-type]
    rounded, again, none = drain(depth_errors(tiny, tokens, [W2], {"a run": frozen, "nothing finished": {}}))
    assert (again.name, again.together) == ("a run", pytest.approx(rounded.together, rel=1e-5))
    assert none.together == [0.0, 0.0]
    assert all(torch.equal(one, other) for one, other in zip(before, tiny.model.parameters(), strict=True))


def test_a_damaged_weight_leaves_no_number_and_no_traceback(tiny: Llama, tokens: Tensor) -> None:
    broken = Llama(tiny.name, tiny.source, deepcopy(tiny.model), tiny.tokenizer)
    linear = broken.linears(1)["mlp.up_proj"]
    linear.weight.data[0, 0] = torch.nan  # type: ignore[union-attr, operator]
    [found] = drain(depth_errors(broken, tokens, [W3]))
    assert found.together[0] is not None
    assert (found.alone[1], found.together[1]) == (None, None)
