"""A folder on disk as a LLaMA: what must be in it, and the fingerprint by which caches recognise it."""

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from salq.core.errors import ModelError
from salq.core.files import read_json

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
ORIGIN_FILE = "salq.json"
"""Beside a model that salq converted: where it came from and how its weights were stored."""
VOLATILE_KEYS = {"transformers_version", "dtype", "torch_dtype", "_name_or_path", "architectures", "use_cache"}
SAMPLES, SAMPLE_BYTES = 64, 4096
"""Weights are fingerprinted by 64 evenly spaced pages: telling two checkpoints apart takes milliseconds, not a pass over gigabytes."""


def check_folder(folder: Path) -> None:
    """Raise ModelError, saying what is wrong and what to do, unless `folder` holds a LLaMA in whole safetensors files."""
    check_config(read_folder_config(folder), str(folder))
    for path in weight_files(folder):
        _check_weights(path)


def read_folder_config(folder: Path) -> dict[str, Any]:
    """`config.json` as a dict. Raises ModelError when it is missing or not JSON."""
    path = folder / "config.json"
    try:
        config = read_json(path)
    except FileNotFoundError as error:
        raise ModelError(f"{folder} holds no config.json; point to the folder that holds config.json and *.safetensors.") from error
    except (ValueError, OSError) as error:
        raise ModelError(f"{path} cannot be read as JSON; fetch the model again.") from error
    if not isinstance(config, dict):
        raise ModelError(f"{path} is not a JSON object; fetch the model again.")
    return config


def check_config(config: dict[str, Any], where: str) -> None:
    """Raise ModelError unless the config is that of a LLaMA whose weights are not quantized already."""
    kind = config.get("model_type")
    if kind != "llama":
        raise ModelError(f"{where} is not a LLaMA: its model_type is {kind!r}; salq works on models whose model_type is 'llama'.")
    if quantization := config.get("quantization_config"):
        method = quantization.get("quant_method", "an unnamed method") if isinstance(quantization, dict) else quantization
        talk = ", or talk to it: `python -m salq chat --packed FOLDER`" if method == "salq" else ""
        raise ModelError(f"{where} is quantized already ({method}); use the full-precision model that it was made from{talk}.")


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of the model, all present. Raises ModelError when there are none or one is missing."""
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    if (folder / INDEX).is_file():
        files = [folder / name for name in sorted(set(weight_map(folder).values()))]
        if missing := [path.name for path in files if not path.is_file()]:
            raise ModelError(f"{folder} lacks {missing[0]}, which its index names; fetch the model again.")
        return files
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt*")):
        raise ModelError(f"{folder} holds pickled weights only; salq reads safetensors only, so convert the model with its publisher's tool.")
    raise ModelError(f"{folder} holds no {SINGLE} and no {INDEX}; fetch the model again, with its safetensors files.")


def weight_map(folder: Path) -> dict[str, str]:
    """Tensor name -> file name, from the index of a model in several files. Raises ModelError when the index is damaged."""
    try:
        names = read_json(folder / INDEX)["weight_map"]
        return {str(tensor): Path(name).name for tensor, name in names.items()}
    except (ValueError, OSError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{folder / INDEX} is damaged; fetch the model again.") from error


def file_of(folder: Path, tensor: str) -> Path:
    """The safetensors file that holds `tensor`."""
    if (folder / SINGLE).is_file():
        return folder / SINGLE
    names = weight_map(folder)
    if tensor not in names:
        raise ModelError(f"{folder} holds no tensor {tensor}; fetch the model again.")
    return folder / names[tensor]


def fingerprint(folder: Path) -> str:
    """sha256 (hex) over config, tokenizer, and the sizes and sampled pages of the weight files: same content, same fingerprint."""
    stats = [(path.name, path.stat()) for path in sorted(folder.iterdir()) if path.is_file()]
    return _fingerprint(folder, tuple((name, stat.st_mtime_ns, stat.st_size) for name, stat in stats))


@lru_cache(64)
def _fingerprint(folder: Path, _files: tuple[tuple[str, int, int], ...]) -> str:
    """Taken anew when a file of the folder is another one: the page asks for it with every click."""
    digest = hashlib.sha256()
    config = {key: value for key, value in read_folder_config(folder).items() if key not in VOLATILE_KEYS}
    digest.update(json.dumps(config, sort_keys=True).encode())
    for name in ("tokenizer.json", "tokenizer.model"):
        if (folder / name).is_file():
            digest.update((folder / name).read_bytes())
    for path in weight_files(folder):
        _sample_into(digest, path)
    return digest.hexdigest()


def _sample_into(digest: "hashlib._Hash", path: Path) -> None:
    size = path.stat().st_size
    digest.update(f"{path.name}:{size};".encode())
    with path.open("rb") as file:
        for index in range(SAMPLES):
            file.seek(index * max(size - SAMPLE_BYTES, 0) // (SAMPLES - 1))
            digest.update(file.read(SAMPLE_BYTES))


def _check_weights(path: Path) -> None:
    try:
        with safe_open(path, framework="np"):  # numpy, because torch would be imported for nothing
            pass
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is damaged or cut short ({error}); fetch the model again.") from error
