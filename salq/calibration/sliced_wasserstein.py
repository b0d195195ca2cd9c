"""The sliced Wasserstein term: how far the distribution of a block's output vectors is from the original's, along random directions.

    SW = mean over directions u of the mean over i of |sort(Y u)_i - sort(Y_q u)_i|          (p = 1), Y and Y_q [tokens, hidden]
    C' = (1 - weight) C + weight * kappa * SW,   kappa = mean(C) / (mean(SW) + 1e-6) before the block's first step

Cao, Yin, Aref (arXiv 2601.07878), as in SAPR's released code. The term reaches what the output loss reaches; it costs nothing at inference.
"""

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

SMALL = 1e-6
"""Guards kappa against a distance of 0, as released."""


class SlicedWasserstein(BaseModel):
    """A share of the output loss that compares distributions instead of elements."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weight: float = Field(default=0.02, gt=0, lt=1, description="Share of this term in the loss; the output loss keeps the rest.")
    projections: int = Field(default=1024, ge=1, le=65536, description="Random directions per step, drawn anew for each.")
    scaled: bool = Field(default=True, description="Scale the term to the output loss before the block's first step; off: its raw value.")
    start_block: int = Field(default=0, ge=0, le=10_000, description="First block that has this term.")

    def factor(self, block: int, output_at_start: float, distance_at_start: float) -> float:
        """What the distance is multiplied by in block `block`; 0 before the first one that has the term."""
        if block < self.start_block:
            return 0.0
        return self.weight * (output_at_start / (distance_at_start + SMALL) if self.scaled else 1.0)

    def distance(
        self, output: Float[Tensor, "batch seq hidden"], target: Float[Tensor, "batch seq hidden"], generator: torch.Generator
    ) -> Float[Tensor, ""]:
        """W1 between the tokens' vectors, averaged over directions drawn on the CPU, so that every device sees the same ones."""
        directions = torch.randn(output.shape[-1], self.projections, generator=generator)
        directions = (directions / torch.linalg.vector_norm(directions, dim=0)).to(output.device, output.dtype)
        first, second = (values.flatten(0, -2) @ directions for values in (output, target))
        distance: Tensor = (first.sort(dim=0).values - second.sort(dim=0).values).abs().mean()
        return distance
