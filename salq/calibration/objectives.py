"""Terms on the output of a block: how far the quantized block's output is from the original's."""

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

TINY = 1e-12
"""Guards a division by the energy of an all-zero token; far below any real hidden state."""


class OutputMSE(BaseModel):
    """Reconstruction loss of a block.

    C = MSE(F(W; x_fp), F(W_q; x_q)) [+ MSE(F(W; x_q), F(W_q; x_q)) when augmented]     ApiQ (arXiv 2402.05147) section 4, SAPR section 3

    x_fp and x_q are the block's inputs in the original and in the partly quantized model; MSE is the mean over all elements.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    augmented: bool = Field(default=True, description="Add the teacher's output on the quantized inputs as a second target.")
    normalize: Literal["raw", "token"] = Field(
        default="raw",
        description="token: divide each token's error by its own energy, so that a few massive activations do not own the loss; raw: as published.",
    )

    def loss(self, output: Float[Tensor, "batch seq hidden"], targets: "Targets") -> Float[Tensor, ""]:
        """The loss of one batch, a scalar in float32."""
        total = self._mse(output, targets.on_full, targets.energy)
        if self.augmented and targets.on_quantized is not None:
            total = total + self._mse(output, targets.on_quantized, targets.energy)
        return total

    def _mse(self, output: Tensor, target: Tensor, energy: Tensor) -> Tensor:
        squared = (output - target).square()
        if self.normalize == "token":
            # `energy` comes from the full-precision target for both terms, so the two share one unit.
            return (squared.mean(dim=-1) / energy).mean()
        return squared.mean()


class Targets:
    """Teacher outputs of one block for some samples. Plain holder: indexing gives the rows of a batch."""

    def __init__(self, on_full: Float[Tensor, "n seq hidden"], on_quantized: Float[Tensor, "n seq hidden"] | None) -> None:
        """on_full: F(W; x_fp); on_quantized: F(W; x_q) or None when no stage wants it."""
        self.on_full, self.on_quantized = on_full, on_quantized

    @property
    def energy(self) -> Float[Tensor, "n seq"]:
        """Mean square of each token's target over the hidden dimension."""
        return self.on_full.square().mean(dim=-1).clamp(min=TINY)

    def batch(self, rows: Tensor) -> "Targets":
        """The targets of the samples `rows`."""
        return Targets(self.on_full[rows], None if self.on_quantized is None else self.on_quantized[rows])


def relative_error(output: Float[Tensor, "n seq hidden"], target: Float[Tensor, "n seq hidden"]) -> float:
    """Mean over tokens of ||output - target|| / ||target||: unlike the Frobenius ratio, no single massive token decides it."""
    error = torch.linalg.vector_norm(output - target, dim=-1)
    return float((error / torch.linalg.vector_norm(target, dim=-1).clamp(min=TINY)).mean())
