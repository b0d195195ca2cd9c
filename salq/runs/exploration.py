"""What is known about a model before calibration: saliency and quantization error of every matrix, each with where it comes from.

For Explore and Learn. Read from finished explore runs and from results kept in the repository (`kept`); plain numbers, no torch.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from salq.core import settings
from salq.core.errors import StoreError
from salq.core.files import read_json
from salq.quant.spec import QuantSpec
from salq.runs.requests import ExploreRequest
from salq.runs.store import RunInfo, RunStore

Cells = list[list[float | None]]
"""[n_blocks][n_linears]; None where there is no finite value."""

Metric = Literal["weight_error", "output_error", "weighted_error", "saliency"]
FORMAT = 1
DEPTH_SAMPLES = 4
"""Samples that the errors through depth are measured on: two passes for every grid."""


@dataclass(frozen=True)
class SaliencyGrid:
    """Mean saliency per weight of every matrix, nats^2 per weight^2, and the sampling behind it. `key` names the full map on this machine."""

    cells: Cells
    text: str
    n_samples: int
    seq_len: int
    seed: int
    key: str = ""


@dataclass(frozen=True)
class ErrorCells:
    """Errors of every matrix under one spec, rounded to nearest or calibrated, as in `evaluation.errors.ErrorGrid`.

    `output_error` is None when no text was used, `weighted_error` (nats per sample) when there was no saliency.
    """

    spec: dict[str, Any]
    weight_error: Cells
    output_error: Cells | None
    weighted_error: Cells | None = None


@dataclass(frozen=True)
class DepthCells:
    """Relative error of the hidden state after every block, as in `evaluation.depth.Depth`: input full-precision, input quantized."""

    alone: list[float | None]
    together: list[float | None]


@dataclass(frozen=True)
class Exploration:
    """One finished exploration of a model. `origin`: the run's id, or "kept" for results kept in the repository."""

    model: str
    linears: list[str]
    errors: dict[str, ErrorCells]
    saliency: SaliencyGrid | None
    text: str
    n_samples: int
    seq_len: int
    reference: str = ""
    """"reference reconstructed from a 4-bit file" and the like when the weights are not the published ones, else empty."""
    origin: str = "kept"
    command: str = ""
    depth: dict[str, DepthCells] = field(default_factory=dict)
    """By tag, or by run as in `runs`."""
    runs: dict[str, ErrorCells] = field(default_factory=dict)
    """Calibrations that were measured too: by id of this machine's run, or by name (`apiq w3g64`) for results kept in the repository."""
    format: int = field(default=FORMAT)

    def to_json(self) -> dict[str, Any]:
        """JSON object of `assets/results/<model>/explore.json`; `from_json` is its inverse."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Exploration":
        """Raises StoreError for anything that `to_json` does not write."""
        try:
            if value["format"] != FORMAT:
                raise ValueError(f"format {value['format']}")
            saliency = None if value["saliency"] is None else SaliencyGrid(**value["saliency"])
            parts = {
                "errors": {tag: ErrorCells(**cells) for tag, cells in value["errors"].items()},
                "runs": {name: ErrorCells(**cells) for name, cells in value.get("runs", {}).items()},
                "depth": {name: DepthCells(**cells) for name, cells in value.get("depth", {}).items()},
            }
            found = cls(**{**value, "saliency": saliency, **parts})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise StoreError(f"The kept exploration cannot be read ({error}); `make assets` writes it anew.") from error
        _check_cells(found)
        return found

    @property
    def n_blocks(self) -> int:
        """Number of blocks that the grids cover."""
        tables = [cells.weight_error for cells in self.errors.values()]
        if self.saliency is not None:
            tables.append(self.saliency.cells)
        return max((len(table) for table in tables), default=0)

    def cells(self, metric: Metric, tag: str) -> Cells | None:
        """The grid of a metric; `tag`: such as `w3g64`, or a name of `runs`; it does not matter for saliency. None when this lacks it."""
        if metric == "saliency":
            return None if self.saliency is None else self.saliency.cells
        errors = self.errors.get(tag) or self.runs.get(tag)
        return (
            None if errors is None else {"weight_error": errors.weight_error, "output_error": errors.output_error}.get(metric, errors.weighted_error)
        )


def kept(model: str) -> Exploration | None:
    """The exploration kept in the repository for a catalogue model; None when there is none. Raises StoreError when it is damaged."""
    path = kept_folder(model) / "explore.json"
    try:
        return Exploration.from_json(read_json(path))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read ({error}); `make assets` writes it anew.") from error


def kept_folder(model: str) -> Path:
    """Where results of a catalogue model are kept; a hub id or a folder has none (its path is never built from a visitor's text)."""
    from salq.models.catalogue import CATALOGUE

    return settings.ASSETS / "results" / (model if model in CATALOGUE else "none")


def of_run(info: RunInfo) -> Exploration | None:
    """The exploration that a finished run made; None for any other run."""
    request = info.request
    if info.status != "done" or not isinstance(request, ExploreRequest):
        return None
    results = {**info.progress.metrics, **info.metrics}
    grids = [grid for grid in results.get("errors") or [] if grid.get("made_by", "rtn") == "rtn"]
    calibrated = [grid for grid in results.get("errors") or [] if grid.get("made_by") == "calibrated"]
    saliency = _saliency_of(results.get("saliency"))
    linears = grids[0]["linears"] if grids else _linears(results.get("saliency"))
    errors = {grid["tag"]: _cells_of(grid) for grid in grids}
    depth = {one["name"]: DepthCells(one["alone"], one["together"]) for one in results.get("depth") or []}
    if not errors and saliency is None:
        return None
    reference = str(results.get("reference", ""))
    return Exploration(
        model=request.model, linears=list(linears), errors=errors, saliency=saliency, text=str(results.get("text") or request.text),
        n_samples=request.n_samples, seq_len=request.seq_len, reference="" if reference == "full precision" else reference, origin=info.id,
        depth=depth, runs={str(request.run): _cells_of(calibrated[0])} if calibrated else {},
    )  # fmt: skip


def _cells_of(grid: dict[str, Any]) -> ErrorCells:
    return ErrorCells(grid["spec"], grid["weight_error"], grid["output_error"], grid.get("weighted_error"))


def run_cells(info: RunInfo, linears: Sequence[str]) -> Cells:
    """Relative weight errors of a calibration, from its own events: [n_blocks][n_linears], None for a block that is not finished."""
    found = info.progress.weight_errors
    return [[found.get(block, {}).get(name) for name in linears] for block in range(max(found, default=-1) + 1)]


def explorations(store: RunStore, model: str) -> list[Exploration]:
    """Everything that is known about `model`: this machine's runs, newest first, then what the repository keeps."""
    made = [of_run(info) for info in store.list() if info.kind == "explore" and info.request is not None and info.request.model == model]
    found = [one for one in made if one is not None]
    from_repository = kept(model)
    return found if from_repository is None else [*found, from_repository]


def first_with(known: Sequence[Exploration], metric: Metric, tag: str) -> Exploration | None:
    """The newest exploration that has this grid."""
    return next((one for one in known if one.cells(metric, tag) is not None), None)


def tags(known: Sequence[Exploration]) -> list[str]:
    """All specs that errors are known for, by bits, then as found."""
    found = dict.fromkeys(tag for one in known for tag in one.errors)
    return sorted(found, key=lambda tag: int(tag[1:].split("g")[0].split("r")[0]))


def saliency_key_of(known: Sequence[Exploration]) -> str:
    """Key of the newest full saliency map of this machine; "" when there is none."""
    return next((one.saliency.key for one in known if one.saliency is not None and _has_map(one.saliency.key)), "")


def spec_of(one: Exploration, tag: str) -> QuantSpec:
    """The spec that a tag of this exploration stands for."""
    return QuantSpec.model_validate(one.errors[tag].spec)


def _has_map(key: str) -> bool:
    return bool(key) and (settings.saliency_dir() / key / "meta.json").is_file()


def _meta(summary: Any) -> dict[str, Any]:
    """meta.json of the map that a run's saliency summary names; {} when the map is gone."""
    key = summary.get("key", "") if isinstance(summary, dict) else ""
    try:
        found = read_json(settings.saliency_dir() / Path(key).name / "meta.json") if key else {}
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _linears(summary: Any) -> list[str]:
    return list(_meta(summary).get("linears", []))


def _saliency_of(summary: Any) -> SaliencyGrid | None:
    meta = _meta(summary)
    if "mean" not in meta:
        return None
    return SaliencyGrid(meta["mean"], meta["text"], meta["n_samples"], meta["seq_len"], meta["seed"], key=str(summary["key"]))


def _check_cells(one: Exploration) -> None:
    tables = [("saliency", one.cells("saliency", ""))]
    for tag in (*one.errors, *one.runs):
        tables += [(f"{metric.replace('_', ' ')} {tag}", one.cells(metric, tag)) for metric in ("weight_error", "output_error", "weighted_error")]
    for name, table in tables:
        if table is not None and (len(table) != one.n_blocks or any(len(row) != len(one.linears) for row in table)):
            raise StoreError(f"The kept exploration of {one.model} has a {name} grid of the wrong shape; `make assets` writes it anew.")
