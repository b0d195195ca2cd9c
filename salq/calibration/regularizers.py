"""Terms on the weights of a block: how far the quantized weights are from the original's, weighted by saliency or not."""

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from salq.calibration.student import StudentLinear, TokenAdaptiveLinear


class WeightPreservation(BaseModel):
    """SAPR's regularizer.

    R = sum over the block's matrices of sum_ij G_ij (W_eff - W)_ij^2          SAPR (arXiv 2504.13932) section 3

    G is the saliency (the published sum over samples of the squared gradient of the token-mean loss), or 1 when not weighted.
    W_eff is the quantized weight (before_lora: only the clipping feels R) or that plus the adapter (after_lora).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    strength: float = Field(default=0.1, ge=0, le=1e6, description="How strongly R counts; see convention for its unit.")
    convention: Literal["relative", "published"] = Field(
        default="relative",
        description="relative: R is scaled per block by output loss / R at the start, so that 0.1 means the same everywhere; published: raw sums.",
    )
    weighted: bool = Field(default=True, description="Weight every squared deviation by its saliency; off: every weight counts the same.")
    where: Literal["before_lora", "after_lora"] = Field(default="before_lora", description="Which weight is compared with the original.")
    block_multiplier: float = Field(
        default=1.0, gt=0, le=100, description="Strength of block k is strength * block_multiplier**k, as in the released code."
    )
    saliency_quantile: float | None = Field(
        default=None, gt=0, lt=1, description="Saliency above this quantile of its matrix counts as the quantile, such as 0.999; none: as it is."
    )
    saliency_scale: Literal["mean"] | None = Field(
        default=None,
        description="mean: saliency is divided by its mean over the block, so that a weight of mean saliency counts as 1; none: as it is.",
    )

    def prepared(self, saliency: Mapping[str, Float[Tensor, "out in"]] | None) -> Mapping[str, Float[Tensor, "out in"]] | None:
        """The saliency that R weighs with: None when it is not weighted, else cut at the quantile and then scaled, as the fields say.

        The diagonal Fisher has a heavy tail (largest / mean is 1e4 to 1e5 on SmolLM2-135M): without a cut a handful of weights own R.
        """
        if not self.weighted or saliency is None:
            return None
        if self.saliency_quantile is not None:
            saliency = {name: value.clamp(max=_quantile(value, self.saliency_quantile)) for name, value in saliency.items()}
        if self.saliency_scale is None:
            return saliency
        mean = sum(float(value.sum(dtype=torch.float64)) for value in saliency.values()) / sum(value.numel() for value in saliency.values())
        return saliency if mean == 0 else {name: value / mean for name, value in saliency.items()}

    def raw(
        self, linears: Mapping[str, StudentLinear | TokenAdaptiveLinear], saliency: Mapping[str, Float[Tensor, "out in"]] | None
    ) -> Float[Tensor, ""]:
        """R of one block, float32. `saliency` None counts every weight as 1."""
        total = torch.zeros((), device=next(iter(linears.values())).weight.device)
        for name, linear in linears.items():
            approximate = linear.fake_weight() if self.where == "before_lora" else linear.effective_weight()
            weighting = None if saliency is None else saliency[name]
            deviation: Tensor = _WeightedSquares.apply(approximate, linear.original, weighting)  # type: ignore[no-untyped-call]
            total = total + deviation
        return total

    def coefficient(self, block: int, output_at_start: float, raw_at_start: float) -> float:
        """What R is multiplied by in block `block`; 0 when the relative convention has nothing to scale (R is 0 at the start).

        A recipe without any output loss (output_at_start 0) has nothing to be relative to: R itself then starts at the strength.
        """
        strength = self.strength * self.block_multiplier**block
        if self.convention == "published":
            return strength
        return strength * (output_at_start or 1.0) / raw_at_start if raw_at_start > 0 else 0.0


class _WeightedSquares(torch.autograd.Function):
    """sum F (W_eff - W)^2 and its gradient 2 F (W_eff - W) from two passes over the weights, where autograd makes seven."""

    @staticmethod
    def forward(ctx: Any, approximate: Tensor, weight: Tensor, saliency: Tensor | None) -> Tensor:
        deviation = approximate - weight
        weighted = deviation if saliency is None else deviation * saliency
        ctx.save_for_backward(weighted)
        total: Tensor = torch.linalg.vecdot(deviation, weighted).sum()
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (weighted,) = ctx.saved_tensors
        return weighted * (2 * grads[0]), None, None


def _quantile(values: Float[Tensor, "out in"], quantile: float) -> float:
    """The smallest value that at least that share of `values` does not exceed; any number of values (torch.quantile takes 16 million)."""
    return float(values.flatten().kthvalue(max(1, math.ceil(quantile * values.numel()))).values)
