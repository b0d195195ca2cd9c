"""Rounding that makes up for its own errors (GPTQ, arXiv 2210.17323, algorithm 1), on a grid that is there already.

Rounding column j of W changes a linear's output by e_j x_j, and the columns that are not rounded yet can take most of that back. With
M = E[x x^T] and U the upper Cholesky factor of its inverse, M^-1 = U^T U, the least E ||(W_hat - W) x||^2 that they can reach is at

    w_k <- w_k - (w_j - q_j) U_jk / U_jj        for every k after j, q_j being w_j rounded

Columns go from the strongest input to the weakest. No gradient, no step: one pass over the columns.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from salq.quant.grid import QParams
from salq.quant.spec import QuantSpec

DAMPING = 0.01
"""Added to the diagonal of M, relative to its mean: GPTQ's own 1 %."""
PANEL = 64
"""Columns whose errors are carried to each other one by one, and to all later ones by one matrix product."""


@dataclass(frozen=True)
class Compensation:
    """How the errors of rounding one column are carried to the others: a property of a linear's inputs, shared by all that read them.

    order: columns, strongest input first; factor: U / diag(U) in that order, whose row j holds what column j hands on.
    """

    order: Int64[Tensor, " in"]
    factor: Float[Tensor, "in in"]

    @classmethod
    def of(cls, moment: Float[Tensor, "in in"]) -> "Compensation | None":
        """From M = E[x x^T] of the inputs; None where they are all zero, so that no error can be seen, nor made up for."""
        energy = moment.diagonal()
        if not bool(energy.any()):
            return None
        order = energy.argsort(descending=True, stable=True)
        damped = moment[order][:, order].double()
        damped.diagonal().add_(DAMPING * energy.mean())
        upper = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(damped)), upper=True)
        return cls(order, (upper / upper.diagonal().unsqueeze(1)).to(moment.dtype))

    @torch.no_grad()
    def __call__(self, weight: Float[Tensor, "out in"], qparams: QParams, spec: QuantSpec) -> Float[Tensor, "out in"]:
        """The matrix whose nearest codes are the compensated ones: every column of `weight` as it stood when its turn to be rounded came.

        qparams: the grid of the groups, of which the scale is taken as it is stored, in float16.
        """
        group = self.order // (spec.group_size or weight.shape[1])
        scale = qparams.scale.to(torch.float16).to(weight.dtype).T[group]
        lowest = -qparams.zero_point.T[group]
        highest = lowest + spec.max_code
        rest = weight.T[self.order]  # [in, out]: a column is contiguous
        for start in range(0, len(rest), PANEL):
            own, later = rest[start : start + PANEL], rest[start + PANEL :]
            errors = torch.empty_like(own)
            for j in range(len(own)):
                at, column = start + j, own[j]
                level = (column / scale[at]).round_().clamp_(lowest[at], highest[at])
                errors[j] = column - level.mul_(scale[at])
                own[j + 1 :].addr_(self.factor[at, at + 1 : start + len(own)], errors[j], alpha=-1)
            later.addmm_(self.factor[start : start + len(own), start + len(own) :].T, errors, alpha=-1)
        result = torch.empty_like(weight)
        result[:, self.order] = rest.T
        return result
