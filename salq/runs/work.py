"""The work of a run, as phases: load, saliency when the recipe needs it, calibration, evaluation, results. Yields events only.

Imported when a run's turn has come: torch and the model's room come with it.
"""

import dataclasses
import shutil
import time
from collections.abc import Generator, Iterator
from typing import Any, TypeVar

from torch import Tensor

from salq.calibration.distillation import PHASE as DISTILLATION
from salq.calibration.distillation import distill
from salq.calibration.engine import calibrate
from salq.calibration.places import FinalStates
from salq.calibration.salience import SampledSaliency
from salq.calibration.store import DirectoryBlocks, FileCheckpoint
from salq.core import events as ev
from salq.core.device import DeviceChoice, PeakMemory, choose_device, keep_freed_memory, out_of_memory_as_error
from salq.core.errors import ConfigError, StoreError
from salq.core.files import write_json
from salq.data.sources import load_text
from salq.data.text import Text
from salq.data.windows import evaluation_windows, sample_windows
from salq.evaluation.depth import depth_errors
from salq.evaluation.errors import quantization_errors
from salq.evaluation.scores import Scores, score
from salq.kernels.assemble import quantized_copy
from salq.models.llama import Llama, load_model
from salq.models.shapes import linear_shapes
from salq.quant.spec import check_group_size
from salq.runs.environment import environment
from salq.runs.exploration import DEPTH_SAMPLES
from salq.runs.inputs import Inputs, gather
from salq.runs.limits import Limits
from salq.runs.plan import Plan, check_room, exploring_shares, plan
from salq.runs.reduced import reduce_matrices
from salq.runs.requests import CalibrateRequest, ExploreRequest
from salq.runs.store import DISTILLED, RunStore
from salq.saliency.maps import compute_saliency

Result = TypeVar("Result")
Steps = Generator[ev.Event, None, Result]
LOAD_SECONDS = 5.0


def perform(store: RunStore, run_id: str, request: CalibrateRequest | ExploreRequest) -> Steps[None]:
    """Everything between RunStarted and the terminal event. Raises SalqError for what a person can act on."""
    keep_freed_memory()
    return _calibrate(store, run_id, request) if isinstance(request, CalibrateRequest) else _explore(store, run_id, request)


@dataclasses.dataclass(frozen=True)
class _Loaded:
    model: Llama
    tokens: Tensor | None
    windows: Tensor
    inputs: Inputs


def _calibrate(store: RunStore, run_id: str, request: CalibrateRequest) -> Steps[None]:
    planned = plan(request)
    check_room(planned, request.model, store.root)
    peak = PeakMemory(planned.choice.device)
    write_json(store.folder(run_id) / "environment.json", environment(planned.choice))
    loaded = yield from _load(store, run_id, request, planned)
    saliency = None
    if request.recipe.needs_saliency:
        saliency = yield from _guarded(_saliency(loaded, request), "The saliency map")
    blocks = store.blocks(run_id)
    drop_damaged(blocks)
    known = yield from _guarded(
        calibrate(loaded.model, loaded.tokens, request.recipe, blocks, saliency, n_blocks=request.n_blocks, seed=request.seed), "Calibration"
    )
    yield from _guarded(_distill(store, run_id, request, loaded, known), "The end-to-end pass")
    blocks = store.result(run_id)
    quantized = quantized_copy(loaded.model, {index: blocks.load(index) for index in range(planned.n_blocks)})
    scores = yield from _guarded(score(loaded.model, quantized, loaded.windows, text=loaded.inputs.evaluation.name), "Evaluation")
    yield from _results(store, run_id, _metrics(store, run_id, request, planned, loaded.model, scores) | {"peak_memory_gb": peak.gb()})


def _load(store: RunStore, run_id: str, request: CalibrateRequest, planned: Plan) -> Steps[_Loaded]:
    """The model and all text, so that a text that is too short is told before hours of work."""
    started = time.monotonic()
    yield ev.PhaseStarted("load", of=1, unit="models", weight=LOAD_SECONDS)
    yield ev.MetricReported("plan", _shares(planned))
    with out_of_memory_as_error(f"Loading {request.model}"):
        model = load_model(request.model, device=planned.choice)
    plan(request, config=model.config.to_dict())  # a folder may hold other shapes than the catalogue says
    inputs = gather(store, run_id, request, model)
    windows = evaluation_windows(inputs.evaluation, model.tokenizer, request.evaluation.windows, request.evaluation.window)
    tokens, data = None, request.recipe.data
    if data is not None and inputs.calibration is not None:
        tokens = sample_windows(inputs.calibration, model.tokenizer, data.n_samples, data.seq_len, request.seed)
    yield ev.PhaseStep("load", 1)
    yield ev.PhaseDone("load", time.monotonic() - started)
    return _Loaded(model, tokens, windows, inputs)


def _saliency(loaded: _Loaded, request: CalibrateRequest) -> Steps[SampledSaliency]:
    sampling, text = request.recipe.saliency, loaded.inputs.calibration
    assert sampling is not None  # the recipe was validated: it needs saliency, so it says how much
    assert text is not None
    found = yield from compute_saliency(loaded.model, text, sampling.n_samples, sampling.seq_len, request.seed)
    return SampledSaliency(found, sample_windows(text, loaded.model.tokenizer, sampling.n_samples, sampling.seq_len, request.seed))


def _distill(store: RunStore, run_id: str, request: CalibrateRequest, loaded: _Loaded, known: FinalStates | None) -> Iterator[ev.Event]:
    """The end-to-end pass, when the recipe has one and it is not over: its blocks appear all at once, under another name than the finished ones."""
    config, text, blocks = request.recipe.distillation, loaded.inputs.calibration, store.blocks(run_id)
    folder = store.folder(run_id)
    if config is None:
        return
    if (folder / DISTILLED).is_dir():
        if not drop_damaged(store.result(run_id)) and len(store.result(run_id).indices()) == len(blocks.indices()):
            return
        shutil.rmtree(folder / DISTILLED)  # its blocks were learned together, so they are made together again
    assert text is not None  # the recipe reads text
    tokens = sample_windows(text, loaded.model.tokenizer, config.n_samples, config.seq_len, request.seed)
    finished = {index: blocks.load(index) for index in blocks.indices()}
    checkpoint = FileCheckpoint(folder / "distillation.safetensors")
    result = yield from distill(loaded.model, finished, tokens, config, known=known, seed=request.seed, checkpoints=checkpoint)
    partial = DirectoryBlocks(folder / f"{DISTILLED}.partial", blocks.origin)
    for index, block in result.items():
        partial.save(index, block)
    partial.folder.rename(folder / DISTILLED)
    checkpoint.path.unlink(missing_ok=True)


def _metrics(store: RunStore, run_id: str, request: CalibrateRequest, planned: Plan, model: Llama, scores: Scores) -> dict[str, Any]:
    return {
        **scores.metrics(),
        **dataclasses.asdict(planned.size),
        "seconds": calibration_seconds(store.events(run_id)),
        "reference": model.reference_label,
        "reference_note": model.source.note,
        "model": request.short_model,
        "parameters": planned.parameters,
        "recipe": request.method,
        "preset": request.recipe.preset,
        "tag": request.tag,
        "bits": request.spec.bits,
        "group_size": request.spec.group_size,
        "rank": request.recipe.rank,
        "n_blocks": planned.n_blocks,
        "of_blocks": model.n_blocks,
        "seed": request.seed,
        "device": str(planned.choice.device),
    }


def _results(store: RunStore, run_id: str, metrics: dict[str, Any]) -> Iterator[ev.Event]:
    started = time.monotonic()
    yield ev.PhaseStarted("results", of=1, unit="files", weight=0.0)
    store.write_metrics(run_id, metrics)
    for name in ("bits_per_weight", "size_mb", "model_bits_per_weight", "model_size_mb", "seconds", "peak_memory_gb", "reference"):
        yield ev.MetricReported(name, metrics[name])
    yield ev.PhaseStep("results", 1)
    yield ev.PhaseDone("results", time.monotonic() - started)


def _explore(store: RunStore, run_id: str, request: ExploreRequest) -> Steps[None]:
    """Saliency and errors of a model; the grids go to metrics.json, the map to the shared saliency folder."""
    Limits.here().check(request)
    measured = _measured_run(store, request)
    choice = choose_device(request.device)
    write_json(store.folder(run_id) / "environment.json", environment(choice))
    model, text, tokens = yield from _load_for_exploring(request, choice)
    results: dict[str, Any] = {"model": request.short_model, "reference": model.reference_label, "text": text.name, "device": str(choice.device)}
    found = None
    if request.saliency:
        found = yield from _guarded(compute_saliency(model, text, request.n_samples, request.seq_len, request.seed), "The saliency map")
        results["saliency"] = found.summary()
    frozen = None if measured is None else {index: measured.load(index) for index in measured.indices()}
    if request.specs or frozen:
        grids = yield from _guarded(quantization_errors(model, tokens, request.specs, frozen, saliency=found), "The error grids")
        results["errors"] = [grid.to_json() for grid in grids]
        few = tokens[:DEPTH_SAMPLES]
        named = {str(request.run): frozen} if frozen else {}
        depth = yield from _guarded(depth_errors(model, few, request.specs, named), "The errors through depth")
        results["depth"] = [one.to_json() for one in depth]
    if request.specs:
        yield from _guarded(reduce_matrices(model, request.specs[0], found), "The maps of the matrices")
    store.write_metrics(run_id, results)


def _measured_run(store: RunStore, request: ExploreRequest) -> DirectoryBlocks | None:
    """The finished blocks of the calibration that the request names, none of them read.

    Raises UnknownNameError when it is gone, StoreError when it is of another model, ConfigError when its matrices have no weight to measure.
    """
    if request.run is None:
        return None
    asked = store.request(request.run)
    blocks = store.result(request.run)
    if not isinstance(asked, CalibrateRequest) or asked.model != request.model or not blocks.indices():
        raise StoreError(f"Run {request.run} has no finished blocks of {request.short_model} to measure; choose another run.")
    if not asked.recipe.quantizer.has_weight:
        raise ConfigError(f"Run {request.run} ({asked.method}) has no weights to measure, because its scales follow the token; choose another run.")
    return blocks


def _load_for_exploring(request: ExploreRequest, choice: DeviceChoice) -> Steps[tuple[Llama, Text, Tensor]]:
    """The model and the text, checked before the saliency pass, which may take an hour."""
    started = time.monotonic()
    yield ev.PhaseStarted("load", of=1, unit="models", weight=LOAD_SECONDS)
    yield ev.MetricReported("plan", exploring_shares(request))
    with out_of_memory_as_error(f"Loading {request.model}"):
        model = load_model(request.model, device=choice)
    Limits.here().check_parameters(request.model, model.parameters)
    for spec in request.specs:
        check_group_size(spec, linear_shapes(model.config.to_dict()))
    text = load_text(request.text, "calibration", model)
    tokens = sample_windows(text, model.tokenizer, request.n_samples, request.seq_len, request.seed)
    yield ev.PhaseStep("load", 1)
    yield ev.PhaseDone("load", time.monotonic() - started)
    return model, text, tokens


def drop_damaged(blocks: DirectoryBlocks) -> list[int]:
    """Remove finished blocks that no longer read, so that they are computed again, with the same codes; returns their indices."""
    damaged = []
    for index in blocks.indices():
        try:
            blocks.load(index)
        except StoreError:
            blocks.path(index).unlink(missing_ok=True)
            damaged.append(index)
    return damaged


def calibration_seconds(events: list[ev.Event]) -> float:
    """Seconds that calibration took over all starts: of each block its first time, when it was computed and not loaded."""
    first: dict[int, float] = {}
    phase = distillation = 0.0
    for event in events:
        if isinstance(event, ev.BlockDone):
            first.setdefault(event.block, event.seconds)
        elif isinstance(event, ev.PhaseDone) and event.phase == "calibration":
            phase = event.seconds
        elif isinstance(event, ev.PhaseDone) and event.phase == DISTILLATION:
            distillation = event.seconds
    return max(phase, sum(first.values())) + distillation


def _shares(planned: Plan) -> dict[str, float]:
    """Expected seconds per phase."""
    expected = planned.estimate
    shares = {
        "load": LOAD_SECONDS,
        "saliency": expected.saliency_seconds,
        "calibration": expected.seconds,
        DISTILLATION: expected.distillation_seconds,
        "evaluation": expected.evaluation_seconds,
    }
    return {phase: seconds for phase, seconds in shares.items() if seconds > 0}


def _guarded(events: Iterator[ev.Event], what: str) -> Steps[Any]:
    """`events`, with running out of memory as one sentence; the guard is around each step, never around a yield."""
    try:
        while True:
            try:
                with out_of_memory_as_error(what):
                    event = next(events)
            except StopIteration as finished:
                return finished.value
            yield event
    finally:
        if isinstance(events, Generator):
            events.close()
