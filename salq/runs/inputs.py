"""The texts and the model that a run was started with, by their hashes: a resumed run goes on with the same ones or says that it cannot.

`auto` means another text when the hub answers again; a file may be edited; a model may come from another source. inputs.json in the
run's folder keeps what the first start used.
"""

from collections.abc import Collection
from dataclasses import dataclass

from salq.core.errors import StoreError
from salq.core.files import read_json, write_json
from salq.data.sources import load_text
from salq.data.text import Role, Text
from salq.models.llama import Llama
from salq.runs.requests import CalibrateRequest
from salq.runs.store import RunStore

FILE = "inputs.json"


@dataclass(frozen=True)
class Inputs:
    """The texts of a run; a recipe without data has no calibration text."""

    calibration: Text | None
    evaluation: Text


def gather(store: RunStore, run_id: str, request: CalibrateRequest, model: Llama) -> Inputs:
    """Load the texts of a run. Raises TextError, and StoreError when blocks were finished with another text or model."""
    known = _known(store, run_id)
    evaluation = _load(request.evaluation.text, "evaluation", model, known, [request.text])
    calibration = _load(request.text, "calibration", model, known) if request.recipe.reads_text else None
    used = {"model": model.source.fingerprint, "evaluation": evaluation.sha256, "calibration": None if calibration is None else calibration.sha256}
    for name, digest in used.items():
        # The evaluation text does not decide the codes: it may change between starts.
        if name != "evaluation" and known.get(name) not in {None, digest}:
            what = "model" if name == "model" else "calibration text"
            raise StoreError(f"The {what} of run {run_id} is not the one that its finished blocks were made with; start a new run (runs rerun).")
    names = {"calibration_name": "" if calibration is None else calibration.name, "evaluation_name": evaluation.name}
    write_json(store.folder(run_id) / FILE, {**used, **names})
    return Inputs(calibration, evaluation)


def _known(store: RunStore, run_id: str) -> dict[str, str | None]:
    """What the blocks on disk were made with; nothing is known, and nothing binds, without blocks."""
    if not store.finished_blocks(run_id):
        return {}
    try:
        found = read_json(store.folder(run_id) / FILE)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _load(source: str, role: Role, model: Llama, known: dict[str, str | None], calibrated_on: Collection[str] | None = None) -> Text:
    """The text of that role; `auto` is again what it was at the first start."""
    before = known.get(f"{role}_name") or ""
    if source == "auto" and before:
        source = "wikitext2" if before.startswith("wikitext2") else "bundled"
    return load_text(source, role, model, calibrated_on=calibrated_on)
