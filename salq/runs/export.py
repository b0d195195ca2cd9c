"""A finished run as a folder that stands alone: packed matrices, everything else at 16 bits, config, tokenizer, and a manifest for people.

manifest.json       what it is, how large, how good; where it came from
model.safetensors   packed matrices and the other weights (salq/packing/FORMAT.md)
config.json         the model's, with `quantization_config` saying that salq reads it
tokenizer files     as they were
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import salq
from salq.core.errors import ConfigError
from salq.core.files import as_resource_error, write_json
from salq.models.folder import SINGLE, read_folder_config
from salq.models.skeleton import linear_weights, stored_tensors
from salq.models.source import ModelSource, resolve
from salq.packing.files import FORMAT, Manifest, write_packed
from salq.quant.frozen import FrozenLinear
from salq.runs.requests import CalibrateRequest
from salq.runs.store import RunStore

COPIED = (
    "generation_config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja",
    "vocab.json", "merges.txt", "added_tokens.json",
)  # fmt: skip
METRICS = ("perplexity", "perplexity_original", "kl", "bits_per_weight", "size_mb", "model_bits_per_weight", "model_size_mb", "text", "tag", "recipe")


def export_run(store: RunStore, run_id: str, folder: Path) -> dict[str, Any]:
    """Write the run's model into `folder`, which must not exist or be empty; returns manifest.json. A failure leaves nothing.

    Raises ConfigError (not a finished calibration, folder in use), StoreError, ModelError, ResourceError.
    """
    request = store.request(run_id)
    if not isinstance(request, CalibrateRequest) or store.get(run_id).status != "done":
        raise ConfigError(f"Run {run_id} is not a finished calibration; finish it (`python -m salq runs resume {run_id}`) or choose another.")
    folder = folder.expanduser().absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} exists and is not empty; name a folder that does not exist yet.")
    source = resolve(request.model)
    temporary: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.part-", dir=folder.parent))
        about = _write(store, run_id, source, temporary)
        temporary.chmod(0o755)  # mkdtemp makes it private
        os.replace(temporary, folder)
    except OSError as error:
        raise as_resource_error(error, folder) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    return about


def _write(store: RunStore, run_id: str, source: ModelSource, folder: Path) -> dict[str, Any]:
    blocks = store.result(run_id)
    indices = blocks.indices()
    config = read_folder_config(source.folder)
    rest = _at_16_bits(source, linear_weights(indices), tied=bool(config.get("tie_word_embeddings")))

    def linears() -> Iterator[tuple[str, FrozenLinear]]:
        for index in indices:
            for name, frozen in blocks.load(index).items():
                yield f"model.layers.{index}.{name}", frozen

    manifest = write_packed(folder / SINGLE, linears(), blocks.origin, rest)
    write_json(folder / "config.json", config | {"quantization_config": {"quant_method": "salq", "format": FORMAT}})
    for name in COPIED:
        if (source.folder / name).is_file():
            shutil.copyfile(source.folder / name, folder / name)
    about = _about(store, run_id, source, manifest)
    write_json(folder / "manifest.json", about)
    return about


def _about(store: RunStore, run_id: str, source: ModelSource, manifest: Manifest) -> dict[str, Any]:
    metrics = store.metrics(run_id)
    return {
        "format": FORMAT,
        "salq": salq.__version__,
        "run": run_id,
        "source": {"model": manifest.origin.model, "fingerprint": source.fingerprint, "note": source.note},
        "recipe": manifest.origin.recipe,
        "metrics": {name: metrics[name] for name in METRICS if name in metrics},
        "matrices": {name: matrix.model_dump(mode="json") for name, matrix in manifest.matrices.items()},
        "rest": manifest.rest,
    }


def _at_16_bits(source: ModelSource, without: set[str], *, tied: bool) -> Iterator[tuple[str, Tensor]]:
    """Weights that are not quantized: bfloat16 and float16 as they are, others rounded to float16. A tied head is not stored twice."""
    for name, tensor in stored_tensors(source, without):
        if (tied and name == "lm_head.weight") or name.endswith("rotary_emb.inv_freq"):  # older checkpoints store what is computed
            continue
        yield name, tensor if tensor.dtype in {torch.bfloat16, torch.float16} else tensor.to(torch.float16)
