"""Measures what the lessons draw on a real model: one matrix, the way of an error through the blocks, costs of widths, a scored answer.

Run once by `benchmarks/make_assets.py`; minutes for the default model on one core. The page reads what was kept.
"""

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from salq.chat.generate import stream
from salq.chat.prompt import Message, encode_prompt
from salq.chat.sampling import Sampling
from salq.chat.text import printable
from salq.evaluation.errors import advance_with_moments
from salq.evaluation.scores import Windows, perplexity
from salq.kernels.assemble import rtn_blocks
from salq.lessons.allocation import WIDTHS as ALL_WIDTHS
from salq.lessons.allocation import allocate, total_cost
from salq.lessons.material import Allocated, Budget, Learned, Material, Talk, Told, Travel, rounded
from salq.lessons.matrix import GROUP, ROW_WEIGHTS, WIDTHS, learned_of, patch_of, row_of, shares_of, spectrum_of
from salq.lessons.travel import travel
from salq.models.capture import BlockInputs, capture_block_inputs, run_block
from salq.models.llama import LINEARS, Llama
from salq.quant.frozen import FrozenLinear, rtn
from salq.quant.spec import QuantSpec
from salq.saliency.maps import SaliencyMap

Frozen = Mapping[int, Mapping[str, FrozenLinear]]
WAY = (2, 128)
"""Windows and tokens for the way of an error, which takes hundreds of block passes."""
TOP = 3
"""Candidates shown for each token."""


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What is measured: place = (block, matrix, row, start), the matrix of the same block whose patch shows saliency, the prompt of the scored
    answer, and how the material is called and explained.
    """

    place: tuple[int, str, int, int]
    patch: str
    prompt: str
    title: str
    note: str


def measure(
    model: Llama,
    saliency: SaliencyMap,
    tokens: Tensor,
    windows: Windows,
    wanted: Wanted,
    calibrated: Mapping[str, Frozen],
    tell: Callable[[str], None] = lambda _: None,
) -> Material:
    """The material of one matrix and of its model.

    tokens [samples, seq]: text for the matrix's inputs (more tokens than it has inputs, or their rank would flatter the adapter) and, of its
    first WAY, for the error's way. windows: evaluation text for the allocations that are
    measured. calibrated: further models for the scored answer, by name. tell: told before each part.
    """
    block, matrix, row, start = wanted.place
    tell("one matrix")
    weight = _weight(model, block, matrix)
    spectrum = spectrum_of(weight, input_moment(model, tokens, block, matrix))
    sides = {f"rtn w{bits}g{GROUP}": rtn_blocks(model, _spec(bits)) for bits in (4, 3, 2)} | dict(calibrated)
    tell("the way of an error")
    ways = {str(bits): travel_of(model, sides[f"rtn w{bits}g{GROUP}"], tokens[: WAY[0], : WAY[1]]) for bits in WIDTHS}
    tell("a scored answer")
    talk = talk_of(model, wanted.prompt, sides)
    tell("costs of widths")
    budget = budget_of(model, saliency, windows)
    line, group = row_of(weight, row, start // ROW_WEIGHTS * ROW_WEIGHTS), row_of(weight, row, start, GROUP)
    return Material(
        model=model.name, title=wanted.title, block=block, matrix=matrix, note=wanted.note, group=group, row=line,
        learned=_learned(weight, wanted.place, calibrated),
        patch=patch_of(wanted.patch, _weight(model, block, wanted.patch), saliency.matrix(block, wanted.patch)), spectrum=spectrum,
        shares=shares_of(line, group) | kept_shares(model, saliency), travel=ways, budget=budget, talk=talk,
    )  # fmt: skip


def _learned(weight: Tensor, place: tuple[int, str, int, int], calibrated: Mapping[str, Frozen]) -> tuple[Learned, ...]:
    """What each calibration with groups of GROUP chose for the group of the number line."""
    block, matrix, row, start = place
    found = []
    for name, frozen in calibrated.items():
        whole = frozen.get(block, {}).get(matrix)
        if whole is not None and whole.spec.group_size == GROUP:
            part = dataclasses.replace(
                whole, codes=whole.codes[row : row + 1], scale=whole.scale[row : row + 1], zero_point=whole.zero_point[row : row + 1],
                lora_B=None if whole.lora_B is None else whole.lora_B[row : row + 1],
            )  # fmt: skip
            found.append(learned_of(weight[row, start : start + GROUP], part, start // GROUP, name))
    return tuple(found)


def input_moment(model: Llama, tokens: Tensor, block: int, matrix: str) -> Tensor:
    """X X^T of the inputs of one matrix, [in, in] float32."""
    inputs = capture_block_inputs(model, tokens)
    for index in range(block):
        _advance(model, index, inputs)
    return advance_with_moments(model, block, inputs, batch_size=4)[matrix].total


def travel_of(model: Llama, frozen: Frozen, tokens: Tensor) -> Travel:
    """Relative errors of the hidden state through the depth of the model, on `tokens`."""
    inputs = capture_block_inputs(model, tokens)
    quantized = dense_copy(model, frozen)
    original, changed = ([partial(_output, block, kwargs=inputs.kwargs) for block in one.blocks] for one in (model, quantized))
    return travel(original, changed, inputs.hidden)


@torch.no_grad()
def budget_of(model: Llama, saliency: SaliencyMap, windows: Windows, budgets: tuple[float, ...] = (3.0, 2.5)) -> Budget:
    """Costs of every width for every matrix, and the perplexity of the uniform 3 bits and of what saliency deals out under `budgets`."""
    cost: dict[str, list[tuple[float, ...]]] = {str(bits): [] for bits in ALL_WIDTHS}
    for index in range(model.n_blocks):
        fisher = saliency.block(index)
        for bits in ALL_WIDTHS:
            row = []
            for name in LINEARS:
                weight = _weight(model, index, name)
                moved = (weight - rtn(weight, _spec(bits)).effective_weight()).double()
                row.append(rounded(float((fisher[name].double() * moved.square()).sum() / 2)))
            cost[str(bits)].append(tuple(row))
    weights = [_weight(model, 0, name).numel() for name in LINEARS]
    flat = {bits: [value for row in cost[str(bits)] for value in row] for bits in ALL_WIDTHS}
    measured = []
    for mean_bits, uniform in [(3.0, 3), *((one, None) for one in budgets)]:
        widths = allocate(weights * model.n_blocks, flat, mean_bits) if uniform is None else [uniform] * len(flat[2])
        found = perplexity(dense_copy(model, _mixed(model, widths)), windows).value
        measured.append(Allocated(mean_bits=mean_bits, uniform=uniform, perplexity=rounded(found, 5), predicted=rounded(total_cost(flat, widths))))
    return Budget(
        group_size=GROUP, linears=tuple(LINEARS), weights=tuple(weights), cost={bits: tuple(rows) for bits, rows in cost.items()},
        measured=tuple(measured),
    )  # fmt: skip


@torch.no_grad()
def kept_shares(model: Llama, saliency: SaliencyMap, bits: int = 3, kept: float = 0.02) -> dict[str, float]:
    """Predicted loss 1/2 sum F (w - w_hat)^2 that is left when the fraction `kept` of all weights stays exact: those with the highest saliency
    (left_saliency), those that move furthest (left_move). Holds three numbers per weight of the model.
    """
    fishers, moves = [], []
    for index in range(model.n_blocks):
        fisher = saliency.block(index)
        for name in LINEARS:
            weight = _weight(model, index, name)
            fishers.append(fisher[name].flatten())
            moves.append((weight - rtn(weight, _spec(bits)).effective_weight()).abs().flatten())
    by = {"left_saliency": torch.cat(fishers), "left_move": torch.cat(moves)}
    cost = by["left_saliency"] * by["left_move"].square()
    total, count = float(cost.sum(dtype=torch.float64)), round(kept * len(cost))
    return {name: rounded(1 - float(cost[values.topk(count).indices].sum(dtype=torch.float64)) / total) for name, values in by.items()}


@torch.no_grad()
def talk_of(model: Llama, prompt: str, sides: Mapping[str, Frozen]) -> Talk:
    """The original's greedy answer, token by token, as every side would have continued it; and each side's own answer."""
    asked: list[Message] = [{"role": "user", "content": prompt}]
    told, ids = _answer(model, asked)
    start = encode_prompt(model, asked, len(ids)).ids
    window = torch.tensor([[*start, *ids]])
    at = slice(len(start) - 1, len(start) + len(ids) - 1)
    log_p = _logits(model, window)[at].log_softmax(-1)
    words = [model.tokenizer.decode([one]) for one in ids]
    scored, answers = {}, {"original": told}
    for name, frozen in sides.items():
        other = dense_copy(model, frozen)
        log_q = _logits(other, window)[at].log_softmax(-1)
        kl = (log_p.exp() * (log_p - log_q)).sum(-1).clamp(min=0)
        scored[name] = tuple(Told(kl=rounded(float(kl[i])), original=_top(model, log_p[i]), quantized=_top(model, log_q[i])) for i in range(len(ids)))
        answers[name] = _answer(other, asked)[0]
    return Talk(prompt=prompt, tokens=tuple(words), sides=scored, answers=answers)


def dense_copy(model: Llama, frozen: Frozen) -> Llama:
    """`model` with the weights that the codes stand for: as `quantized_copy`, but each weight is dequantized once."""
    memo: dict[int, object] = {id(tensor): tensor for tensor in [*model.model.parameters(), *model.model.buffers()]}
    copied = dataclasses.replace(model, model=copy.deepcopy(model.model, memo))
    for index, linears in frozen.items():
        for name, one in linears.items():
            linear = copied.blocks[index].get_submodule(name)
            assert isinstance(linear, nn.Linear)
            linear.weight = nn.Parameter(one.effective_weight().to(linear.weight), requires_grad=False)
    return copied


def _mixed(model: Llama, widths: list[int]) -> dict[int, dict[str, FrozenLinear]]:
    chosen: Iterator[int] = iter(widths)
    return {index: {name: rtn(_weight(model, index, name), _spec(next(chosen))) for name in LINEARS} for index in range(model.n_blocks)}


def _answer(model: Llama, asked: list[Message], longest: int = 64) -> tuple[str, list[int]]:
    found = list(stream(model, encode_prompt(model, asked, longest), Sampling(longest, 0.0, 0)))
    return printable("".join(token.text for token in found)).strip(), [
        token.token_id for token in found if token.token_id is not None and token.end != "end"
    ]


def _top(model: Llama, log_probabilities: Tensor) -> tuple[tuple[str, float], ...]:
    values, indices = log_probabilities.topk(TOP)
    return tuple((model.tokenizer.decode([int(index)]), rounded(float(value.exp()), 3)) for value, index in zip(values, indices, strict=True))


def _logits(model: Llama, window: Tensor) -> Tensor:
    return model.model(input_ids=window, use_cache=False).logits[0].double()


def _output(block: nn.Module, hidden: Tensor, *, kwargs: Mapping[str, object]) -> Tensor:
    return run_block(block, hidden, kwargs)


@torch.no_grad()
def _advance(model: Llama, block: int, inputs: BlockInputs) -> None:
    for hidden in inputs.hidden.split(4):
        hidden.copy_(run_block(model.blocks[block], hidden, inputs.kwargs))


def _weight(model: Llama, block: int, name: str) -> Tensor:
    weight = model.linears(block)[name].weight
    assert isinstance(weight, Tensor)
    return weight.detach().float()


def _spec(bits: int) -> QuantSpec:
    return QuantSpec(bits=bits, group_size=GROUP)  # type: ignore[arg-type]  # the widths of this room are those of QuantSpec
