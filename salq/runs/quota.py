"""Room on the disk: how much each run takes, and which ones a quota removes. Never a run that is worked on, pinned, or the one that asks."""

import logging
import shutil
from collections.abc import Iterable
from pathlib import Path

from salq.core import settings
from salq.core.errors import ResourceError, SalqError
from salq.runs.info import RunInfo
from salq.runs.store import RunStore

logger = logging.getLogger("salq.quota")
GB = 1e9
FINISHED = ("done", "failed", "cancelled")
"""What may be removed. An interrupted or unread run may hold hours of finished blocks that nobody has seen; a person decides about those."""


def size_of(folder: Path) -> int:
    """Bytes of all files below `folder`; files that vanish meanwhile count nothing."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.lstat().st_size
        except OSError:
            continue
    return total


def tidy(store: RunStore, run_id: str) -> None:
    """Remove what killed processes left half written in the run's folder, whose lock the caller holds, and folders of runs half deleted."""
    for path in (store.root / run_id).rglob(".*"):  # only files that are being written begin with a point (core/files.py)
        try:
            path.unlink(missing_ok=True)
        except OSError:  # it stays, and is in nobody's way
            continue
    for folder in store.root.glob(".deleted-*"):
        shutil.rmtree(folder, ignore_errors=True)


def removable(runs: Iterable[RunInfo], keep: str = "") -> list[RunInfo]:
    """The runs that a quota may remove, the oldest first."""
    return sorted((info for info in runs if info.status in FINISHED and not info.pinned and info.id != keep), key=lambda info: info.id)


def make_room(store: RunStore, keep: str = "", quota_gb: float | None = None) -> list[RunInfo]:
    """Remove the oldest removable runs until all runs together take at most the quota; returns what was removed.

    keep: the run that asks. quota_gb: by default SALQ_QUOTA_GB; without one nothing happens.
    Raises ResourceError when what may not be removed takes more than the quota.
    """
    quota = settings.quota_gb() if quota_gb is None else quota_gb
    if quota is None:
        return []
    sizes = {run_id: size_of(store.root / run_id) for run_id in store.ids()}
    total = sum(sizes.values())
    removed: list[RunInfo] = []
    for info in removable(store.list(), keep):
        if total <= quota * GB:
            return removed
        try:
            store.delete(info.id)
        except SalqError:  # somebody resumed it, or removed it, just now
            continue
        total -= sizes.get(info.id, 0)
        logger.info("removed run %s (%s) to keep to the quota of %g GB", info.id, info.title, quota)
        removed.append(info)
    if total > quota * GB:
        raise ResourceError(
            f"The runs take {total / GB:.3g} GB, above the quota of {quota:g} GB, and those that are left are pinned, unfinished or being worked on; "
            "unpin or delete some (`python -m salq runs unpin ID`, `runs delete ID`), or raise SALQ_QUOTA_GB."
        )
    return removed
