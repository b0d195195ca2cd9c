"""Who quantized what Explore shows: rounding to nearest, a calibration of this machine, or one that the repository keeps."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from salq.core.errors import SalqError
from salq.quant.spec import QuantSpec
from salq.runs.exploration import Cells, Exploration, Metric, explorations, first_with, kept, run_cells, tags
from salq.runs.requests import CalibrateRequest
from salq.runs.store import RunInfo, RunStore

ROUNDING, NOTHING, KEPT = "rounding", "none", "kept:"
"""Values of the pickers: rounding to nearest at the sidebar's grid; nothing to compare with; a kept calibration, followed by its name."""


@dataclass(frozen=True)
class Measured:
    """One grid of numbers and where it comes from. `name`: who quantized, for people; `shown`: the grid's tag."""

    cells: Cells
    linears: Sequence[str]
    name: str
    shown: str
    origin: Exploration | None = None
    info: RunInfo | None = None


def subjects(store: RunStore, model: str) -> list[tuple[str, str]]:
    """(label, value) of everything that can be looked at: rounding, finished calibrations of this machine newest first, kept ones."""
    own = [info for info in store.list() if info.status == "done" and isinstance(info.request, CalibrateRequest) and info.request.model == model]
    found = [(f"{info.title}, {datetime.fromtimestamp(info.created):%Y-%m-%d %H:%M}", info.id) for info in own]
    return [("rounding to nearest", ROUNDING), *found] + [(f"{name}, kept in the repository", KEPT + name) for name in kept_names(model)]


def kept_names(model: str) -> list[str]:
    """Calibrations that the kept exploration of a model measured."""
    try:
        found = kept(model)
    except SalqError:
        return []
    return [] if found is None else list(found.runs)


def run_of(store: RunStore, model: str, subject: str) -> RunInfo | None:
    """The finished calibration of this model that a value stands for; None for any other value and for one that was deleted."""
    if not isinstance(subject, str) or subject in {ROUNDING, NOTHING} or subject.startswith(KEPT):
        return None
    try:
        info = store.get(subject)
    except SalqError:
        return None
    request = info.request
    return info if info.status == "done" and isinstance(request, CalibrateRequest) and request.model == model else None


def name_of(store: RunStore, model: str, subject: str, tag: str) -> str:
    """What quantized, for people."""
    if subject.startswith(KEPT):
        return f"{subject.removeprefix(KEPT)} (kept)"
    info = run_of(store, model, subject)
    return f"rounding to nearest, {tag}" if info is None else info.title


def spec_of_subject(store: RunStore, model: str, subject: str, spec: QuantSpec) -> QuantSpec:
    """The grid of a calibration; `spec` for rounding."""
    info = run_of(store, model, subject)
    if info is not None and isinstance(info.request, CalibrateRequest):
        return info.request.spec
    if subject.startswith(KEPT):
        found = kept(model)
        cells = None if found is None else found.runs.get(subject.removeprefix(KEPT))
        return spec if cells is None else QuantSpec.model_validate(cells.spec)
    return spec


def measured(store: RunStore, model: str, subject: str, metric: Metric, tag: str) -> Measured | None:
    """The numbers of one subject, or of the nearest width when rounding at `tag` was not measured; None when nothing is known."""
    known = explorations(store, model)
    if metric != "saliency" and subject != ROUNDING:
        return _of_calibration(store, model, known, subject, metric)
    found, shown = first_with(known, metric, tag), tag
    if found is None:
        shown = next((other for other in tags(known) if first_with(known, metric, other)), "")
        found = first_with(known, metric, shown) if shown else None
    cells = None if found is None else found.cells(metric, shown)
    if found is None or cells is None:
        return None
    return Measured(cells, found.linears, f"rounding to nearest, {shown}", shown, found)


def _of_calibration(store: RunStore, model: str, known: Sequence[Exploration], subject: str, metric: Metric) -> Measured | None:
    name = subject.removeprefix(KEPT)
    found = first_with(known, metric, name)
    info = run_of(store, model, subject)
    title = name_of(store, model, subject, "")
    if found is not None and (cells := found.cells(metric, name)) is not None:
        return Measured(cells, found.linears, title, QuantSpec.model_validate(found.runs[name].spec).tag, found, info)
    if info is None or metric != "weight_error" or not any(info.progress.weight_errors.values()):
        return None
    linears = list(next(iter(info.progress.weight_errors.values())))
    assert isinstance(info.request, CalibrateRequest)  # run_of gives no other
    return Measured(run_cells(info, linears), linears, title, info.request.tag, None, info)
