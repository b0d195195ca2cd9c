"""KL divergence through a frozen output head, without ever holding the logits of all tokens."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

TOKENS_PER_CHUNK = 256
"""Tokens whose logits exist at once: four arrays of 50 MB each with 49,152 tokens in the vocabulary."""


def head_kl(
    student: Float[Tensor, "*tokens hidden"], teacher: Float[Tensor, "*tokens hidden"], head: Float[Tensor, "vocab hidden"]
) -> Float[Tensor, ""]:
    """Mean over tokens of KL(softmax(teacher @ head.T) || softmax(student @ head.T)) in nats; differentiable in `student` alone.

    The head is frozen, so the gradient d KL / d student = (q - p) @ head is known once the logits are: both are computed chunk by chunk,
    and no array of [tokens, vocab] is kept for the backward pass.
    """
    result: Tensor = _HeadKL.apply(student.flatten(0, -2), teacher.flatten(0, -2), head)  # type: ignore[no-untyped-call]
    return result


class _HeadKL(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, head: Tensor) -> Tensor:
        gradient, total = torch.empty_like(student), torch.zeros((), device=student.device, dtype=torch.float64)
        for start in range(0, len(student), TOKENS_PER_CHUNK):
            part = slice(start, start + TOKENS_PER_CHUNK)
            log_q = torch.log_softmax(nn.functional.linear(student[part], head).float(), dim=-1)
            log_p = torch.log_softmax(nn.functional.linear(teacher[part], head).float(), dim=-1)
            p = log_p.exp()
            total += torch.linalg.vecdot(p, log_p.sub_(log_q)).sum(dtype=torch.float64)
            gradient[part] = log_q.exp_().sub_(p).to(head.dtype) @ head
        ctx.save_for_backward(gradient.div_(len(student)))
        return (total / len(student)).to(student.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * grads[0], None, None
