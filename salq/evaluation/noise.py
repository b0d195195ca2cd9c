"""The noise of arithmetic: the original stored and computed in the other usual precision, against itself on the same windows.

Checkpoints are published in 16 bits and run in bfloat16 on a GPU and in float32 on a CPU. What changes between these two is not quantization's
doing, so a KL below it, or an agreement above it, says nothing about a method.
"""

import copy
import dataclasses
from collections.abc import Generator

import torch
from torch import nn

from salq.core.device import out_of_memory_as_error
from salq.core.events import Event
from salq.evaluation.scores import Scores, Windows, score
from salq.models.llama import Llama


def other_precision(model: Llama) -> Llama:
    """A copy of `model` in bfloat16 when it is in float32, else in float32: weights, activations and logits. Raises ResourceError."""
    dtype = torch.bfloat16 if model.dtype == torch.float32 else torch.float32
    with out_of_memory_as_error(f"A copy of {model.name} in {_name(dtype)}"):
        memo: dict[int, object] = {id(buffer): buffer for buffer in model.model.buffers()}  # the rotary frequencies stay float32
        memo |= {id(weight): nn.Parameter(weight.to(dtype), requires_grad=False) for weight in model.model.parameters()}
        return dataclasses.replace(model, model=copy.deepcopy(model.model, memo))


def how(model: Llama) -> str:
    """What differs, in words."""
    here = _name(model.dtype)
    there = "bfloat16" if model.dtype == torch.float32 else "float32"
    return f"the original stored and computed in {there} instead of {here}"


def noise_floor(model: Llama, windows: Windows, *, text: str = "") -> Generator[Event, None, Scores]:
    """The phase "evaluation" of the original against itself in the other precision; returns the Scores. Raises what `score` raises."""
    return score(model, other_precision(model), windows, text=text)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
