"""Keys and values of the tokens so far, in tensors that keep their place: buckets of 256, 512, 1024, ... tokens.

Within a bucket nothing is allocated while tokens come, which is also what a captured CUDA graph needs; a longer text moves to the next bucket.
"""

import torch
from jaxtyping import Float
from torch import Tensor

FIRST_BUCKET = 256
"""Tokens of the smallest bucket: 2 * 3 heads * 64 * 4 bytes * 256 = 0.4 MB per block of the default model."""


def bucket_of(tokens: int) -> int:
    """The smallest bucket that holds that many tokens."""
    size = FIRST_BUCKET
    while size < tokens:
        size *= 2
    return size


class KeyValueCache:
    """One tensor [2, kv heads, bucket, head width] per block: keys, then values."""

    def __init__(self, n_blocks: int, kv_heads: int, head_dim: int, device: torch.device, dtype: torch.dtype) -> None:
        """Empty; memory comes with `reserve`."""
        self._shape = (2, kv_heads, 0, head_dim)
        self.blocks: list[Float[Tensor, "2 heads bucket width"]] = [torch.empty(self._shape, device=device, dtype=dtype) for _ in range(n_blocks)]
        self.bucket = 0

    def reserve(self, tokens: int) -> bool:
        """Make room for that many tokens, keeping what is there; True when the tensors were replaced by larger ones."""
        if tokens <= self.bucket:
            return False
        before, self.bucket = self.bucket, bucket_of(tokens)
        heads, width = self._shape[1], self._shape[3]
        for index, old in enumerate(self.blocks):
            # zeros, because attention over a whole bucket multiplies what lies behind the mask by 0, and 0 * NaN is NaN
            self.blocks[index] = old.new_zeros(2, heads, self.bucket, width)
            self.blocks[index][:, :, :before] = old
        return True
