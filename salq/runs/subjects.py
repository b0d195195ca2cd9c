"""What a comparison compares: a finished run, rounding to nearest as a finished run of it, or the original as every run measured it. Light."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from salq.core.errors import ConfigError
from salq.core.files import last_part, read_json
from salq.runs.requests import CalibrateRequest
from salq.runs.store import RunInfo, RunStore

ORIGINAL, RTN = "original", "rtn"
ORIGINAL_BITS = 16.0
CONDITIONS = ("text", "windows", "window", "tokens")
SAME_ORIGINAL = 1e-3
"""Relative: the same model gives the same perplexity on another device, up to arithmetic."""


@dataclass(frozen=True)
class Subject:
    """One side of a comparison. `run` is "" for the original; `digests` are hashes of the model and the texts that the run really used.

    output_errors: relative output error of every block on the calibration text, None where the recipe saw no text.
    asked: the request, with files named and not located.
    """

    title: str
    run: str
    model: str
    metrics: Mapping[str, Any]
    recipe: str = ""
    tag: str = ""
    output_errors: tuple[float | None, ...] = ()
    digests: Mapping[str, str] = field(default_factory=dict)
    asked: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_original(self) -> bool:
        """Whether nothing is quantized."""
        return not self.run


def subject_of(store: RunStore, run_id: str) -> Subject:
    """A finished run. Raises ConfigError for one without results, UnknownNameError for one that does not exist."""
    info = store.get(run_id)
    request = info.request
    if info.status != "done" or not isinstance(request, CalibrateRequest):
        raise ConfigError(f"Run {info.id} is {info.status} and has no results to compare; choose two finished runs of calibrate.")
    errors = info.progress.output_errors
    folder = store.folder(info.id)
    return Subject(
        title=info.title, run=info.id, model=request.short_model, metrics=info.metrics, recipe=request.method, tag=request.tag,
        output_errors=tuple(errors[block] for block in sorted(errors)), digests=_kept(folder / "inputs.json"), asked=_asked(request),
        versions=_kept(folder / "environment.json"),
    )  # fmt: skip


def original_of(subject: Subject) -> Subject:
    """The unquantized model as the run of `subject` measured it: on the same windows, its KL from itself being 0."""
    metrics = subject.metrics
    sums = metrics.get("per_window") or {}
    weights = _ratio(metrics.get("size_mb"), metrics.get("bits_per_weight"))
    parameters = metrics.get("parameters")
    known = {name: metrics.get(name) for name in (*CONDITIONS, "perplexity_original", "reference", "reference_note", "device", "of_blocks")}
    own: dict[str, Any] = {
        "perplexity": metrics.get("perplexity_original"), "perplexity_se": metrics.get("perplexity_original_se"),
        "kl": 0.0, "kl_se": None, "kl_median": 0.0, "kl_p99": 0.0, "top1_agreement": 1.0,
        "bits_per_weight": ORIGINAL_BITS, "model_bits_per_weight": ORIGINAL_BITS,
        "size_mb": None if weights is None else weights * ORIGINAL_BITS,
        "model_size_mb": parameters * ORIGINAL_BITS / 8e6 if isinstance(parameters, int | float) else None,
        "n_blocks": metrics.get("of_blocks"),
    }  # fmt: skip
    if sums:
        nothing = [0.0] * len(sums["tokens"])
        own["per_window"] = {
            "tokens": sums["tokens"], "nll": sums["nll_original"], "nll_original": sums["nll_original"], "kl": nothing, "agrees": sums["tokens"],
        }  # fmt: skip
    return Subject(title=f"{subject.model} original", run="", model=subject.model, metrics={**known, **own}, digests=subject.digests)


def rounded_like(store: RunStore, subject: Subject) -> Subject:
    """The finished run that rounds the same model to nearest at the same grid, measured on the same text. Raises ConfigError when none did."""
    wanted = store.request(subject.run)
    assert isinstance(wanted, CalibrateRequest)  # a subject with a run was made from one
    for info in store.list():
        if info.status == "done" and _rounds_like(info, wanted):
            return subject_of(store, info.id)
    spec, evaluation = wanted.spec, wanted.evaluation
    group = "row" if spec.group_size is None else spec.group_size
    raise ConfigError(
        f"No finished run rounds {subject.model} to nearest at {spec.tag} on the same text; make one with `python -m salq calibrate --recipe rtn "
        f"--bits {spec.bits} --group-size {group} --windows {evaluation.windows} --window {evaluation.window}` and the same model and texts."
    )


def pair(store: RunStore, a: str, b: str) -> tuple[Subject, Subject]:
    """Two sides by name: a run (id, end of one, title), `original` or `rtn`, the latter two of what the other side is.

    Raises ConfigError, UnknownNameError.
    """
    names = (a, b)
    runs = [name for name in names if name not in {ORIGINAL, RTN}]
    if not runs:
        raise ConfigError(f"{a!r} and {b!r} name no run; at least one of the two must be a finished run of calibrate.")
    found = {name: subject_of(store, store.resolve(name)) for name in runs}
    first = found[runs[0]]
    sides = [found[name] if name in found else original_of(first) if name == ORIGINAL else rounded_like(store, first) for name in names]
    if sides[0].run == sides[1].run:
        raise ConfigError(f"{sides[0].title} is on both sides; choose two different runs, or the original.")
    return sides[0], sides[1]


def refusal(a: Subject, b: Subject) -> str:
    """Why the two cannot be paired, as one sentence; '' when they can."""
    for side in (a, b):
        if not side.metrics.get("per_window"):
            return (
                f"Run {side.run or b.run} was finished by an older salq, which kept no sums of single windows; "
                "`python -m salq compare` measures both anew when it is given --text, --windows or --window."
            )
    if a.model != b.model or _differ(a, b, "model"):
        other = f"{a.model} and {b.model}" if a.model != b.model else f"two different copies of {a.model}"
        return f"The runs are of different models ({other}), so their losses cannot be paired; choose two runs of the same model."
    if any(a.metrics.get(name) != b.metrics.get(name) for name in CONDITIONS) or _differ(a, b, "evaluation"):
        return (
            f"The runs were measured on different text ({measured_on(a.metrics)}; {measured_on(b.metrics)}), so their losses cannot be paired; "
            "`python -m salq compare` measures both anew when it is given --text, --windows or --window."
        )
    first, second = a.metrics.get("perplexity_original"), b.metrics.get("perplexity_original")
    if isinstance(first, int | float) and isinstance(second, int | float) and abs(first - second) > SAME_ORIGINAL * abs(first):
        return (
            f"The original has perplexity {first:.4g} in one run and {second:.4g} in the other, so they did not start from the same weights; "
            "run both again."
        )
    return ""


def measured_on(metrics: Mapping[str, Any]) -> str:
    """Text, windows and window, which belong to every number."""
    return f"{metrics.get('text')}, {metrics.get('windows')} windows of {metrics.get('window')} tokens"


def _rounds_like(info: RunInfo, wanted: CalibrateRequest) -> bool:
    request = info.request
    if not isinstance(request, CalibrateRequest) or request.method != RTN or request.tag != wanted.tag:
        return False
    return (request.model, request.n_blocks, request.evaluation) == (wanted.model, wanted.n_blocks, wanted.evaluation)


def _differ(a: Subject, b: Subject, name: str) -> bool:
    mine, other = a.digests.get(name), b.digests.get(name)
    return bool(mine and other and mine != other)


def _asked(request: CalibrateRequest) -> dict[str, Any]:
    """The request without the folders of one machine."""
    asked = request.to_json()
    asked["model"], asked["text"] = request.short_model, last_part(request.text)
    asked["evaluation"] = {**asked["evaluation"], "text": last_part(request.evaluation.text)}
    return asked


def _kept(path: Any) -> dict[str, Any]:
    try:
        found = read_json(path)
    except (OSError, ValueError):
        return {}
    return {name: value for name, value in found.items() if value} if isinstance(found, dict) else {}


def _ratio(size: Any, bits: Any) -> float | None:
    """Megabytes per bit of a weight."""
    return size / bits if isinstance(size, int | float) and isinstance(bits, int | float) and bits > 0 else None
