"""Float64 copies of tiny models, for oracles and finite differences."""

import dataclasses
from copy import deepcopy

import torch
from torch import Tensor, nn

from salq.models.llama import Llama


def float64_copy(model: Llama) -> Llama:
    """`model` in float64 throughout: transformers' own norm would compute in float32 whatever the dtype."""
    copy = deepcopy(model.model).double()
    for parent in list(copy.modules()):
        for name, child in list(parent.named_children()):
            if type(child).__name__ == "LlamaRMSNorm":
                setattr(parent, name, _norm64(child))
    return dataclasses.replace(model, model=copy.requires_grad_(False))


def _norm64(norm: nn.Module) -> nn.RMSNorm:
    exact = nn.RMSNorm(norm.weight.shape[0], eps=norm.variance_epsilon, dtype=torch.float64)
    exact.weight.data.copy_(norm.weight)
    return exact


def log_probabilities(model: Llama, window: Tensor) -> Tensor:
    """log p(token | tokens before) `[tokens - 1, vocab]` by the whole model at once, in the model's dtype."""
    return model.model(input_ids=window[None]).logits[0, :-1].log_softmax(-1)
