"""From a name to a folder that holds a LLaMA: catalogue key, hub id, or local folder; where it came from is kept and shown."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from salq.core.errors import ModelError, UnknownNameError
from salq.core.settings import is_public_host
from salq.models.catalogue import CATALOGUE
from salq.models.folder import check_folder, fingerprint

Origin = Literal["folder", "hub", "package"]


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
    """Find the model called `name`: a local folder."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        if is_public_host():
            raise ModelError("Folders of this machine cannot be opened on a public host; choose a model of the catalogue or a hub id.")
        check_folder(folder)
        return ModelSource(name, folder.resolve(), "folder", "", fingerprint(folder))
    raise UnknownNameError.of("Model", name, list(CATALOGUE), "A hub id (owner/name) or a local folder works too.")
