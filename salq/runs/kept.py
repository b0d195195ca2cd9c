"""Results of real runs that the repository keeps under assets/results/<model>/, so that the page says something before anybody computes.

    explore.json  an `Exploration`            maps.npz  pooled maps of one matrix (`MatrixMaps`)
    group.json    one group of real weights   runs.json finished calibrations (`KeptRun`)
`benchmarks/make_assets.py` writes them with the functions below; the page reads them. Everything tolerates absence: the readers return
None or an empty list. Light: no torch.
"""

import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from salq.core.errors import StoreError
from salq.core.files import atomic_path, read_json, write_json
from salq.runs.exploration import Exploration, kept_folder

if TYPE_CHECKING:
    from salq.evaluation.matrix_view import MatrixView

GROUP_KEYS = {"block", "matrix", "row", "start", "weights", "grids"}
DAMAGED = (OSError, ValueError, KeyError, TypeError, EOFError, ArithmeticError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error)
"""What numpy and the zip reader below it raise on bytes that were cut or altered."""


MAPS_IN_MEMORY = 128
"""At most half a megabyte each."""


@dataclass(frozen=True, eq=False)  # told apart by identity, which is what a cache of pictures needs
class MatrixMaps:
    """Pooled maps of one matrix as plain arrays, float32 [rows, cols]; names, units and meaning as in `evaluation.matrix_view`.

    facts[name]: mean, maximum, total, top_share, n_nonfinite of the whole matrix before pooling.
    """

    block: int
    matrix: str
    tag: str
    how: str
    shape: tuple[int, int]
    group_size: int | None
    row_edges: tuple[int, ...]
    col_edges: tuple[int, ...]
    relative_error: float
    maps: Mapping[str, np.ndarray]
    facts: Mapping[str, Mapping[str, float]]
    histogram: Mapping[str, Sequence[float]] | None = None
    """{"edges", "counts"} of the weights, as in `evaluation.matrix_view`."""
    residual: Mapping[str, Any] | None = None
    """What the codes take away and a low rank could give back: the fields of `evaluation.matrix_view.Residual`."""

    @classmethod
    def of(cls, view: "MatrixView", block: int, matrix: str) -> "MatrixMaps":
        """From a view in tensors."""
        first = next(iter(view.maps.values()))
        return cls(
            block=block, matrix=matrix, tag=view.spec.tag, how=first.how, shape=view.shape, group_size=view.spec.group_size,
            row_edges=first.row_edges, col_edges=first.col_edges, relative_error=view.relative_error,
            maps={name: pooled.values.numpy() for name, pooled in view.maps.items()},
            facts={name: asdict(facts) for name, facts in view.facts.items()}, histogram=asdict(view.histogram),
            residual=None if view.residual is None else asdict(view.residual),
        )  # fmt: skip


@dataclass(frozen=True)
class WeightGroup:
    """One group of consecutive weights of a real matrix, and its grid at several bit-widths: {"3": {"scale": ..., "zero_point": ...}}."""

    block: int
    matrix: str
    row: int
    start: int
    weights: list[float]
    grids: dict[str, dict[str, float]]
    learned: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By calibration (`apiq w3g64`): fields of `evaluation.group_view.GroupGrid`, the grid that it chose for this group."""
    tile: dict[str, Any] = field(default_factory=dict)
    """Weights around the group: {"row": first row, "column": first input, "weights": rows of numbers}."""

    def levels(self, bits: int) -> list[float]:
        """The values that a weight of this group can take at `bits`, in ascending order."""
        grid = self.grids[str(bits)]
        return [(code - grid["zero_point"]) * grid["scale"] for code in range(2**bits)]


@dataclass(frozen=True)
class KeptRun:
    """One finished calibration: its metrics.json, its title, and the command that made it."""

    title: str
    command: str
    metrics: dict[str, Any] = field(default_factory=dict)


def kept_maps(model: str) -> MatrixMaps | None:
    """The maps kept for a catalogue model; None when there are none or they do not read."""
    return read_maps(kept_folder(model) / "maps.npz")


def read_maps(path: Path) -> MatrixMaps | None:
    """The maps in a file of `write_maps`; None when there is none or it does not read. What many visitors look at is read once."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return _read_maps(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(MAPS_IN_MEMORY)
def _read_maps(path: Path, _changed: int, _size: int) -> MatrixMaps | None:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:  # numpy leaves a damaged file open
            about = json.loads(str(arrays["about"]))
            maps = {name: 10.0 ** arrays[name].astype(np.float32) for name in about.pop("names")}
            edges = {key: tuple(int(edge) for edge in arrays[key]) for key in ("row_edges", "col_edges")}
        return MatrixMaps(**{**about, "shape": tuple(about["shape"])}, **edges, maps=maps)  # type: ignore[arg-type]
    except DAMAGED:
        return None


def keep_maps(model: str, maps: MatrixMaps) -> None:
    """Write the maps for the repository."""
    write_maps(kept_folder(model) / "maps.npz", maps)


def write_maps(path: Path, maps: MatrixMaps) -> None:
    """Write the maps: log10 of the values as float16 (within 1 % at the magnitudes that occur; zero becomes the smallest float32)."""
    about = {key: value for key, value in asdict(maps).items() if key not in {"maps", "row_edges", "col_edges"}}
    logs = {name: np.log10(np.maximum(values, np.float32(1e-38))).astype(np.float16) for name, values in maps.maps.items()}
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            about=np.array(json.dumps({**about, "names": list(logs)})),
            row_edges=np.array(maps.row_edges),
            col_edges=np.array(maps.col_edges),
            **logs,
        )


def kept_group(model: str) -> WeightGroup | None:
    """The group of weights kept for a catalogue model; None when there is none or it does not read."""
    try:
        value = read_json(kept_folder(model) / "group.json")
        return WeightGroup(**value) if isinstance(value, dict) and GROUP_KEYS <= set(value) <= GROUP_KEYS | {"learned", "tile"} else None
    except (OSError, ValueError):
        return None


def keep_group(model: str, group: WeightGroup) -> None:
    """Write the group."""
    write_json(kept_folder(model) / "group.json", asdict(group))


def kept_runs(model: str) -> list[KeptRun]:
    """The calibrations kept for a catalogue model. Raises StoreError for a file that is not what `keep_runs` writes."""
    path = kept_folder(model) / "runs.json"
    try:
        return [KeptRun(**one) for one in read_json(path)]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError) as error:
        raise StoreError(f"{path} cannot be read ({error}); `make assets` writes it anew.") from error


def keep_runs(model: str, runs: Sequence[KeptRun]) -> None:
    """Write the calibrations."""
    write_json(kept_folder(model) / "runs.json", [asdict(run) for run in runs])


def keep_exploration(model: str, found: Exploration) -> None:
    """Write the exploration, as results of the repository rather than of a run."""
    value = json.dumps({**short(found.to_json()), "origin": "kept", "model": model}, allow_nan=False)
    lines = value.replace(', "errors": {', ',\n"errors": {').replace('"weight_error"', '\n "weight_error"').replace('"depth"', '\n"depth"')
    with atomic_path(kept_folder(model) / "explore.json") as temporary:
        temporary.write_text(f"{lines}\n", encoding="utf-8")


def authors_name(recipe: str) -> str:
    """A recipe's name as its authors write it."""
    return {"rtn": "RTN", "gptq": "GPTQ", "apiq": "ApiQ", "sapr": "SAPR"}.get(recipe, recipe)


def short(value: Any) -> Any:
    """JSON values with five significant digits: what is kept of a measurement."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {name: short(one) for name, one in value.items()}
    return [short(one) for one in value] if isinstance(value, list) else value
