"""The two streams of activations that walk through the blocks: through the original model, and through what is quantized so far."""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from salq.calibration.objectives import Targets
from salq.models.capture import capture_block_inputs, run_block
from salq.models.llama import Llama

TOKENS_PER_BATCH = 2048
"""Tokens that a teacher pass takes at once: large enough for matmul speed, small enough for attention maps in float32."""


class Streams:
    """Inputs of the current block, in float32 on `device`: `full` through the original blocks, `quantized` through the frozen ones."""

    def __init__(self, model: Llama, tokens: Int64[Tensor, "n seq"], device: torch.device) -> None:
        """Both streams start as the embeddings of the tokens."""
        captured = capture_block_inputs(model, tokens)
        self.full: Float[Tensor, "n seq hidden"] = captured.hidden.to(device, torch.float32)
        self.quantized = self.full.clone()
        self.kwargs: Mapping[str, object] = {name: _to(value, device) for name, value in captured.kwargs.items()}

    def targets(self, teacher: nn.Module, *, augmented: bool) -> Targets:
        """What the student should output: F(W; x_fp), and F(W; x_q) when a stage is augmented."""
        on_full = self.run(teacher, self.full)
        return Targets(on_full, self.run(teacher, self.quantized) if augmented else None)

    def advance(self, targets: Targets, frozen_block: nn.Module) -> None:
        """Step both streams to the next block; the quantized one through what was really stored."""
        self.full = targets.on_full
        self.quantized = self.run(frozen_block, self.quantized)

    @torch.no_grad()
    def run(self, block: nn.Module, hidden: Float[Tensor, "n seq hidden"]) -> Float[Tensor, "n seq hidden"]:
        """`block` over all samples, a few at a time."""
        rows = max(1, TOKENS_PER_BATCH // hidden.shape[1])
        return torch.cat([run_block(block, part, self.kwargs) for part in hidden.split(rows)])


def _to(value: object, device: torch.device) -> object:
    """Move tensors, also inside the (cos, sin) tuple of the rotary embedding; floats become float32."""
    if isinstance(value, Tensor):
        return value.to(device, torch.float32) if value.is_floating_point() else value.to(device)
    if isinstance(value, tuple | list):
        return type(value)(_to(item, device) for item in value)
    return value
