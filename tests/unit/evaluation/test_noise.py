"""The noise floor: small but not nothing, of the same model, and the original is left as it was."""

import torch

from salq.core.drain import drain
from salq.evaluation.noise import how, noise_floor, other_precision
from salq.evaluation.scores import score
from salq.kernels.assemble import quantized_copy, rtn_blocks
from salq.models.llama import Llama
from salq.quant.spec import QuantSpec
from tests.helpers import random_tokens


def test_the_copy_is_the_same_model_in_the_other_precision(tiny: Llama) -> None:
    copied = other_precision(tiny)
    assert (tiny.dtype, copied.dtype) == (torch.float32, torch.bfloat16)
    for (name, weight), other in zip(tiny.model.named_parameters(), copied.model.parameters(), strict=True):
        assert torch.equal(weight.to(torch.bfloat16), other), name
    assert copied.model.lm_head.weight is copied.model.model.embed_tokens.weight  # tied as before
    assert other_precision(copied).dtype == torch.float32
    assert how(tiny) == "the original stored and computed in bfloat16 instead of float32"


def test_the_floor_lies_above_zero_and_below_quantization(tiny: Llama) -> None:
    windows = random_tokens(tiny.config.vocab_size, n_samples=4, seq_len=32)
    floor = drain(noise_floor(tiny, windows, text="random"))
    coarse = drain(score(tiny, quantized_copy(tiny, rtn_blocks(tiny, QuantSpec(bits=2, group_size=32))), windows))
    assert 0 < floor.kl < coarse.kl / 10
    assert floor.top1_agreement > coarse.top1_agreement
    assert floor.original_perplexity == coarse.original_perplexity
