"""Writing files so that a reader, a crash or a full disk never sees half of one."""

import errno
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from salq.core.errors import ResourceError

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""A full disk, a used-up quota, and a limit on the size of files: to the person who waits for the run they are the same."""


NOWHERE = Path(os.devnull) / "nowhere"
"""A path at which nothing can be."""


def path_of(text: str) -> Path:
    """What a person typed, as a path, `~` being their home; what cannot be one (too long, a null byte, somebody unknown) is a path of nothing."""
    try:
        path = Path(text).expanduser()
        path.exists()
    except (OSError, ValueError, RuntimeError):
        return NOWHERE
    return path


def last_part(text: str) -> str:
    """The last part of a hub id or of a path of any system: what people are shown, and what is the same on every machine."""
    return text.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1] or text


def size_words(gigabytes: float) -> str:
    """A size for people: 1.5 GB, 7.9 MB."""
    return f"{gigabytes:.1f} GB" if gigabytes >= 1 else f"{gigabytes * 1000:.3g} MB"


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """A temporary path in the target's folder that becomes the target when the body succeeds, and vanishes when it fails.

    Raises ResourceError when the disk is full or not writable.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        os.close(handle)
    except OSError as error:
        raise as_resource_error(error, target) from error
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # mkstemp makes it private; the cache is as readable as any other file of its owner
        temporary.replace(target)
    except OSError as error:
        raise as_resource_error(error, target) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_json(target: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically. NaN and infinity are refused: JSON has no word for them."""
    with atomic_path(target) as temporary:
        temporary.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Parse a JSON file; raises ValueError when it is torn and OSError when it is not there."""
    return json.loads(path.read_text(encoding="utf-8"))


def as_resource_error(error: OSError, target: Path) -> ResourceError:
    """The one sentence for a disk that refuses."""
    if error.errno in FULL:
        return ResourceError(f"No space is left on the disk for {target}; free some space or point SALQ_HOME at another disk, then resume.")
    return ResourceError(f"{target} cannot be written ({error.strerror or error}); point SALQ_HOME at a folder that you may write to.")
