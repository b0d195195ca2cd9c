"""Low-rank adapters (LoRA, arXiv 2106.09685): delta = (alpha / rank) * lora_B @ lora_A, added to the quantized weight and never merged."""

import math

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from salq.core.errors import ShapeError


class LoRA(BaseModel):
    """A low-rank adapter beside every quantized matrix."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rank: int = Field(default=64, ge=1, le=1024, description="Rank of the adapter; its 16-bit numbers count in bits per weight.")
    alpha: float = Field(default=16.0, gt=0, le=4096, description="The adapter's output is scaled by alpha / rank.")

    @property
    def scaling(self) -> float:
        """alpha / rank."""
        return self.alpha / self.rank

    def build(self, out_features: int, in_features: int, generator: torch.Generator, device: torch.device) -> "Adapter":
        """A fresh adapter whose delta is zero. Raises ShapeError when the rank exceeds the matrix."""
        if self.rank > min(out_features, in_features):
            raise ShapeError(
                f"Adapter rank {self.rank} is larger than a {out_features} x {in_features} matrix; use at most {min(out_features, in_features)}."
            )
        return Adapter(self, out_features, in_features, generator, device)


class Adapter(nn.Module):
    """lora_A [rank, in] starts uniform in +-1/sqrt(in) (PEFT's kaiming default), lora_B [out, rank] at zero: the delta starts at zero."""

    def __init__(self, config: LoRA, out_features: int, in_features: int, generator: torch.Generator, device: torch.device) -> None:
        """The draw is made on the CPU so that every device starts from the same numbers."""
        super().__init__()
        self.scaling = config.scaling
        bound = 1 / math.sqrt(in_features)
        start = torch.rand(config.rank, in_features, generator=generator) * (2 * bound) - bound
        self.lora_A = nn.Parameter(start.to(device))
        self.lora_B = nn.Parameter(torch.zeros(out_features, config.rank, device=device))

    def forward(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        """scaling * (x @ lora_A.T) @ lora_B.T"""
        return nn.functional.linear(nn.functional.linear(x, self.lora_A), self.lora_B) * self.scaling

    def delta(self) -> Float[Tensor, "out in"]:
        """The matrix that this adapter adds to the weight."""
        return self.scaling * self.lora_B @ self.lora_A
