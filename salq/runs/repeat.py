"""Whether two runs have the same codes, and everything that is needed to make a run again: hashes, settings, versions, a command. Light."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from salq.core.files import read_json
from salq.runs.requests import CalibrateRequest
from salq.runs.store import RunStore

MAX_HEADER = 100_000_000
"""Bytes; the same bound as that of the safetensors library."""

DECIDES = ("salq", "python", "torch", "device", "dtype", "threads", "cpu", "gpu", "cuda")
"""What of environment.json may change the last bits of a sum, and with them a code: sums are taken in another order."""

INPUTS = {"model": "the model's files", "calibration": "the calibration text"}


def codes_hash(folder: Path, n_blocks: int | None = None) -> str | None:
    """sha256 (hex) of all codes, scales, zero points and adapters in a folder of packed blocks; None when a block is missing, cut, or of
    format 1, which had no hashes.

    It is made of the hashes in the files' manifests, which reading a block checks, so equal codes have equal hashes whatever the file's
    metadata says, and no weight is read for it. n_blocks: how many there must be.
    """
    paths = sorted(folder.glob("[0-9][0-9][0-9].safetensors"))
    if not paths or (n_blocks is not None and len(paths) != n_blocks):
        return None
    found = hashlib.sha256()
    for path in paths:
        matrices = _manifest(path)
        if not matrices or not all(_hashes(entry) for entry in matrices.values()):
            return None
        for line in sorted(_lines(path.stem, matrices)):
            found.update(line.encode("utf-8", "replace"))
    return found.hexdigest()


def hash_of_run(store: RunStore, run_id: str) -> str | None:
    """`codes_hash` of what a finished run made; None for one that is not finished, or makes no codes."""
    n_blocks = store.metrics(run_id).get("n_blocks")
    return codes_hash(store.result_folder(run_id), n_blocks) if isinstance(n_blocks, int) else None


def is_whole(store: RunStore, run_id: str) -> bool:
    """Whether a finished run still has everything that it made; one that lost a part can be resumed, which computes that part again."""
    info = store.get(run_id)
    if info.status != "done" or info.request is None:
        return False
    return hash_of_run(store, run_id) is not None if isinstance(info.request, CalibrateRequest) else bool(info.metrics)


@dataclass(frozen=True)
class Comparison:
    """A run beside another run of the same request. `same` is None while one of them has no codes yet."""

    other: str
    same: bool | None
    differences: tuple[str, ...]
    """What was not the same at their start, in words: versions, threads, text."""

    @property
    def words(self) -> str:
        """One sentence for people."""
        if self.same is None:
            return f"Run {self.other} has the same request; it has no codes to compare with."
        if self.same:
            return f"All codes are identical to those of run {self.other}."
        why = f"; not the same were {', '.join(self.differences)}" if self.differences else ", although versions, device and threads are the same"
        return f"The codes differ from those of run {self.other}{why}."


def compare(store: RunStore, run_id: str, other: str) -> Comparison:
    """Whether two runs gave the same codes, and if not, what else differed."""
    hashes = hash_of_run(store, run_id), hash_of_run(store, other)
    same = None if None in hashes else hashes[0] == hashes[1]
    return Comparison(other, same, () if same else tuple(_differences(store, run_id, other)))


def twins(store: RunStore, run_id: str, most: int = 5) -> list[Comparison]:
    """The other finished runs of the same request, newest first, compared with this one."""
    request = store.request(run_id)
    if not isinstance(request, CalibrateRequest) or hash_of_run(store, run_id) is None:
        return []
    key, found = request.key(), []
    for info in store.list():
        if info.id != run_id and info.status == "done" and info.request is not None and info.request.key() == key:
            found.append(compare(store, run_id, info.id))
        if len(found) >= most:
            break
    return found


def needed(store: RunStore, run_id: str) -> dict[str, Any]:
    """Everything that is needed to make the run again, as JSON values: request, hashes of its inputs, versions, its codes' hash, the command."""
    request = store.request(run_id)
    return {
        "command": f"python -m salq runs rerun {run_id}",
        "request": request.to_json(),
        "request_key": request.key(),
        "inputs": _json_of(store, run_id, "inputs.json"),
        "environment": _json_of(store, run_id, "environment.json"),
        "codes_sha256": hash_of_run(store, run_id),
        "same_request": [{"run": one.other, "same_codes": one.same, "differences": list(one.differences)} for one in twins(store, run_id)],
    }


def _manifest(path: Path) -> Mapping[str, Any] | None:
    """The matrices of a packed file's manifest (salq/packing/FORMAT.md), without torch; None for a file that is not one."""
    try:
        whole = path.stat().st_size
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size) if size <= min(whole, MAX_HEADER) else b"")
        matrices = json.loads(header["__metadata__"]["salq"])["matrices"]
        end = max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
        is_whole = isinstance(matrices, dict) and whole == 8 + size + end
        return matrices if is_whole else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return None


def _lines(block: str, matrices: Mapping[str, Any]) -> Iterator[str]:
    for name, entry in matrices.items():
        for part, digest in _hashes(entry).items():
            yield f"{block} {name} {part} {digest}\n"


def _hashes(entry: Any) -> Mapping[str, Any]:
    """The hashes of a matrix's tensors, as its manifest lists them; {} for an entry that is none."""
    found = entry.get("sha256") if isinstance(entry, dict) else None
    return found if isinstance(found, dict) else {}


def _differences(store: RunStore, run_id: str, other: str) -> Iterator[str]:
    one, two = (_json_of(store, run, "inputs.json") for run in (run_id, other))
    for key, words in INPUTS.items():
        if one.get(key) != two.get(key):
            yield words
    one, two = (_json_of(store, run, "environment.json") for run in (run_id, other))
    for key in DECIDES:
        if one.get(key) != two.get(key):
            yield f"{key} ({one.get(key)}, not {two.get(key)})"


def _json_of(store: RunStore, run_id: str, name: str) -> dict[str, Any]:
    try:
        found = read_json(store.folder(run_id) / name)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
