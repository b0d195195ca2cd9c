"""The sides of a comparison measured anew on a chosen text, with the reference, as at the end of a run; the runs themselves are left as they are."""

from collections.abc import Generator
from dataclasses import replace

from salq.core.errors import ConfigError
from salq.core.events import Event
from salq.data.sources import load_text
from salq.data.windows import evaluation_windows
from salq.evaluation.scores import score
from salq.kernels.assemble import quantized_copy
from salq.models.llama import Llama, load_model
from salq.runs.requests import CalibrateRequest, Evaluation
from salq.runs.store import RunStore
from salq.runs.subjects import Subject, original_of


def remeasured(
    store: RunStore, pair: tuple[Subject, Subject], evaluation: Evaluation, device: str = "auto"
) -> Generator[Event, None, tuple[Subject, Subject]]:
    """Both sides on the same windows: one phase "evaluation" for each run; returns them with these metrics in place of their own.

    Raises ConfigError for runs of different models, StoreError for a run that lost a block, TextError, ModelError, ResourceError.
    """
    asked = [request for side in pair if side.run and isinstance(request := store.request(side.run), CalibrateRequest)]
    if len({request.model for request in asked}) != 1:
        raise ConfigError(f"The runs are of different models ({pair[0].model} and {pair[1].model}); choose two runs of the same model.")
    model = load_model(asked[0].model, device=device)
    text = load_text(evaluation.text, "evaluation", calibrated_on=[request.text for request in asked])
    windows = evaluation_windows(text, model.tokenizer, evaluation.windows, evaluation.window)
    found: dict[str, Subject] = {}
    for side in pair:
        if side.run:
            scores = yield from score(model, _quantized(store, model, side), windows, text=text.name)
            digests = {**side.digests, "model": model.source.fingerprint, "evaluation": text.sha256}
            measured = {**side.metrics, **scores.metrics(), "reference": model.reference_label, "device": str(model.device)}
            found[side.run] = replace(side, metrics=measured, digests=digests)
    first = next(iter(found.values()))
    a, b = (found[side.run] if side.run else original_of(first) for side in pair)
    return a, b


def _quantized(store: RunStore, model: Llama, side: Subject) -> Llama:
    """The model as the run left it. Raises StoreError for a block that was lost since, which would count as full precision."""
    blocks = store.result(side.run)
    return quantized_copy(model, {index: blocks.load(index) for index in range(side.metrics.get("n_blocks") or len(blocks.indices()))})
