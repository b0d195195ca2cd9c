"""Models from the hub: safetensors and tokenizer only, checked before gigabytes are fetched; every refusal as one sentence."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import HfApi, ModelInfo, constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from salq.core.errors import ModelError, ResourceError, SalqError
from salq.core.files import as_resource_error
from salq.core.network import hub_answers
from salq.core.settings import hub_endpoint
from salq.models.folder import check_config, check_folder, read_folder_config

WANTED = ["config.json", "generation_config.json", "model*.safetensors", "model.safetensors.index.json"]
WANTED += ["tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "chat_template*"]
WANTED += ["vocab.json", "merges.txt", "added_tokens.json"]
PICKLES = (".bin", ".pt", ".pth")


def downloaded(hub_id: str) -> Path | None:
    """The complete copy of that model in the hub client's cache, or None. Touches no network."""
    try:
        folder = Path(snapshot_download(hub_id, allow_patterns=WANTED, local_files_only=True))
        check_folder(folder)
    except (LocalEntryNotFoundError, HFValidationError, OSError, SalqError):
        return None
    return folder


def fetch(hub_id: str) -> Path:
    """Download the model (or take it from the hub client's cache) and return its folder.

    Raises ModelError: no network, no such model, gated, not a LLaMA, no safetensors, interrupted; ResourceError: disk too small.
    """
    if (folder := downloaded(hub_id)) is not None:
        return folder
    if not hub_answers():
        raise ModelError(
            f"{hub_id} is not on this machine and the model hub cannot be reached; connect to it, or name a local folder that holds the model."
        )
    with _refusals_as_sentences(hub_id), _no_bars():
        info = HfApi().model_info(hub_id, files_metadata=True, timeout=10)
        _check_files(hub_id, info)
        config = Path(hf_hub_download(hub_id, "config.json"))
        check_config(read_folder_config(config.parent), hub_id)
        # by branch, not by commit: the client then notes which commit it has, and finds it again without a network
        folder = Path(snapshot_download(hub_id, allow_patterns=WANTED))
    check_folder(folder)
    return folder


def _check_files(hub_id: str, info: ModelInfo) -> None:
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
    weights = {name: size for name, size in sizes.items() if "/" not in name and name.startswith("model") and name.endswith(".safetensors")}
    if not weights:
        found = "pickled weights only" if any(name.endswith(PICKLES) for name in sizes) else "no weights in the usual place"
        raise ModelError(f"{hub_id} has {found}; salq reads safetensors only, so choose a model published as model.safetensors.")
    if "config.json" not in sizes:
        raise ModelError(f"{hub_id} has no config.json, so it is not a model that salq can read; choose another.")
    needed, free = sum(weights.values()), _free_bytes(Path(constants.HF_HUB_CACHE))
    if needed > free:
        raise ResourceError(
            f"{hub_id} takes {needed / 1e9:.1f} GB of disk and only {free / 1e9:.1f} GB are free; free some space or point HF_HOME at another disk."
        )


def _free_bytes(folder: Path) -> int:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(existing).free


@contextmanager
def _no_bars() -> Iterator[None]:
    had_bars = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if had_bars:
            enable_progress_bars()


@contextmanager
def _refusals_as_sentences(hub_id: str) -> Iterator[None]:
    page = f"{hub_endpoint()}/{hub_id}"
    try:
        yield
    except GatedRepoError as error:
        raise ModelError(f"{hub_id} is gated: accept its licence at {page}, then run `hf auth login` or set HF_TOKEN, and try again.") from error
    except RepositoryNotFoundError as error:
        raise ModelError(f"The hub has no model {hub_id}, or it is private: check the name, or run `hf auth login` or set HF_TOKEN.") from error
    except HFValidationError as error:
        raise ModelError(f"{hub_id!r} is not a hub id; it looks like owner/name.") from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "no status"
        raise ModelError(f"The hub refused {hub_id} (status {status}); try again later, or name a local folder.") from error
    except LocalEntryNotFoundError as error:
        raise ModelError(f"Downloading {hub_id} was interrupted; try again, what has arrived is kept.") from error
    except OSError as error:
        if error.errno is not None and error.filename:
            raise as_resource_error(error, Path(str(error.filename))) from error
        raise ModelError(f"Downloading {hub_id} failed ({type(error).__name__}); try again, what has arrived is kept.") from error
