"""What Explore does, without gradio: from the visitor's choices to figures, sentences and tables."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from salq.core.errors import ConfigError, SalqError
from salq.core.files import path_of
from salq.core.settings import is_public_host
from salq.figures import MapPanel, matrix_maps, payload
from salq.figures.style import ERROR_SCALE, PRODUCT_SCALE, SALIENCY_SCALE
from salq.models.catalogue import CATALOGUE, parameters_of
from salq.models.folder import read_folder_config
from salq.models.hub import downloaded
from salq.models.shapes import linear_shapes
from salq.models.source import HUB_ID, is_local, resolve
from salq.quant.size import SizeReport, size_report
from salq.quant.spec import QuantSpec, check_group_size
from salq.runs.exploration import explorations, saliency_key_of
from salq.runs.kept import MatrixMaps, kept_maps
from salq.runs.limits import Limits
from salq.runs.reduced import find_view
from salq.runs.reducer import Wanted
from salq.runs.requests import ExploreRequest
from salq.runs.store import RunStore
from salq.ui import words
from salq.ui.context import Choices
from salq.ui.explore_charts import NO_CHART, Chart, spectrum_picture
from salq.ui.explore_subject import ROUNDING, name_of, run_of

REFERENCE_BITS = (8, 4, 3, 2)
"""Every exploration measures these widths too: they are the bands that tell whether an error is usual for this model."""

MAX_BLOCKS = 1000
POOLINGS = ("max", "mean", "p99")
LINEARS = (
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
)  # fmt: skip


@dataclass(frozen=True)
class MatrixPicture:
    """One matrix as drawn."""

    figure: str | None
    facts: list[tuple[str, str, str]]
    reading: str
    problem: str
    table: list[list[Any]]
    spectrum: Chart


PICTURES_IN_MEMORY = 128
"""Less than half a megabyte each."""
TABLE_HEADER = ["map", "mean", "largest", "top 1 % hold", "not finite"]


def matrix_picture(store: RunStore, choices: Choices, block: int, matrix: str, how: str, made_by: str = ROUNDING) -> MatrixPicture:
    """The maps of one matrix and the singular values of its error, as they were reduced before.

    Raises NotReducedError when they were not, ConfigError for a block, matrix or pooling that does not exist, ShapeError for a misfit.
    """
    maps, key = load_maps(store, choices, block, matrix, how, made_by)
    missing = "" if "saliency" in maps.maps else (MAP_MISFIT if key else MAP_MISSING)
    return _picture(maps, missing, name_of(store, choices.model, made_by, maps.tag))


@lru_cache(PICTURES_IN_MEMORY)
def _picture(maps: MatrixMaps, problem: str, maker: str) -> MatrixPicture:
    """Drawn once for all who look at it: a class looks at the same matrices, and plotly takes most of the time of an answer."""
    panels = [MapPanel(title, maps.maps[name], colours, unit) for name, (title, colours, unit) in PANELS.items() if name in maps.maps]
    figure = matrix_maps(panels, maps.row_edges, maps.col_edges, how=maps.how, group_size=maps.group_size)
    return MatrixPicture(
        figure=payload(figure, f"salq-block{maps.block}-{maps.matrix}-{maps.tag}-{maps.how}"),
        facts=_matrix_facts(maps, maker),
        reading=_matrix_reading(maps),
        problem=f"{problem} {_not_finite(maps)}".strip(),
        table=[_table_row(name, maps) for name in PANELS if name in maps.maps],
        spectrum=spectrum_picture(maps, maker),
    )


def _not_finite(maps: MatrixMaps) -> str:
    count = int(maps.facts["error"]["n_nonfinite"])
    told = (
        "This model file is damaged: {} weights of this matrix are NaN or infinite and have no code; they are left out (grey where nothing is left)."
    )
    return told.format(f"{count:,}") if count else ""


MAP_MISSING = "The saliency map of this model is not on this machine yet, so the map shows the error alone; Compute adds saliency and their product."
MAP_MISFIT = "The saliency map on this machine belongs to other weights of this name; Compute makes it anew."


def kept_picture(choices: Choices, block: int, matrix: str) -> MatrixPicture:
    """The view of the first paint: from the repository when it keeps this one, else empty."""
    kept = kept_maps(choices.model)
    if kept is None or (kept.block, kept.matrix, kept.tag) != (block, matrix, choices.spec.tag):
        return MatrixPicture(None, [], "", "", [], NO_CHART)
    return _picture(kept, "", f"rounding to nearest, {kept.tag}")


PANELS = {
    "saliency": ("Saliency", SALIENCY_SCALE, "F, nats² per weight²"),
    "error": ("Rounding error", ERROR_SCALE, "|w − ŵ|, weight units"),
    "product": ("Saliency × error²", PRODUCT_SCALE, "½ F (w − ŵ)², nats"),
}


def size_facts(choices: Choices) -> list[tuple[str, str, str]]:
    """Bits per weight and megabytes, twice: quantized matrices, whole model; empty for a model that is not here and not in the catalogue.

    Raises ShapeError for a group size that does not fit.
    """
    config = known_config(choices.model)
    if config is None:
        return []
    shapes, parameters = linear_shapes(config), parameters_of(config)
    check_group_size(choices.spec, shapes)
    size = size_report(choices.spec, shapes, parameters)
    sixteen = 2 * parameters / 1e6
    return [
        ("Quantized matrices", f"{size.bits_per_weight:.2f} bits per weight", f"{size.size_mb:,.1f} MB: {_parts(size)}"),
        ("Whole model", f"{size.model_bits_per_weight:.2f} bits per weight", f"{size.model_size_mb:,.1f} MB, of {sixteen:,.0f} MB in 16 bits"),
    ]


def known_config(model: str) -> dict[str, Any] | None:
    """Config of a model without fetching anything: the catalogue's own, else from its folder; None when it is not here.

    Raises ModelError for a folder that is not a LLaMA.
    """
    entry = CATALOGUE.get(model)
    if entry is not None:
        return dict(entry.config)
    folder = _folder_of(model)
    return None if folder is None else read_folder_config(folder)


def config_or_none(model: str) -> dict[str, Any] | None:
    """`known_config`, with None also for a folder that is not a LLaMA."""
    try:
        return known_config(model)
    except SalqError:
        return None


def is_here(model: str) -> bool:
    """Whether a model's files are on this machine, so that opening a matrix needs no download."""
    return is_local(model) if model in CATALOGUE else _folder_of(model) is not None


def _folder_of(model: str) -> Path | None:
    """The folder of a model that is not in the catalogue, when it is on this machine; never looked for on a public host."""
    if is_public_host():
        return None
    folder = path_of(model)
    if folder.is_dir():
        return folder
    return downloaded(model) if HUB_ID.fullmatch(model) else None


def explore_request(choices: Choices, limits: Limits, run: str | None = None) -> ExploreRequest:
    """What Compute asks for: saliency, and errors at the chosen grid and at the reference widths; of a calibration, too, when `run` names one.

    Raises the errors of `Limits.check`.
    """
    limits.check_model(choices.model)
    config = known_config(choices.model)
    if config is not None:
        check_group_size(choices.spec, linear_shapes(config))
    widths = dict.fromkeys((choices.bits, *REFERENCE_BITS))
    specs = tuple(QuantSpec(bits=bits, group_size=choices.group_size, symmetric=choices.symmetric) for bits in widths)  # type: ignore[arg-type]
    request = ExploreRequest(model=choices.model, specs=specs, text=choices.text, device=choices.device, n_samples=16, seq_len=256, run=run)
    limits.check(request)
    return request


def selection_of(block: Any, matrix: Any, n_blocks: int) -> dict[str, Any] | None:
    """A selection from a click or a link, where both values may be anything; None for one that does not exist.

    n_blocks 0: not known yet, the block is checked when it is opened.
    """
    try:
        number = int(block)
    except (TypeError, ValueError, OverflowError):
        return None
    names = {name: name for name in LINEARS} | {name.rsplit(".", 1)[-1]: name for name in LINEARS}
    chosen = names.get(matrix) if isinstance(matrix, str) else None
    return {"block": number, "matrix": chosen} if chosen and 0 <= number < (n_blocks or MAX_BLOCKS) else None


def n_blocks_of(model: str) -> int:
    """Number of blocks of a model, 0 when that is not known without a download."""
    try:
        config = known_config(model)
        return 0 if config is None else int(config["num_hidden_layers"])
    except (SalqError, KeyError, TypeError, ValueError):
        return 0


class NotReducedError(SalqError):
    """The maps of a matrix are not on disk yet; `wanted` is what a `Reducer` makes them from."""

    def __init__(self, wanted: Wanted) -> None:
        """Nobody reads its sentence unless nobody reduces."""
        super().__init__(words.BEING_REDUCED)
        self.wanted = wanted


def load_maps(store: RunStore, choices: Choices, block: int, matrix: str, how: str, made_by: str = ROUNDING) -> tuple[MatrixMaps, str]:
    """(maps, key of the saliency map): reduced before, or kept in the repository; nothing is computed, and no model is read or fetched.

    Raises NotReducedError when they have to be made first, ConfigError for what does not exist, and ModelError for a damaged model.
    """
    key = saliency_key_of(explorations(store, choices.model))
    if not key and made_by == ROUNDING:
        kept = kept_maps(choices.model)
        if kept is not None and (kept.block, kept.matrix, kept.tag, kept.how) == (block, matrix, choices.spec.tag, how):
            return kept, ""
    wanted = _wanted(store, choices, block, matrix, how, key, made_by)
    found = find_view(wanted.view(resolve(choices.model).fingerprint)) if is_here(choices.model) else None
    if found is None:
        raise NotReducedError(wanted)
    return found, key


def _wanted(store: RunStore, choices: Choices, block: int, matrix: str, how: str, key: str, made_by: str) -> Wanted:
    config = known_config(choices.model)
    count = MAX_BLOCKS if config is None else int(config["num_hidden_layers"])
    if how not in POOLINGS or matrix not in LINEARS or not 0 <= block < count:
        raise ConfigError(f"There is no view of block {block}, {matrix}, pooled by {how}; blocks are 0 to {count - 1}, pooling is max, mean or p99.")
    info = run_of(store, choices.model, made_by)
    if info is None and config is not None:
        check_group_size(choices.spec, {f"{block}.{matrix}": linear_shapes(config, n_blocks=1)[f"0.{matrix}"]})
    return Wanted(
        root=str(store.root), model=choices.model, spec=choices.spec, how=how, block=block, matrix=matrix, key=key,
        run=None if info is None else info.id,
    )  # fmt: skip


def _matrix_facts(maps: MatrixMaps, maker: str) -> list[tuple[str, str, str]]:
    rows, columns = maps.shape
    group = "one group per row" if maps.group_size is None else f"{columns // maps.group_size} groups per row"
    found = [
        ("Matrix", f"{rows:,} × {columns:,}", f"outputs × inputs, {group}"),
        ("Relative weight error", f"{maps.relative_error:.1%}", maker),
    ]
    if "product" in maps.facts:
        found.append(("Predicted rise of the loss", f"{maps.facts['product']['total']:.2g} nats", "per sample, if only this matrix were quantized"))
    return found


def _matrix_reading(maps: MatrixMaps) -> str:
    error = maps.facts["error"]
    start = f"Quantization moves a weight by {error['mean']:.2g} on average and {error['maximum']:.2g} at most"
    if "product" not in maps.facts:
        return f"{start}; the top 1 % of weights take {error['top_share']:.0%} of all movement."
    saliency, product = maps.facts["saliency"], maps.facts["product"]
    return (
        f"{start}; the top 1 % of weights hold {saliency['top_share']:.0%} of the saliency and {product['top_share']:.0%} of the predicted damage, "
        f"but only {error['top_share']:.0%} of the movement: it matters which weights move."
    )


def _table_row(name: str, maps: MatrixMaps) -> list[Any]:
    one = maps.facts[name]
    return [PANELS[name][0], f"{one['mean']:.3g}", f"{one['maximum']:.3g}", f"{one['top_share']:.1%}", int(one["n_nonfinite"])]


def _parts(size: SizeReport) -> str:
    parts = {"codes": size.codes_mb, "scales": size.scales_mb, "zero points": size.zero_points_mb, "adapters": size.adapters_mb}
    return ", ".join(f"{name} {mb:,.1f}" for name, mb in parts.items() if mb)
