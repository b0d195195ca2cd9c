"""Saliency maps on disk: computed once for a model, a text and a sampling, and found again by those.

    <saliency folder>/<key>/meta.json                what it is, and the mean saliency of every matrix
                           /blocks/000.safetensors   float32 [out, in] by module_name

A map appears in one rename when it is complete; a reader never sees half of one.
"""

import dataclasses
import hashlib
import json
import re
import shutil
import tempfile
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from salq.core import settings
from salq.core.drain import drain
from salq.core.errors import ConfigError, ResourceError, ShapeError, StoreError, UnknownNameError
from salq.core.events import Event, MetricReported, PhaseDone, PhaseStarted, PhaseStep
from salq.core.files import as_resource_error, atomic_path, read_json, size_words, write_json
from salq.data.sources import load_text
from salq.data.text import Text
from salq.data.windows import sample_windows
from salq.models.llama import LINEARS, Llama
from salq.saliency.fisher import BATCH_SIZE, accumulator_gb, block_chunks, fisher_diagonal

FORMAT = 1
STALE_SECONDS = 24 * 3600
"""A half-written map older than this belongs to a process that was killed, and is removed by the next one."""


@dataclass(frozen=True)
class MapMeta:
    """What a map was computed from. Saliency is in nats^2 per weight^2 (mean over samples of the squared gradient of the summed nll).

    mean[block][i]: mean over the finite weights of matrix LINEARS[i] (None when there is none); n_nonfinite[block][i] counts the others.
    """

    model: str
    fingerprint: str
    text: str
    text_sha256: str
    n_samples: int
    seq_len: int
    seed: int
    device: str
    dtype: str
    seconds: float
    mean: list[list[float | None]]
    n_nonfinite: list[list[int]]
    note: str = ""
    linears: list[str] = field(default_factory=lambda: list(LINEARS))
    format: int = FORMAT


@dataclass(frozen=True)
class SaliencyMap:
    """A finished map in `folder`. Tensors are read from disk (memory-mapped) when they are asked for."""

    folder: Path

    @cached_property
    def meta(self) -> MapMeta:
        """Raises StoreError when meta.json is missing, torn or of another format."""
        try:
            values = read_json(self.folder / "meta.json")
            if values["format"] != FORMAT:
                raise ValueError(f"format {values['format']}")
            return MapMeta(**values)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self._damaged(error) from error

    @property
    def n_blocks(self) -> int:
        """Number of blocks."""
        return len(self.meta.mean)

    @property
    def n_samples(self) -> int:
        """Samples that the mean was taken over."""
        return self.meta.n_samples

    @property
    def seq_len(self) -> int:
        """Tokens per sample; each predicts all of its tokens but the first."""
        return self.meta.seq_len

    def block(self, index: int) -> dict[str, Float[Tensor, "out in"]]:
        """Saliency of every linear of one block, float32 on the CPU. Raises ConfigError for a block that does not exist."""
        return {name: self.matrix(index, name) for name in LINEARS}

    def matrix(self, index: int, module_name: str) -> Float[Tensor, "out in"]:
        """Saliency of one matrix, float32 on the CPU; reads only that matrix."""
        if not 0 <= index < self.n_blocks:
            raise ConfigError(f"Block {index} is not in this saliency map of {self.n_blocks} blocks; use 0 to {self.n_blocks - 1}.")
        if module_name not in LINEARS:
            raise UnknownNameError.of("Matrix", module_name, LINEARS)
        try:
            with safe_open(_block_path(self.folder, index), framework="pt") as file:
                return file.get_tensor(module_name)
        except (OSError, SafetensorError) as error:
            raise self._damaged(error) from error

    def grid(self) -> list[list[float | None]]:
        """[n_blocks][7] mean saliency per weight, columns in the order of LINEARS."""
        return self.meta.mean

    def check_model(self, model: Llama) -> None:
        """Raise ShapeError when this map does not belong to `model`, before any work is spent on it."""
        if self.meta.fingerprint != model.source.fingerprint:
            raise ShapeError(
                f"This saliency map was computed for {self.meta.model}, not for {model.name}; compute it again (python -m salq saliency)."
            )

    def summary(self) -> dict[str, Any]:
        """JSON values for reports: the key, what it was computed from, and how many weights have no finite saliency."""
        meta = self.meta
        return {
            "key": self.folder.name,
            "text": meta.text,
            "n_samples": meta.n_samples,
            "seq_len": meta.seq_len,
            "seed": meta.seed,
            "note": meta.note,
            "n_nonfinite": sum(map(sum, meta.n_nonfinite)),
        }

    def _damaged(self, error: Exception) -> StoreError:
        return StoreError(f"The saliency map in {self.folder} cannot be read ({error}); delete that folder and compute it again.")


def saliency_key(*, fingerprint: str, text_sha256: str, n_samples: int, seq_len: int, seed: int) -> str:
    """Name of the map of a model (ModelSource.fingerprint), a text (Text.sha256) and a sampling; 32 hex digits.

    The batch size, the device and the chunking are not part of it: they do not change what is computed.
    """
    parts = [FORMAT, fingerprint, text_sha256, n_samples, seq_len, seed]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def find(key: str) -> SaliencyMap | None:
    """The finished map of that key, or None."""
    folder = settings.saliency_dir() / key
    return SaliencyMap(folder) if re.fullmatch("[0-9a-f]{32}", key) and (folder / "meta.json").is_file() else None


def saliency_map(
    model: Llama, *, n_samples: int = 24, seq_len: int = 256, text: str = "auto", seed: int = 0, batch_size: int = BATCH_SIZE
) -> SaliencyMap:
    """The Fisher diagonal of every linear of `model` on `n_samples` random windows of `seq_len` tokens, from the cache when it is there.

    F = mean over samples of (d nll / d W)^2, nats^2 per weight^2     SAPR (arXiv 2504.13932); SqueezeLLM (arXiv 2306.07629) sec. 4.1

    text: auto, bundled, wikitext2, c4, self:N or chats:N (written by the model) or the path of a UTF-8 file.
    Raises TextError, ConfigError, ResourceError.
    """
    return drain(compute_saliency(model, load_text(text, "calibration", model), n_samples, seq_len, seed, batch_size))


def compute_saliency(
    model: Llama, text: Text, n_samples: int = 24, seq_len: int = 256, seed: int = 0, batch_size: int = BATCH_SIZE
) -> Generator[Event, None, SaliencyMap]:
    """The phase "saliency": compute the map, or find it, and report MetricReported("saliency", summary); returns the map.

    A model whose accumulators exceed the budget of `block_chunks` is passed over once per chunk of blocks. Nothing is left behind by a
    pass that fails or is closed. Raises ConfigError, TextError and ResourceError before any work where that can be known.
    """
    _check_sampling(model, n_samples, seq_len, batch_size)
    key = saliency_key(
        fingerprint=model.source.fingerprint, text_sha256=text.sha256, n_samples=n_samples, seq_len=seq_len, seed=seed
    )  # fmt: skip
    started, found = time.monotonic(), find(key)
    chunks = [] if found else block_chunks(model)
    yield PhaseStarted("saliency", of=n_samples * max(len(chunks), 1), unit="samples")
    if found is None:
        tokens = sample_windows(text, model.tokenizer, n_samples, seq_len, seed)
        staging = _staging_folder(model, key)
        try:
            grids = yield from _write_blocks(model, tokens, chunks, staging, batch_size)
            meta = _meta(model, text, tokens, seed, grids, time.monotonic() - started)
            found = _publish(staging, key, meta)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    yield MetricReported("saliency", found.summary())
    yield PhaseDone("saliency", time.monotonic() - started)
    return found


@dataclass(frozen=True)
class _Grids:
    mean: list[list[float | None]]
    n_nonfinite: list[list[int]]


def _write_blocks(model: Llama, tokens: Tensor, chunks: list[range], folder: Path, batch_size: int) -> Generator[Event, None, _Grids]:
    grids, done = _Grids([], []), 0
    for chunk in chunks:
        events = fisher_diagonal(model, tokens, batch_size=batch_size, blocks=chunk)
        while True:
            try:
                yield PhaseStep("saliency", done + next(events))
            except StopIteration as finished:
                totals = finished.value
                break
        done += len(tokens)
        for block in chunk:
            matrices = totals.pop(block)
            _save_block(_block_path(folder, block), matrices)
            grids.mean.append([_finite_mean(matrices[name]) for name in LINEARS])
            grids.n_nonfinite.append([int((~torch.isfinite(matrices[name])).sum()) for name in LINEARS])
    return grids


def _finite_mean(matrix: Float[Tensor, "out in"]) -> float | None:
    finite = matrix[torch.isfinite(matrix)]
    return float(finite.mean(dtype=torch.float64)) if len(finite) else None


def _save_block(path: Path, matrices: Mapping[str, Tensor]) -> None:
    with atomic_path(path) as temporary:
        try:
            save_file({name: matrix.cpu().contiguous() for name, matrix in matrices.items()}, temporary)
        except SafetensorError as error:
            raise ResourceError(f"{path} cannot be written ({error}); free some disk space or point SALQ_HOME at another disk.") from error


def _publish(staging: Path, key: str, meta: MapMeta) -> SaliencyMap:
    """Name the finished map. Another process may have finished the same one in the meantime; then that one stays."""
    write_json(staging / "meta.json", dataclasses.asdict(meta))
    target = settings.saliency_dir() / key
    try:
        staging.chmod(0o755)  # mkdtemp makes it private
        staging.rename(target)
    except OSError as error:
        if not (target / "meta.json").is_file():
            raise as_resource_error(error, target) from error
    return SaliencyMap(target)


def _meta(model: Llama, text: Text, tokens: Tensor, seed: int, grids: _Grids, seconds: float) -> MapMeta:
    return MapMeta(
        model=model.name,
        fingerprint=model.source.fingerprint,
        text=text.name,
        text_sha256=text.sha256,
        n_samples=tokens.shape[0],
        seq_len=tokens.shape[1],
        seed=seed,
        device=str(model.device),
        dtype=str(model.dtype).removeprefix("torch."),
        seconds=seconds,
        mean=grids.mean,
        n_nonfinite=grids.n_nonfinite,
        note=model.source.note,
    )


def _staging_folder(model: Llama, key: str) -> Path:
    """A private folder beside the maps. Raises ResourceError when the map would not fit on the disk."""
    root = settings.saliency_dir()
    needed = sum(accumulator_gb(model, block) for block in range(model.n_blocks))
    try:
        root.mkdir(parents=True, exist_ok=True)
        _remove_stale(root)
        free = shutil.disk_usage(root).free / 1e9
        if free < needed:
            raise ResourceError(
                f"The saliency map of {model.name} takes {size_words(needed)} and {root} has {size_words(free)} free; "
                "free some space or point SALQ_HOME at another disk."
            )
        return Path(tempfile.mkdtemp(prefix=f".{key}.", dir=root))
    except OSError as error:
        raise as_resource_error(error, root) from error


def _remove_stale(root: Path) -> None:
    for folder in root.glob(".*"):
        if time.time() - folder.stat().st_mtime > STALE_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)


def _check_sampling(model: Llama, n_samples: int, seq_len: int, batch_size: int) -> None:
    longest = model.config.max_position_embeddings
    if n_samples < 1 or batch_size < 1:
        raise ConfigError(f"Saliency needs at least one sample and a batch size of at least 1; got {n_samples} and {batch_size}.")
    if not 2 <= seq_len <= longest:
        raise ConfigError(f"A saliency sample has 2 to {longest} tokens on {model.name}; got {seq_len}.")


def _block_path(folder: Path, block: int) -> Path:
    return folder / "blocks" / f"{block:03d}.safetensors"
