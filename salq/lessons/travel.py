"""How an error travels: the hidden state after every block, when one block, all blocks, or all blocks but one are rounded."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from salq.lessons.material import Travel, rounded
from salq.models.capture import relative_error

Block = Callable[[Tensor], Tensor]
"""One decoder layer, from hidden states to hidden states."""


@torch.no_grad()
def travel(original: Sequence[Block], quantized: Sequence[Block], hidden: Float[Tensor, "samples seq hidden"]) -> Travel:
    """The three kinds of curve for a stack of blocks. `hidden` is the input of the first one; n_blocks^2 / 2 block passes."""
    exact, broken = [hidden], [hidden]
    for block, changed in zip(original, quantized, strict=True):
        exact.append(block(exact[-1]))
        broken.append(changed(broken[-1]))
    alone = [relative_error(changed(exact[i]), exact[i + 1]) for i, changed in enumerate(quantized)]
    together = [relative_error(one, other) for one, other in zip(broken[1:], exact[1:], strict=True)]
    without = []
    for index in range(len(original)):
        state = original[index](broken[index])
        curve = [*together[:index], relative_error(state, exact[index + 1])]
        for later in range(index + 1, len(original)):
            state = quantized[later](state)
            curve.append(relative_error(state, exact[later + 1]))
        without.append(tuple(rounded(value) for value in curve))
    return Travel(alone=tuple(map(rounded, alone)), together=tuple(map(rounded, together)), without=tuple(without))
