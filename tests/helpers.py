"""What tests of several rooms share: comparisons that say where they failed, random weights, tiny models."""

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def assert_close(name: str, got: Tensor, want: Tensor, *, rtol: float = 1e-5, atol: float = 1e-6) -> None:
    """Equal within |got - want| <= atol + rtol * |want|; the failure says the largest and mean error and the worst index."""
    assert got.shape == want.shape, f"{name}: shape {tuple(got.shape)}, wanted {tuple(want.shape)}"
    got64, want64 = got.detach().double().cpu(), want.detach().double().cpu()
    assert torch.isfinite(got64).all() or torch.equal(got64.isfinite(), want64.isfinite()), f"{name}: not finite"
    error = (got64 - want64).abs()
    if (error <= atol + rtol * want64.abs()).all():
        return
    worst = tuple(int(i) for i in torch.unravel_index(error.argmax(), error.shape))
    raise AssertionError(
        f"{name}: max error {error.max():.3g}, mean {error.mean():.3g}, at {worst}: got {got64[worst]:.6g}, wanted {want64[worst]:.6g}"
    )


def random_weight(out_features: int, in_features: int, seed: int = 0) -> Tensor:
    """float32 `[out, in]` with uneven input columns, as trained weights have."""
    generator = torch.Generator().manual_seed(seed)
    columns = torch.exp(0.5 * torch.randn(in_features, generator=generator))
    return torch.randn(out_features, in_features, generator=generator) * columns * in_features**-0.5


def random_tokens(vocab: int, n_samples: int = 4, seq_len: int = 24, seed: int = 0) -> Tensor:
    """int64 `[n_samples, seq_len]`, uniform over the first `vocab` ids."""
    return torch.randint(vocab, (n_samples, seq_len), generator=torch.Generator().manual_seed(seed))


def link_models(home: Path, models: Path) -> Path:
    """A home of a test's own that shares the converted models; returns the home."""
    home.mkdir(parents=True, exist_ok=True)
    (home / "models").symlink_to(models, target_is_directory=True)
    return home


def in_a_loop_of_its_own(work: Coroutine[Any, Any, None]) -> None:
    """In a thread, because the browser tests of the same process keep a loop running in this one, and Gradio leaves open what it makes itself."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, work).result()
