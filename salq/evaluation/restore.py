"""Where it breaks: which blocks, and which kinds of matrix, have to be full precision again for one token's KL to go away.

A restored block changes nothing before it. All variants therefore walk through the model together: a variant shares the quantized stream until
its first restored matrix, and from there on is one more row of a batch, so that n blocks cost about n / 2 forward passes and every matrix is
dequantized once for all of them.
"""

import copy
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from salq.core.device import out_of_memory_as_error
from salq.core.errors import ConfigError, ModelError
from salq.core.events import Event, PhaseDone, PhaseStarted, PhaseStep
from salq.evaluation.scores import head_logits, hidden_states
from salq.evaluation.tokens import check_length, check_same_tokens
from salq.models.capture import capture_block_inputs, run_block
from salq.models.llama import LINEARS, Llama

Variant = frozenset[tuple[int, str]]
"""What is restored: (block, module_name) of every matrix that runs in full precision again."""

BATCH_TOKENS = 4096
"""Tokens of all variants that a block sees at once; more would need memory and gain no speed."""


@dataclass(frozen=True)
class Breakdown:
    """One token's KL(original || quantized) in nats, and what is left of it when a part runs in full precision again.

    position: index of the token in the text. blocks: KL left with one block restored, for every block. matrices: KL left with one kind of matrix
    restored in all blocks, by module_name.
    """

    position: int
    kl: float
    blocks: tuple[float, ...]
    matrices: dict[str, float]

    def removed(self, left: float) -> float:
        """The share of the token's KL that went away, at most 1; below 0 when the KL grew, and 0 when there was none to lose."""
        return 1 - left / self.kl if self.kl > 0 else 0.0

    @property
    def block_shares(self) -> tuple[float, ...]:
        """Share removed by each block alone."""
        return tuple(self.removed(left) for left in self.blocks)

    @property
    def matrix_shares(self) -> dict[str, float]:
        """Share removed by each kind of matrix alone."""
        return {name: self.removed(left) for name, left in self.matrices.items()}

    @property
    def reading(self) -> str:
        """What it says, in plain words, with the caution that parts do not add up."""
        if self.kl < 1e-4:  # noqa: PLR2004 - float32 leaves about this much where two models agree
            return f"The two models agree on this token (KL {self.kl:.1g} nats): there is nothing to put back."
        shares, kinds = self.block_shares, self.matrix_shares
        block, kind = max(range(len(shares)), key=lambda index: shares[index]), max(kinds, key=lambda name: kinds[name])
        most = f"Of this token's {self.kl:.3g} nats, full precision in block {block} alone removes {shares[block]:.0%}"
        worse = sum(share < -0.01 for share in shares)  # noqa: PLR2004 - a hundredth
        grew = "" if not worse else f" {'One block' if worse == 1 else f'{worse} blocks'} alone {'makes' if worse == 1 else 'make'} it larger."
        return (
            f"{most}, and {kind} in all blocks removes {kinds[kind]:.0%}. The blocks' shares sum to {sum(shares):.0%}: "
            f"effects do not add up, because later blocks amplify or cancel what earlier ones got wrong.{grew}"
        )

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self) | {"block_shares": list(self.block_shares), "matrix_shares": self.matrix_shares, "reading": self.reading}


def break_down(original: Llama, quantized: Llama, ids: Sequence[int], position: int) -> Generator[Event, None, Breakdown]:
    """Restore every block alone, then every kind of matrix alone, and measure the KL of the prediction of `ids[position]`.

    quantized: of the same model as `original`, with linears that can be called one by one (`quantized_copy` with the reference executor).
    Yields the phase "restoring" with one step per block. Raises ConfigError for a position that is not predicted, ModelError for another model.
    """
    check_length(original, len(ids), 1)
    if not 1 <= position < len(ids):
        raise ConfigError(f"Token {position} is not predicted from anything; choose one from 1 to {len(ids) - 1}.")
    blocks = [frozenset((index, name) for name in LINEARS) for index in range(original.n_blocks)]
    kinds = [frozenset((index, name) for index in range(original.n_blocks)) for name in LINEARS]
    left = yield from kl_restored(original, quantized, ids[:position], [frozenset(), *blocks, *kinds])
    return Breakdown(position, left[0], tuple(left[1 : 1 + len(blocks)]), dict(zip(LINEARS, left[1 + len(blocks) :], strict=True)))


def kl_restored(original: Llama, quantized: Llama, ids: Sequence[int], variants: Sequence[Variant]) -> Generator[Event, None, list[float]]:
    """KL(original || variant) of the prediction after `ids`, nats, for every variant: `quantized` with its matrices restored.

    The hidden states are in the models' dtype; log-probabilities and their sum are float64. Yields the phase "restoring".
    Raises ModelError when the models are not of one shape, ResourceError when memory runs out.
    """
    check_same_tokens(original, quantized)
    if original.n_blocks != quantized.n_blocks or original.config.hidden_size != quantized.config.hidden_size:
        raise ModelError(f"{quantized.name} is not made from {original.name}: their blocks differ, so none can be put back.")
    started = time.monotonic()
    yield PhaseStarted("restoring", of=original.n_blocks, unit="blocks")
    streams = _Streams(original, quantized, ids, variants)
    for index in range(original.n_blocks):
        streams.advance(index)
        yield PhaseStep("restoring", index + 1)
    left = streams.kl()
    yield PhaseDone("restoring", time.monotonic() - started)
    return left


class _Streams:
    """The hidden states of all variants on their way through the model; those that differ in nothing yet share one."""

    def __init__(self, original: Llama, quantized: Llama, ids: Sequence[int], variants: Sequence[Variant]) -> None:
        self._original, self._quantized, self._ids, self._variants = original, quantized, ids, variants
        inputs = capture_block_inputs(quantized, torch.tensor([list(ids)]))
        self._kwargs = inputs.kwargs
        self._hidden: dict[Variant, Tensor] = {frozenset(): inputs.hidden}  # by what was restored so far

    @torch.no_grad()
    def advance(self, index: int) -> None:
        """Through block `index`, each variant with its own matrices of it restored."""
        todo: dict[frozenset[str], dict[Variant, None]] = {}  # what is restored here -> the streams that pass through, in order
        for variant in self._variants:
            before, here = _until(variant, index), frozenset(name for block, name in variant if block == index)
            todo.setdefault(here, {})[before] = None
        after: dict[Variant, Tensor] = {}
        with out_of_memory_as_error(f"Restoring block {index}"):
            for here, streams in todo.items():
                block = _restored(self._quantized.blocks[index], self._original.blocks[index], here)
                outputs = self._run(block, [self._hidden[stream] for stream in streams])
                added = frozenset((index, name) for name in here)
                after.update({stream | added: output for stream, output in zip(streams, outputs, strict=True)})
        self._hidden = after

    @torch.no_grad()
    def kl(self) -> list[float]:
        """After the last block: KL of the last position of every variant, in their order."""
        last = torch.stack([self._hidden[variant][0, -1] for variant in self._variants])
        log_q = head_logits(self._quantized, self._quantized.model.model.norm(last)).double().log_softmax(-1)
        window = torch.tensor([*self._ids, self._ids[-1]])  # the last token of a window is only predicted, never read
        log_p = head_logits(self._original, hidden_states(self._original, window)[-1:]).double().log_softmax(-1).to(log_q.device)
        return (log_p.exp() * (log_p - log_q)).sum(-1).clamp(min=0).tolist()

    def _run(self, block: nn.Module, streams: Sequence[Float[Tensor, "1 tokens hidden"]]) -> list[Tensor]:
        rows = max(1, BATCH_TOKENS // streams[0].shape[1])
        parts = (torch.cat(list(streams[start : start + rows])) for start in range(0, len(streams), rows))
        return [row for part in parts for row in run_block(block, part, self._kwargs).split(1)]


def _until(variant: Iterable[tuple[int, str]], index: int) -> Variant:
    """What of a variant was restored before block `index`."""
    return frozenset((block, name) for block, name in variant if block < index)


def _restored(block: nn.Module, original: nn.Module, names: Iterable[str]) -> nn.Module:
    """`block` with the named linears of `original` in their places; all tensors are shared with the two."""
    memo: Mapping[int, object] = {id(tensor): tensor for tensor in [*block.parameters(), *block.buffers()]}
    result = copy.deepcopy(block, dict(memo))
    for name in names:
        result.set_submodule(name, original.get_submodule(name))
    return result
