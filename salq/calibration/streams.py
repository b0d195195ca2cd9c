"""The two streams of activations that walk through the blocks: through the original model, and through what is quantized so far."""

from collections.abc import Mapping

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from salq.calibration.objectives import AllTargets
from salq.calibration.places import Samples, StreamMemory, batches
from salq.calibration.recipe import Recipe
from salq.core.device import GB
from salq.models.capture import capture_block_inputs, run_block
from salq.models.llama import Llama


class Streams:
    """Inputs of the current block, in float32: `full` through the original blocks, `quantized` through the frozen ones.

    They have room for themselves and for the two outputs that a block is taught with, taken once and used in turns: `targets` are valid until
    the streams have advanced and the next ones are asked for.
    """

    def __init__(self, model: Llama, tokens: Int64[Tensor, "n seq"], device: torch.device, memory: StreamMemory | None = None) -> None:
        """Both streams start as the embeddings of the tokens. memory: where they live; on `device` when not given."""
        self.memory = memory or StreamMemory("device", device)
        self._shape = (*tokens.shape, model.config.hidden_size)
        self.full, self.quantized, self._next = (self.memory.empty(*self._shape) for _ in range(3))
        self._on_quantized: Samples | None = None
        self.kwargs: Mapping[str, object] = {}
        for rows in batches(tokens.shape):
            captured = capture_block_inputs(model, tokens[rows])
            self.full[rows] = self.quantized[rows] = captured.hidden.to(device, torch.float32)
            self.kwargs = {name: _to(value, device) for name, value in captured.kwargs.items()}

    def targets(self, teacher: nn.Module, *, augmented: bool) -> AllTargets:
        """What the student should output: F(W; x_fp), and F(W; x_q) when a stage is augmented."""
        self.run(teacher, self.full, self._next)
        if not augmented:
            return AllTargets(self._next, None)
        if self._on_quantized is None:
            self._on_quantized = self.memory.empty(*self._shape)
        self.run(teacher, self.quantized, self._on_quantized)
        return AllTargets(self._next, self._on_quantized)

    def advance(self, frozen_block: nn.Module) -> None:
        """Step both streams to the next block: `full` to the target on it, `quantized` through what was really stored."""
        self.full, self._next = self._next, self.full
        self.run(frozen_block, self.quantized, self.quantized)

    @torch.no_grad()
    def run(self, block: nn.Module, hidden: Samples, into: Samples) -> None:
        """`block` over all samples, a few at a time; `into` may be `hidden` itself, because no sample sees another."""
        for rows in batches(self._shape):
            into[rows] = run_block(block, hidden[rows], self.kwargs)


def streams_gb(recipe: Recipe, tokens: int, hidden_size: int, intermediate_size: int) -> float:
    """Room that the activations of `tokens` tokens take, in 10**9 bytes: both streams, the teacher's output and, augmented, the second one.

    Layer-wise, beside the first three, also inputs and targets of the widest group of linears: gate and up, or q, k and v.
    """
    per_token = (4 if recipe.is_augmented else 3) * hidden_size
    if recipe.granularity == "linear":
        per_token += hidden_size + max(4 * intermediate_size, 6 * hidden_size)
    return 4 * tokens * per_token / GB


def _to(value: object, device: torch.device) -> object:
    """Move tensors, also inside the (cos, sin) tuple of the rotary embedding; floats become float32."""
    if isinstance(value, Tensor):
        return value.to(device, torch.float32) if value.is_floating_point() else value.to(device)
    if isinstance(value, tuple | list):
        return type(value)(_to(item, device) for item in value)
    return value
