"""Token windows: random crops for calibration, consecutive ones for evaluation (the protocol of GPTQ, arXiv 2210.17323, sec. 4).

The text is tokenized as one sequence without special tokens, so a window holds exactly its number of the text's own tokens.
"""

from typing import Any

import torch
from torch import Tensor

from salq.core.errors import ConfigError, TextError
from salq.data.text import Text


def sample_windows(text: Text, tokenizer: Any, n_samples: int, seq_len: int, seed: int) -> Tensor:
    """`[n_samples, seq_len]` int64: crops at distinct random starts; the same arguments give the same crops.

    Crops may overlap when the text is short. Raises TextError when there are fewer than `n_samples` different crops.
    """
    _check_counts(n_samples=n_samples, seq_len=seq_len)
    tokens = tokenize(text, tokenizer)
    starts = len(tokens) - seq_len + 1
    if starts < n_samples:
        fits = len(tokens) - n_samples + 1
        advice = f"use samples of at most {fits} tokens, fewer samples, or a longer text" if fits > 1 else "use fewer samples or a longer text"
        raise TextError(f"{text.title} has {len(tokens)} tokens, too few for {n_samples} different samples of {seq_len}: {advice}.")
    chosen = torch.randperm(starts, generator=torch.Generator().manual_seed(seed))[:n_samples]
    return torch.stack([tokens[start : start + seq_len] for start in chosen.tolist()])


def evaluation_windows(text: Text, tokenizer: Any, windows: int, window: int) -> Tensor:
    """`[windows, window]` int64: the first `windows * window` tokens of the text, in order, without overlap.

    Raises TextError when the text is shorter, saying how many windows would fit.
    """
    _check_counts(windows=windows, window=window)
    tokens = tokenize(text, tokenizer)
    if len(tokens) < windows * window:
        fits = len(tokens) // window
        advice = f"{fits} windows of {window} fit" if fits else f"one window of {len(tokens)} fits"
        raise TextError(
            f"{text.title} has {len(tokens)} tokens, too few for {windows} windows of {window}: {advice}; ask for less, or use a longer text."
        )
    return tokens[: windows * window].reshape(windows, window)


def tokenize(text: Text, tokenizer: Any) -> Tensor:
    """All tokens of the text, int64 `[n]`, without special tokens."""
    ids = tokenizer(text.content, add_special_tokens=False, verbose=False).input_ids
    return torch.tensor(ids, dtype=torch.int64)


def _check_counts(**counts: int) -> None:
    for name, value in counts.items():
        least = 2 if name in {"seq_len", "window"} else 1  # one token alone predicts nothing
        if value < least:
            raise ConfigError(f"{name} is {value}; it must be at least {least}.")
