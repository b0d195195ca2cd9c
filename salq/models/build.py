"""Folders that are built once: by one process at a time, and visible only when complete."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

from salq.core.errors import ModelError
from salq.core.files import as_resource_error

WAIT_SECONDS = 900


def build_once(target: Path, build: Callable[[Path], None]) -> Path:
    """`target`, made by `build(temporary folder)` unless it is there. A second process waits for the first; a failure leaves nothing.

    Raises what `build` raises, ResourceError when the disk refuses, ModelError when another process holds the lock for 15 minutes.
    """
    if target.is_dir():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.parent / f".{target.name}.lock", timeout=WAIT_SECONDS):
            if not target.is_dir():
                _build(target, build)
    except Timeout as error:
        raise ModelError(f"Another process has been preparing {target} for 15 minutes; stop it, or wait, and try again.") from error
    except OSError as error:
        raise as_resource_error(error, target) from error
    return target


def _build(target: Path, build: Callable[[Path], None]) -> None:
    prefix = f".{target.name}.part-"
    for leftover in target.parent.glob(f"{prefix}*"):  # of a process that was killed; the lock is ours now
        shutil.rmtree(leftover, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
    try:
        build(temporary)
        temporary.chmod(0o755)  # mkdtemp makes it private
        os.replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
