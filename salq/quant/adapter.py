"""Low-rank adapters (LoRA, arXiv 2106.09685): delta = (alpha / rank) * lora_B @ lora_A, added to the quantized weight and never merged."""

import math
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from salq.core.errors import ShapeError

OVERSAMPLING, ITERATIONS = 8, 4
"""Of the randomized singular value decomposition: Halko, Martinsson, Tropp (arXiv 0909.4061), algorithm 4.4."""
SMALLEST_ROOT = 1e-3
"""Of a row's or column's weight, relative to the largest: what has no saliency at all must still be divided by its weight."""

TINY = 1e-8
"""Guards a division where nothing was lost."""


class LoRA(BaseModel):
    """A low-rank adapter beside every quantized matrix."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rank: int = Field(default=64, ge=1, le=1024, description="Rank of the adapter; its 16-bit numbers count in bits per weight.")
    alpha: float = Field(default=16.0, gt=0, le=4096, description="The adapter's output is scaled by alpha / rank.")
    start: Literal["residual", "saliency", "output"] | None = Field(
        default=None,
        description="residual: adapters start at the best low-rank part of what rounding loses; saliency: of that loss weighted by saliency; "
        "output: at what gives most of the linear's output back; none: at zero.",
    )

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

    def start_from(self, residual: Float[Tensor, "out in"], saliency: Float[Tensor, "out in"] | None, generator: torch.Generator) -> None:
        """Set delta to the best approximation of `residual` of this rank: in the Frobenius norm (LoftQ, arXiv 2310.08659, eq. 8), or in
        || D_row (residual - delta) D_col ||, D from the mean saliency of rows and columns (LQ-LoRA, arXiv 2311.12023, eq. 6).
        """
        rows, columns = _roots(saliency, dim=1, like=residual[:, 0]), _roots(saliency, dim=0, like=residual[0])
        left, values, right = low_rank(rows[:, None] * residual * columns, len(self.lora_A), generator)
        root = (values / self.scaling).sqrt()
        self.lora_B.copy_(left * root / rows[:, None])
        self.lora_A.copy_(root[:, None] * right / columns)

    def start_from_output(self, residual: Float[Tensor, "out in"], moment: Float[Tensor, "in in"], generator: torch.Generator) -> None:
        """Set delta to the matrix of this rank that minimises E ||(residual - delta) x||^2 for inputs with E[x x^T] = `moment`.

        With U the leading eigenvectors of residual @ moment @ residual^T, the covariance of the lost output, it is U U^T residual: QERA
        (arXiv 2410.06040, theorem 1) without the root of the moment and its inverse.
        """
        left, _, _ = low_rank(residual @ moment @ residual.T, len(self.lora_A), generator)
        right = left.T @ residual
        root = (right.norm(dim=1) / self.scaling).sqrt().clamp(min=TINY)
        self.lora_B.copy_(left * root)
        self.lora_A.copy_(right / (self.scaling * root[:, None]))

    def added_to(self, weight: Float[Tensor, "out in"]) -> Float[Tensor, "out in"]:
        """weight + scaling * lora_B @ lora_A, in one product."""
        return torch.addmm(weight, self.lora_B, self.lora_A, alpha=self.scaling)


def low_rank(
    matrix: Float[Tensor, "out in"], rank: int, generator: torch.Generator
) -> tuple[Float[Tensor, "out rank"], Float[Tensor, " rank"], Float[Tensor, "rank in"]]:
    """(U, S, V) of the best approximation of that rank: U @ diag(S) @ V, by randomized subspace iteration."""
    width = min(rank + OVERSAMPLING, *matrix.shape)
    basis = matrix @ torch.randn(matrix.shape[1], width, generator=generator).to(matrix)
    for _ in range(ITERATIONS):
        basis = matrix @ torch.linalg.qr(matrix.T @ torch.linalg.qr(basis).Q).Q
    basis = torch.linalg.qr(basis).Q
    left, values, right = torch.linalg.svd(basis.T @ matrix, full_matrices=False)
    return (basis @ left)[:, :rank], values[:rank], right[:rank]


def _roots(saliency: Tensor | None, dim: int, like: Tensor) -> Tensor:
    """Square roots of the mean saliency along `dim`, relative to the largest; ones without saliency, or when nothing is salient.

    The root of the mean, not the mean of the roots: LQ-LoRA's released code found it better.
    """
    if saliency is None or not bool(saliency.any()):
        return torch.ones_like(like)
    mean = saliency.mean(dim=dim).to(like)
    return (mean / mean.max()).sqrt().clamp(min=SMALLEST_ROOT)
