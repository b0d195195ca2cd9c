"""The run store: one folder per run, plain files, readable at any moment by any process.

runs/<id>/request.json      what was asked for; immutable
          request.copy.json the same again, read when the first is damaged: without it finished blocks could not be used
          environment.json  versions, device, threads of the last start
          inputs.json       hashes of the model and the texts: a resumed run goes on with the same ones
          events.jsonl      append-only (`log`)
          blocks/           finished blocks: the resume point
          distilled/        all blocks after the end-to-end pass, when the recipe has one; there once it is complete
          metrics.json      results
          worker.log        what the worker process printed
          alive.lock        held while a process works on the run (`alive`); holder.json says which
          cancel            present when a stop was asked for
          pinned            present when the quota must leave the run alone
          expected.json     seconds that it was expected to take before it started, where somebody has estimated them
Status is derived from these files and the lock (`states`), never stored. Ids are generated; every path is resolved under the root.
"""

import os
import re
import secrets
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from salq.core import events as ev
from salq.core.errors import ConfigError, StoreError, UnknownNameError
from salq.core.files import as_resource_error, read_json, write_json
from salq.runs import log
from salq.runs.alive import Alive, Role, end, holder, is_alive
from salq.runs.info import AnyRequest, RunInfo
from salq.runs.queue import Queue
from salq.runs.requests import CalibrateRequest, parse
from salq.runs.states import CANCEL, EVENTS, EXPECTED, PINNED, States

if TYPE_CHECKING:
    from salq.calibration.store import DirectoryBlocks
    from salq.packing.files import Origin

_ID = re.compile(r"^[0-9]{8}-[0-9]{6}-[0-9a-f]{4}$")
__all__ = ["DISTILLED", "RunInfo", "RunStore"]
_REQUEST, _COPY, _METRICS = "request.json", "request.copy.json", "metrics.json"
_UNREADABLE = (OSError, ValueError, TypeError, ConfigError, RecursionError)
DISTILLED = "distilled"


class RunStore:
    """All runs under one folder. Any number of processes may use the same folder at once."""

    def __init__(self, root: Path) -> None:
        """`root` need not exist yet."""
        self.root = root.resolve()
        self.queue = Queue(self.root)
        self._states = States(self.root, self.queue)

    def create(self, request: AnyRequest) -> str:
        """Store a request and return the new run's id; nothing starts yet. Raises ResourceError when the disk refuses."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            run_id = self._new_id()
            draft = self.root / f".new-{run_id}"
            draft.mkdir()
        except OSError as error:
            raise as_resource_error(error, self.root) from error
        try:
            for name in (_REQUEST, _COPY):
                write_json(draft / name, request.to_json())
            draft.rename(self.root / run_id)  # a reader sees the run with its request or not at all
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        return run_id

    def folder(self, run_id: str) -> Path:
        """Folder of a run. Raises UnknownNameError for an id that is not well-formed or does not exist."""
        if not _ID.fullmatch(run_id) or not (self.root / run_id).is_dir():
            raise UnknownNameError(f"Run {run_id!r} does not exist; `python -m salq runs list` shows those that do.")
        return self.root / run_id

    def resolve(self, text: str) -> str:
        """Id of the run that a person means: an id, the beginning or end of one, or a title; the newest when a title was used twice."""
        if _ID.fullmatch(text):
            return self.folder(text).name
        ids = self.ids()
        found = [run_id for run_id in ids if text and (run_id.startswith(text) or run_id.endswith(f"-{text}"))]
        found = found or [run_id for run_id in ids if self.get(run_id).title == text][:1]
        if len(found) == 1:
            return found[0]
        raise UnknownNameError.of("Run", text, (found or ids)[:10], "`python -m salq runs list` shows all.")

    def ids(self) -> list[str]:
        """Ids of all runs, newest first."""
        try:
            return sorted((path.name for path in self.root.iterdir() if _ID.fullmatch(path.name)), reverse=True)
        except OSError:
            return []

    def request(self, run_id: str) -> AnyRequest:
        """What was asked for. Raises StoreError when the file is damaged or from another version of salq."""
        folder = self.folder(run_id)
        try:
            return _request_in(folder / _REQUEST)
        except _UNREADABLE as error:
            try:
                return _request_in(folder / _COPY)
            except _UNREADABLE:
                raise StoreError(f"The request of run {run_id} cannot be read ({error}); delete the run or start it anew.") from error

    def get(self, run_id: str) -> RunInfo:
        """The run as it is now."""
        problem, request = "", None
        try:
            request = self.request(run_id)
        except StoreError as error:
            problem = str(error)
        info = self._states.look(run_id, request, problem)
        return replace(info, metrics=self.metrics(run_id))  # last: a run that is done has its results already

    def expect(self, run_id: str, seconds: float) -> None:
        """Keep how long the run is expected to take, for those that wait behind it. Raises ResourceError when the disk refuses."""
        write_json(self.folder(run_id) / EXPECTED, {"seconds": seconds})

    def pin(self, run_id: str, *, pinned: bool) -> None:
        """Protect a run from the quota, or no longer. Raises ResourceError when the disk refuses."""
        path = self.folder(run_id) / PINNED
        try:
            path.touch() if pinned else path.unlink(missing_ok=True)
        except OSError as error:
            raise as_resource_error(error, path) from error

    def events(self, run_id: str, since: int = 0) -> "list[ev.Event]":
        """Events of a run from number `since` on; a torn end is left out."""
        return log.read(self.folder(run_id) / EVENTS)[0][since:]

    def follow(self, run_id: str) -> log.Follower:
        """A reader that goes on where it stopped and folds everything, curves included."""
        return log.Follower(self.folder(run_id) / EVENTS)

    def append(self, run_id: str, event: ev.Event) -> ev.Event:
        """Add an event to the run's log and return it with its time. Raises ResourceError when the disk refuses."""
        return log.append(self.folder(run_id) / EVENTS, event)

    def metrics(self, run_id: str) -> dict[str, Any]:
        """Results of a finished run; empty before that."""
        try:
            found = read_json(self.folder(run_id) / _METRICS)
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def write_metrics(self, run_id: str, metrics: dict[str, Any]) -> None:
        """Keep the results; NaN and infinity become null."""
        write_json(self.folder(run_id) / _METRICS, log.finite(metrics))

    def blocks(self, run_id: str) -> "DirectoryBlocks":
        """The run's finished blocks."""
        from salq.calibration.store import DirectoryBlocks  # torch comes with it

        return DirectoryBlocks(self.folder(run_id) / "blocks", self._origin(run_id))

    def result_folder(self, run_id: str) -> Path:
        """Where the blocks lie that the run is about: those of the end-to-end pass once it is over, else the finished blocks."""
        distilled = self.folder(run_id) / DISTILLED
        return distilled if distilled.is_dir() else self.folder(run_id) / "blocks"

    def result(self, run_id: str) -> "DirectoryBlocks":
        """The blocks in `result_folder`."""
        from salq.calibration.store import DirectoryBlocks  # torch comes with it

        return DirectoryBlocks(self.result_folder(run_id), self._origin(run_id))

    def finished_blocks(self, run_id: str) -> int:
        """Number of blocks on disk."""
        return len(list((self.folder(run_id) / "blocks").glob("[0-9]*.safetensors")))

    def take(self, run_id: str, role: Role) -> Alive:
        """Claim the run for this process. Raises StoreError when another one works on it."""
        return Alive(self.folder(run_id), role)

    def is_alive(self, run_id: str) -> bool:
        """Whether a process works on the run or waits to."""
        return is_alive(self.folder(run_id))

    def cancel(self, run_id: str) -> None:
        """Ask a run to stop; it does within seconds and keeps its finished blocks. A run that is over is left as it is."""
        folder = self.folder(run_id)
        (folder / CANCEL).touch()
        worker = holder(folder)
        if worker is None and not is_alive(folder):
            (folder / CANCEL).unlink(missing_ok=True)
            if not self._states.progress(run_id).outcome:
                self.append(run_id, ev.RunCancelled(self.finished_blocks(run_id)))
        elif worker is not None and worker.role == "worker" and worker.pid != os.getpid():
            end(folder, worker)

    def may_change(self, run_id: str) -> bool:
        """Whether whoever asks may stop and resume this run: on a machine of one's own, every run."""
        return True

    def is_cancel_requested(self, run_id: str) -> bool:
        """Whether a stop was asked for since the last start."""
        return (self.root / run_id / CANCEL).exists()

    def clear_cancel(self, run_id: str) -> None:
        """Forget an old wish to stop, before starting again."""
        (self.folder(run_id) / CANCEL).unlink(missing_ok=True)

    def delete(self, run_id: str) -> None:
        """Remove a run and its blocks. Raises StoreError while a process works on it."""
        folder = self.folder(run_id)
        if is_alive(folder):
            raise StoreError(f"Run {run_id} is still running; cancel it first (`python -m salq runs cancel {run_id}`).")
        doomed = self.root / f".deleted-{run_id}-{secrets.token_hex(4)}"
        try:
            folder.rename(doomed)  # at once out of every list, even if removing the files is interrupted
            shutil.rmtree(doomed, ignore_errors=True)
        except OSError as error:
            raise StoreError(f"Run {run_id} cannot be deleted ({error.strerror or error}).") from error
        self.queue.leave(run_id)
        self._states.forget(run_id)

    def _origin(self, run_id: str) -> "Origin | None":
        """What the run's blocks come from, for their manifests; None when the request cannot be read."""
        from salq.packing.files import Origin

        try:
            request = self.request(run_id)
            inputs = read_json(self.folder(run_id) / "inputs.json")
        except FileNotFoundError:
            inputs = {}
        except (StoreError, OSError, ValueError):
            return None
        if not isinstance(request, CalibrateRequest):
            return None
        return Origin(model=request.short_model, fingerprint=inputs.get("model"), recipe=request.recipe.model_dump(mode="json", exclude_none=True))

    def _new_id(self) -> str:
        while True:
            run_id = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
            if not (self.root / run_id).exists():
                return run_id

    def list(self) -> "list[RunInfo]":  # last, because its name hides the type from annotations below it
        """All runs, newest first; a damaged run is listed as unreadable."""
        found = []
        for run_id in self.ids():
            try:
                found.append(self.get(run_id))
            except UnknownNameError:  # deleted meanwhile
                continue
        return found


def _request_in(path: Path) -> AnyRequest:
    return parse(read_json(path))
