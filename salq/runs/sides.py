"""Runs as sides of a chat: which ones can talk, and how the chat room finds their blocks. Light."""

from salq.chat.participants import Participant
from salq.core.errors import ConfigError
from salq.runs.requests import CalibrateRequest
from salq.runs.store import RunInfo, RunStore


def run_participant(store: RunStore, run_id: str) -> Participant:
    """A run's result as a side of a chat.

    Raises UnknownNameError for a run that does not exist, StoreError for one that cannot be read, ConfigError for one without a model to talk to.
    """
    request = store.request(run_id)
    if not isinstance(request, CalibrateRequest):
        raise ConfigError(f"Run {run_id} explored a model and made no quantized one; choose a run of calibrate.")
    if not store.finished_blocks(run_id):
        raise ConfigError(f"Run {run_id} has no finished block yet; wait for it, or resume it in the Calibrate tab.")
    return Participant.run(run_id, request.model, store.result_folder(run_id), request.shown_title)


def talking_runs(store: RunStore) -> list[RunInfo]:
    """Finished calibrations, newest first."""
    return [info for info in store.list() if info.status == "done" and isinstance(info.request, CalibrateRequest)]
