"""What Explore does, without gradio: from the visitor's choices to figures, sentences and tables."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from salq.core.errors import ConfigError, SalqError
from salq.core.files import path_of
from salq.core.settings import is_public_host
from salq.figures import METRICS, MapPanel, grid_heatmap, matrix_maps, payload
from salq.figures.style import ERROR_SCALE, PRODUCT_SCALE, SALIENCY_SCALE
from salq.models.catalogue import CATALOGUE, parameters_of
from salq.models.folder import read_folder_config
from salq.models.hub import downloaded
from salq.models.shapes import linear_shapes
from salq.models.source import HUB_ID, is_local, resolve
from salq.quant.size import SizeReport, size_report
from salq.quant.spec import QuantSpec, check_group_size
from salq.runs.exploration import Cells, Exploration, Metric, explorations, first_with, saliency_key_of, tags
from salq.runs.kept import MatrixMaps, kept_maps
from salq.runs.limits import Limits
from salq.runs.requests import ExploreRequest
from salq.runs.store import RunStore
from salq.ui.context import Choices

REFERENCE_BITS = (8, 4, 3, 2)
"""Every exploration measures these widths too: they are the bands that tell whether an error is usual for this model."""

MAX_BLOCKS = 1000
POOLINGS = ("max", "mean", "p99")
LINEARS = (
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
)  # fmt: skip


@dataclass(frozen=True)
class GridView:
    """The overview as drawn. `figure` is None when nothing is known; `problem` says what is missing for the choices at hand."""

    figure: str | None
    reading: str
    source: str
    problem: str
    table: list[list[Any]]
    header: list[str]


@dataclass(frozen=True)
class MatrixPicture:
    """One matrix as drawn."""

    figure: str | None
    facts: list[tuple[str, str, str]]
    reading: str
    problem: str
    table: list[list[Any]]


TABLE_HEADER = ["map", "mean", "largest", "top 1 % hold", "not finite"]


def grid_view(store: RunStore, choices: Choices, metric_key: str) -> GridView:
    """The block x matrix grid of a metric for the chosen model and spec, or the nearest thing that is known. Raises ConfigError."""
    if metric_key not in METRICS:
        raise ConfigError(f"Metric {metric_key!r} is not known; use one of {', '.join(METRICS)}.")
    metric: Metric = metric_key  # type: ignore[assignment]
    known = explorations(store, choices.model)
    tag = choices.spec.tag
    found, shown = first_with(known, metric, tag), tag
    if found is None:
        shown = next((other for other in tags(known) if first_with(known, metric, other)), "")
        found = first_with(known, metric, shown) if shown else None
    if found is None:
        return GridView(None, "", "", _nothing_yet(metric, choices), [], [])
    problem = "" if shown == tag else f"{METRICS[metric].title} at {tag} is not computed yet; shown is {shown}. Compute adds {tag}."
    cells = found.cells(metric, shown)
    assert cells is not None  # first_with found it
    figure = grid_heatmap(_numbers(cells), found.linears, METRICS[metric])
    return GridView(
        figure=payload(figure, f"salq-{metric}-{shown}"),
        reading=_grid_reading(metric, shown, cells, found.linears),
        source=_grid_source(found, metric, shown),
        problem=problem,
        table=[[block, *(None if value is None else float(f"{value:.4g}") for value in row)] for block, row in enumerate(cells)],
        header=["block", *found.linears],
    )


def matrix_picture(store: RunStore, choices: Choices, block: int, matrix: str, how: str) -> MatrixPicture:
    """The maps of one matrix, read from disk without loading the model; fetches the model first when it is not here.

    Raises ConfigError for a block, matrix or pooling that does not exist, and the errors of `resolve` and `check_group_size`.
    """
    maps, key = _kept_or_live(store, choices, block, matrix, how)
    missing = "" if "saliency" in maps.maps else (MAP_MISFIT if key else MAP_MISSING)
    return _picture(maps, missing)


def _picture(maps: MatrixMaps, problem: str) -> MatrixPicture:
    panels = [MapPanel(title, maps.maps[name], colours, unit) for name, (title, colours, unit) in PANELS.items() if name in maps.maps]
    figure = matrix_maps(panels, maps.row_edges, maps.col_edges, how=maps.how, group_size=maps.group_size)
    return MatrixPicture(
        figure=payload(figure, f"salq-block{maps.block}-{maps.matrix}-{maps.tag}-{maps.how}"),
        facts=_matrix_facts(maps),
        reading=_matrix_reading(maps),
        problem=problem,
        table=[_table_row(name, maps) for name in PANELS if name in maps.maps],
    )


MAP_MISSING = "The saliency map of this model is not on this machine yet, so the map shows the error alone; Compute adds saliency and their product."
MAP_MISFIT = "The saliency map on this machine belongs to other weights of this name; Compute makes it anew."


def kept_picture(choices: Choices, block: int, matrix: str) -> MatrixPicture:
    """The view of the first paint: from the repository when it keeps this one, else empty."""
    kept = kept_maps(choices.model)
    if kept is None or (kept.block, kept.matrix, kept.tag) != (block, matrix, choices.spec.tag):
        return MatrixPicture(None, [], "", "", [])
    return _picture(kept, "")


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


def explore_request(choices: Choices, limits: Limits) -> ExploreRequest:
    """What Compute asks for: saliency, and errors at the chosen grid and at the reference widths. Raises the errors of `Limits.check`."""
    limits.check_model(choices.model)
    config = known_config(choices.model)
    if config is not None:
        check_group_size(choices.spec, linear_shapes(config))
    widths = dict.fromkeys((choices.bits, *REFERENCE_BITS))
    specs = tuple(QuantSpec(bits=bits, group_size=choices.group_size, symmetric=choices.symmetric) for bits in widths)  # type: ignore[arg-type]
    request = ExploreRequest(model=choices.model, specs=specs, text=choices.text, device=choices.device, n_samples=16, seq_len=256)
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


def grid_sentence(found: Exploration) -> str:
    """The most telling sentence of an exploration: saliency when it is there, else an error at the smallest width."""
    if found.saliency is not None:
        return _grid_reading("saliency", "", found.saliency.cells, found.linears)
    tag = next(iter(tags([found])), "")
    return _grid_reading("weight_error", tag, found.errors[tag].weight_error, found.linears) if tag else ""


def _kept_or_live(store: RunStore, choices: Choices, block: int, matrix: str, how: str) -> tuple[MatrixMaps, str]:
    """(maps, key of the saliency map): from the repository when exactly this view is kept and the model's files are not needed for more."""
    key = saliency_key_of(explorations(store, choices.model))
    if not key:
        kept = kept_maps(choices.model)
        if kept is not None and (kept.block, kept.matrix, kept.tag, kept.how) == (block, matrix, choices.spec.tag, how):
            return kept, ""
    return _live(choices, block, matrix, how, key), key


def _live(choices: Choices, block: int, matrix: str, how: str, key: str) -> MatrixMaps:
    from salq.evaluation.matrix_view import matrix_view
    from salq.models.llama import read_weight
    from salq.saliency.maps import find

    source = resolve(choices.model)
    count = read_folder_config(source.folder)["num_hidden_layers"]
    if how not in POOLINGS or matrix not in LINEARS or not 0 <= block < count:
        raise ConfigError(f"There is no view of block {block}, {matrix}, pooled by {how}; blocks are 0 to {count - 1}, pooling is max, mean or p99.")
    weight = read_weight(source, block, matrix)
    found = find(key) if key else None
    saliency = None
    if found is not None and found.meta.fingerprint == source.fingerprint and block < found.n_blocks:
        saliency = found.matrix(block, matrix)
    view = matrix_view(f"{block}.{matrix}", weight, choices.spec, saliency, how=how)  # type: ignore[arg-type]
    return MatrixMaps.of(view, block, matrix)


def _numbers(cells: Cells) -> list[list[float]]:
    return [[float("nan") if value is None else value for value in row] for row in cells]


def _nothing_yet(metric: Metric, choices: Choices) -> str:
    return (
        f"{METRICS[metric].title} of {choices.short_model} is not computed yet; press Compute. The maps of a single matrix below need no computation."
    )


def _grid_reading(metric: Metric, tag: str, cells: Cells, linears: Sequence[str]) -> str:
    flat = [
        (value, f"block {block} {name}") for block, row in enumerate(cells) for value, name in zip(row, linears, strict=True) if value is not None
    ]
    if not flat:
        return "No matrix of this model has a finite value."
    low, high, middle = min(flat), max(flat), statistics.median(value for value, _ in flat)
    if metric == "saliency":
        times = f"{high[0] / low[0]:,.0f} times" if low[0] > 0 else "far"
        return f"A weight of {high[1]} matters {times} more on average than one of {low[1]}; the median matrix is at {middle:.2g} nats² per weight²."
    what = "the weights of a matrix" if metric == "weight_error" else "what a matrix computes"
    return f"Rounding to nearest at {tag} moves {what} by {middle:.0%} (median): most in {high[1]} ({high[0]:.0%}), least in {low[1]} ({low[0]:.0%})."


def _grid_source(found: Exploration, metric: Metric, tag: str) -> str:
    where = "kept in the repository" if found.origin == "kept" else f"run {found.origin} on this machine"
    reference = f" The original is a {found.reference}." if found.reference else ""
    if metric == "saliency" and found.saliency is not None:
        used = found.saliency
        return f"{found.model}; {used.n_samples} samples of {used.seq_len} tokens of the text {used.text}; {where}.{reference}"
    text = "" if metric == "weight_error" else f" inputs from {found.n_samples} samples of {found.seq_len} tokens of the text {found.text};"
    return f"{found.model}, {tag}, rounded to nearest;{text} {where}.{reference}"


def _matrix_facts(maps: MatrixMaps) -> list[tuple[str, str, str]]:
    rows, columns = maps.shape
    group = "one group per row" if maps.group_size is None else f"{columns // maps.group_size} groups per row"
    found = [
        ("Matrix", f"{rows:,} × {columns:,}", f"outputs × inputs, {group}"),
        ("Relative weight error", f"{maps.relative_error:.1%}", f"rounded to nearest, {maps.tag}"),
    ]
    if "product" in maps.facts:
        found.append(("Predicted rise of the loss", f"{maps.facts['product']['total']:.2g} nats", "per sample, if only this matrix were rounded"))
    return found


def _matrix_reading(maps: MatrixMaps) -> str:
    error = maps.facts["error"]
    start = f"Rounding moves a weight by {error['mean']:.2g} on average and {error['maximum']:.2g} at most"
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
