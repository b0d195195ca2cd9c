"""Terms on the output of a block: how far the quantized block's output is from the original's."""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from salq.calibration.places import Samples

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
    channels: Literal["saliency"] | None = Field(
        default=None,
        description="saliency: weigh the error of each output channel by the saliency of the down_proj row that writes it; none: all alike.",
    )

    def loss(self, output: Float[Tensor, "batch seq hidden"], targets: "Targets") -> Float[Tensor, ""]:
        """The loss of one batch, a scalar in float32."""
        weights = targets.channels if self.channels == "saliency" else None
        total = self._mse(output, targets.on_full, targets.on_full, weights)
        if self.augmented and targets.on_quantized is not None:
            total = total + self._mse(output, targets.on_quantized, targets.on_full, weights)
        return total

    def _mse(self, output: Tensor, target: Tensor, full: Tensor, weights: Tensor | None) -> Tensor:
        error = _mean_square(output - target, weights)
        # The energy is that of the full-precision target for both terms, so the two share one unit.
        return (error / _mean_square(full, weights).clamp(min=TINY)).mean() if self.normalize == "token" else error.mean()


@dataclass(frozen=True)
class Targets:
    """Teacher outputs of one block for the samples of a batch.

    on_full: F(W; x_fp); on_quantized: F(W; x_q) or None when no stage wants it; channels: weights of mean 1, None for all alike.
    """

    on_full: Float[Tensor, "batch seq hidden"]
    on_quantized: Float[Tensor, "batch seq hidden"] | None
    channels: Float[Tensor, " hidden"] | None = None


@dataclass
class AllTargets:
    """The same of all samples, wherever their activations live."""

    on_full: Samples
    on_quantized: Samples | None
    channels: Float[Tensor, " hidden"] | None = None

    def batch(self, rows: Tensor) -> Targets:
        """The targets of the samples `rows`."""
        return Targets(self.on_full[rows], None if self.on_quantized is None else self.on_quantized[rows], self.channels)


def channel_weights(saliency: Float[Tensor, "hidden in"]) -> Float[Tensor, " hidden"] | None:
    """Weights of a block's output channels, of mean 1, from the saliency of its down_proj, whose row c writes channel c.

    The gradient of that row's output is the gradient of the block's output: sum_j F_cj = E sum_j (sum_t d_tc x_tj)^2 is the squared gradient
    of the channel, weighted by the activations that reach it: the diagonal Fisher weight of BRECQ (arXiv 2102.05426, eq. 10), kept per
    channel. None when no weight is salient.
    """
    rows = saliency.sum(dim=1)
    mean = rows.mean()
    return rows / mean if bool(mean > 0) else None


def _mean_square(values: Float[Tensor, "*batch hidden"], weights: Float[Tensor, " hidden"] | None) -> Float[Tensor, "*batch"]:
    squared = values.square()
    return (squared if weights is None else squared * weights).mean(dim=-1)
