"""What Explore does, without gradio: from the visitor's choices to figures, sentences and tables."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from salq.core.errors import ConfigError, FormatError, SalqError, StoreError
from salq.core.settings import is_public_host
from salq.figures import METRICS, MapPanel, grid_difference, grid_heatmap, matrix_maps, payload
from salq.figures.style import ERROR_SCALE, PRODUCT_SCALE, SALIENCY_SCALE
from salq.models.catalogue import CATALOGUE, parameters_of
from salq.models.folder import read_folder_config
from salq.models.hub import downloaded
from salq.models.shapes import linear_shapes
from salq.models.source import HUB_ID, is_local, resolve
from salq.quant.size import SizeReport, size_report
from salq.quant.spec import QuantSpec, check_group_size
from salq.runs.exploration import Cells, Exploration, Metric, explorations, saliency_key_of, tags
from salq.runs.kept import MatrixMaps, kept_maps
from salq.runs.limits import Limits
from salq.runs.reduced import View, find_view, reduce_matrix
from salq.runs.requests import ExploreRequest
from salq.runs.store import RunStore
from salq.ui.context import Choices
from salq.ui.explore_charts import NO_CHART, Chart, spectrum_picture
from salq.ui.explore_subject import KEPT, NOTHING, ROUNDING, Measured, measured, name_of, run_of

if TYPE_CHECKING:
    from salq.packing.files import PackedFile

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
    spectrum: Chart


TABLE_HEADER = ["map", "mean", "largest", "top 1 % hold", "not finite"]


def grid_view(store: RunStore, choices: Choices, metric_key: str, made_by: str = ROUNDING, minus: str = NOTHING) -> GridView:
    """The block x matrix grid of a metric for the chosen model and spec, or the nearest thing that is known. Raises ConfigError.

    made_by, minus: values of the pickers (`explore_subject`); with something to subtract, the grid is A minus B.
    """
    if metric_key not in METRICS:
        raise ConfigError(f"Metric {metric_key!r} is not known; use one of {', '.join(METRICS)}.")
    metric: Metric = metric_key  # type: ignore[assignment]
    tag = choices.spec.tag
    one = measured(store, choices.model, made_by, metric, tag)
    if one is None and made_by != ROUNDING:
        return GridView(None, "", "", _not_measured(store, choices, made_by, metric), [], [])
    if one is None:
        return GridView(None, "", "", _nothing_yet(metric, choices), [], [])
    if minus != NOTHING and metric != "saliency":
        other = measured(store, choices.model, minus, metric, tag)
        if other is None:
            return GridView(None, "", "", _not_measured(store, choices, minus, metric), [], [])
        return _difference_view(metric, one, other, choices)
    problem = "" if one.shown == tag or made_by != ROUNDING else _other_width(metric, tag, one.shown)
    if minus != NOTHING:
        problem = "Saliency belongs to the original model, so it is the same for A and B; shown is the saliency itself."
    figure = grid_heatmap(_numbers(one.cells), one.linears, METRICS[metric])
    return GridView(
        figure=payload(figure, f"salq-{metric}-{one.shown}"),
        reading=_grid_reading(metric, one.name, one.cells, one.linears),
        source=_source(one, metric),
        problem=problem,
        table=_cells_table(one.cells),
        header=["block", *one.linears],
    )


def _difference_view(metric: Metric, one: Measured, other: Measured, choices: Choices) -> GridView:
    """A minus B over the blocks that both have."""
    if list(one.linears) != list(other.linears):
        return GridView(None, "", "", "A and B hold other matrices, so they cannot be subtracted; choose two runs of the same model.", [], [])
    count = min(len(one.cells), len(other.cells))
    cells = [[_minus(a, b) for a, b in zip(*rows, strict=True)] for rows in zip(one.cells[:count], other.cells[:count], strict=True)]
    figure = grid_difference(_numbers(one.cells[:count]), _numbers(other.cells[:count]), one.linears, METRICS[metric])
    flat = [value for row in cells for value in row if value is not None]
    smaller = sum(value < 0 for value in flat)
    sums = [sum(value for row in part.cells[:count] for value in row if value is not None) for part in (one, other)]
    change = f"; the sum over all matrices changes from {sums[1]:.3g} (B) to {sums[0]:.3g} (A)" if flat else ""
    reading = (
        f"A ({one.name}) has the smaller {METRICS[metric].title.lower()} in {smaller} of {len(flat)} matrices and B ({other.name}) "
        f"in {sum(value > 0 for value in flat)}{change}. Blue: A is smaller; red: B is smaller."
    )
    return GridView(
        payload(figure, f"salq-{metric}-difference"), reading, f"A: {_source(one, metric)} B: {_source(other, metric)}",
        "" if choices.spec.tag in {one.shown, other.shown} else f"A has the grid {one.shown}, B {other.shown}.", _cells_table(cells),
        ["block", *one.linears],
    )  # fmt: skip


def _minus(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other


def _cells_table(cells: Cells) -> list[list[Any]]:
    return [[block, *(None if value is None else float(f"{value:.4g}") for value in row)] for block, row in enumerate(cells)]


def _other_width(metric: Metric, tag: str, shown: str) -> str:
    return f"{METRICS[metric].title} at {tag} is not computed yet; shown is {shown}. Compute adds {tag}."


def _not_measured(store: RunStore, choices: Choices, subject: str, metric: Metric) -> str:
    """Why a calibration has no such grid, and what to do."""
    title = METRICS[metric].title
    if subject == ROUNDING or subject.startswith(KEPT) or run_of(store, choices.model, subject) is not None:
        return f"{title} of {name_of(store, choices.model, subject, choices.spec.tag)} is not measured yet; press Compute."
    return "This run is not here any more, is not finished, or belongs to another model; choose another one in the pickers above the grid."


def matrix_picture(store: RunStore, choices: Choices, block: int, matrix: str, how: str, made_by: str = ROUNDING) -> MatrixPicture:
    """The maps of one matrix and the singular values of its error, without loading the model; fetches the model first when it is not here.

    Raises ConfigError for a block, matrix or pooling that does not exist, and the errors of `resolve` and `check_group_size`.
    """
    maps, key = load_maps(store, choices, block, matrix, how, made_by)
    missing = "" if "saliency" in maps.maps else (MAP_MISFIT if key else MAP_MISSING)
    return _picture(maps, missing, name_of(store, choices.model, made_by, maps.tag))


def _picture(maps: MatrixMaps, problem: str, maker: str) -> MatrixPicture:
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


def is_here(model: str) -> bool:
    """Whether a model's files are on this machine, so that opening a matrix needs no download."""
    return is_local(model) if model in CATALOGUE else _folder_of(model) is not None


def _folder_of(model: str) -> Path | None:
    """The folder of a model that is not in the catalogue, when it is on this machine; never looked for on a public host."""
    if is_public_host():
        return None
    folder = Path(model).expanduser()
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
    except (TypeError, ValueError):
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
    return _grid_reading("weight_error", f"rounding to nearest at {tag}", found.errors[tag].weight_error, found.linears) if tag else ""


def load_maps(store: RunStore, choices: Choices, block: int, matrix: str, how: str, made_by: str = ROUNDING) -> tuple[MatrixMaps, str]:
    """(maps, key of the saliency map): reduced before, or kept in the repository, or reduced now from the matrix's own weights.

    Raises ConfigError for what does not exist, StoreError for a calibration whose block is missing, and the errors of `resolve`.
    """
    key = saliency_key_of(explorations(store, choices.model))
    if not key and made_by == ROUNDING:
        kept = kept_maps(choices.model)
        if kept is not None and (kept.block, kept.matrix, kept.tag, kept.how) == (block, matrix, choices.spec.tag, how):
            return kept, ""
    return _reduced(store, choices, block, matrix, how, key, made_by), key


def _reduced(store: RunStore, choices: Choices, block: int, matrix: str, how: str, key: str, made_by: str) -> MatrixMaps:
    source = resolve(choices.model)
    count = read_folder_config(source.folder)["num_hidden_layers"]
    if how not in POOLINGS or matrix not in LINEARS or not 0 <= block < count:
        raise ConfigError(f"There is no view of block {block}, {matrix}, pooled by {how}; blocks are 0 to {count - 1}, pooling is max, mean or p99.")
    info = run_of(store, choices.model, made_by)
    maker = choices.spec.tag if info is None else info.id
    view = View(source.fingerprint, maker, key, how, block, matrix)
    found = find_view(view)
    if found is not None:
        return found
    from salq.models.llama import read_weight
    from salq.saliency.maps import find

    frozen = None if info is None else open_block(store, info.id, block).matrix(matrix)
    spec = choices.spec if frozen is None else frozen.spec
    weight = read_weight(source, block, matrix)
    saliency = find(key) if key else None
    return reduce_matrix(view, weight, spec, saliency, quantized=frozen)


def open_block(store: RunStore, run_id: str, block: int) -> "PackedFile":
    """The packed file of a calibration's block. Raises StoreError when it is not there or does not read."""
    try:
        return store.result(run_id).open(block)
    except FormatError as error:
        raise StoreError(f"Block {block} of this run is not on this machine ({error}); run the calibration again, or choose another one.") from error


def _numbers(cells: Cells) -> list[list[float]]:
    return [[float("nan") if value is None else value for value in row] for row in cells]


def _nothing_yet(metric: Metric, choices: Choices) -> str:
    return (
        f"{METRICS[metric].title} of {choices.short_model} is not computed yet; press Compute. The maps of a single matrix below need no computation."
    )


def _grid_reading(metric: Metric, maker: str, cells: Cells, linears: Sequence[str]) -> str:
    flat = [
        (value, f"block {block} {name}") for block, row in enumerate(cells) for value, name in zip(row, linears, strict=True) if value is not None
    ]
    if not flat:
        return "No matrix of this model has a finite value."
    low, high, middle = min(flat), max(flat), statistics.median(value for value, _ in flat)
    if metric == "saliency":
        times = f"{high[0] / low[0]:,.0f} times" if low[0] > 0 else "far"
        return f"A weight of {high[1]} matters {times} more on average than one of {low[1]}; the median matrix is at {middle:.2g} nats² per weight²."
    if metric == "weighted_error":
        total = sum(value for value, _ in flat)
        top = sum(value for value, _ in sorted(flat, reverse=True)[: max(len(flat) // 10, 1)])
        share = f"; the worst tenth of the matrices makes {top / total:.0%} of it" if total else ""
        return f"{_capital(maker)} should raise the loss by {total:.3g} nats per sample in all, most through {high[1]} ({high[0]:.2g}){share}."
    what = "the weights of a matrix" if metric == "weight_error" else "what a matrix computes"
    return f"{_capital(maker)} moves {what} by {middle:.0%} (median): most in {high[1]} ({high[0]:.0%}), least in {low[1]} ({low[0]:.0%})."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _source(one: Measured, metric: Metric) -> str:
    """Where the numbers come from."""
    if one.origin is not None:
        return _grid_source(one.origin, metric, one.name)
    where = "" if one.info is None else f" {one.info.id} on this machine"
    return f"{one.name}, {one.shown}; weight errors as calibration measured them, run{where}."


def _grid_source(found: Exploration, metric: Metric, maker: str) -> str:
    where = "kept in the repository" if found.origin == "kept" else f"run {found.origin} on this machine"
    reference = f" The original is a {found.reference}." if found.reference else ""
    if metric == "saliency" and found.saliency is not None:
        used = found.saliency
        return f"{found.model}; {used.n_samples} samples of {used.seq_len} tokens of the text {used.text}; {where}.{reference}"
    text = "" if metric == "weight_error" else f" {found.n_samples} samples of {found.seq_len} tokens of the text {found.text};"
    return f"{found.model}, {maker};{text} {where}.{reference}"


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
