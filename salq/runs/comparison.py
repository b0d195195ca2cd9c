"""Two sides of an experiment as one value: what was compared, paired differences with intervals, blocks, sizes, the trade-off, and a sentence.

The page, `salq compare` and the exported report show this value and nothing else, so they cannot disagree. Reads files; numpy is the heaviest import.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from salq.core.errors import ConfigError
from salq.core.files import read_json
from salq.evaluation.paired import FEWEST_WINDOWS, Floats, Interval, mean_difference
from salq.runs.exploration import kept_folder
from salq.runs.noise import Floor, known_floor
from salq.runs.requests import CalibrateRequest
from salq.runs.store import RunStore
from salq.runs.subjects import CONDITIONS, Subject, pair, refusal

MEASURED = ("kl", "nll", "agrees")


@dataclass(frozen=True)
class Blocks:
    """Relative output error of every block on the calibration text, and in how many of them B's, or A's, is lower."""

    a: tuple[float, ...]
    b: tuple[float, ...]

    @property
    def lower_in_b(self) -> int:
        """Blocks where B's error is lower."""
        return sum(y < x for x, y in zip(self.a, self.b, strict=True))

    @property
    def lower_in_a(self) -> int:
        """Blocks where A's error is lower."""
        return sum(x < y for x, y in zip(self.a, self.b, strict=True))


@dataclass(frozen=True)
class Comparison:
    """A and B on the same windows. differences: B minus A per token by name (kl and nll in nats, agrees as a share), None without an interval.

    means: the same differences without intervals, which exist for any number of windows. points: all finished runs of the model on the same text.
    """

    a: Subject
    b: Subject
    means: Mapping[str, float]
    differences: Mapping[str, Interval] | None
    blocks: Blocks | None
    floor: Floor | None
    points: tuple[Mapping[str, Any], ...]
    conversation: Mapping[str, Any] | None

    @property
    def windows(self) -> int:
        """How many windows were paired."""
        return len(self.a.metrics["per_window"]["tokens"])

    @property
    def conditions(self) -> dict[str, Any]:
        """What every number of both sides was measured on."""
        return {"model": self.a.model, **{name: self.a.metrics.get(name) for name in (*CONDITIONS, "reference", "reference_note")}}


def compare(store: RunStore, a: str, b: str) -> Comparison:
    """The comparison of two sides by name (`subjects.pair`). Raises ConfigError, in one sentence, when they cannot be paired."""
    one, two = pair(store, a, b)
    return compared(store, one, two)


def compared(store: RunStore, a: Subject, b: Subject) -> Comparison:
    """The comparison of two sides. Raises ConfigError when they cannot be paired (`subjects.refusal`)."""
    if why := refusal(a, b):
        raise ConfigError(why)
    sums_a, sums_b = _sums(a), _sums(b)
    tokens = sums_a["tokens"]
    means = {name: float((sums_b[name] - sums_a[name]).sum() / tokens.sum()) for name in MEASURED}
    differences = None
    if len(tokens) >= FEWEST_WINDOWS and all(np.isfinite(value) for value in means.values()):
        differences = {name: mean_difference(sums_a[name], sums_b[name], tokens, widened=True) for name in MEASURED}
    run = b if a.is_original else a
    floor = known_floor(run.model, run.metrics)
    return Comparison(a, b, means, differences, _blocks(a, b), floor, tuple(_points(store, a, b)), _conversation(store, run))


def _sums(side: Subject) -> dict[str, Floats]:
    """Per-window sums; what was not finite is NaN."""
    return {
        name: np.asarray([np.nan if value is None else value for value in values], dtype=np.float64)
        for name, values in side.metrics["per_window"].items()
    }


def _blocks(a: Subject, b: Subject) -> Blocks | None:
    """Where both recipes saw the calibration text, block by block; the same text, or the errors say nothing about the methods."""
    same_text = a.digests.get("calibration") == b.digests.get("calibration")
    known_a, known_b = ([value for value in side.output_errors if value is not None] for side in (a, b))
    if not same_text or not known_a or len(known_a) != len(a.output_errors) or len(known_a) != len(known_b):
        return None
    return Blocks(tuple(known_a), tuple(known_b))


def _points(store: RunStore, a: Subject, b: Subject) -> list[dict[str, Any]]:
    """The two, and every other finished run of the whole of the same model on the same text: the trade-off that the two are part of."""
    found = [_point(side) for side in (a, b) if side.run]
    for info in store.list():
        request, metrics = info.request, info.metrics
        if info.status != "done" or not isinstance(request, CalibrateRequest) or request.short_model != a.model or info.id in {a.run, b.run}:
            continue
        if any(metrics.get(name) != a.metrics.get(name) for name in CONDITIONS) or metrics.get("n_blocks") != metrics.get("of_blocks"):
            continue
        found.append(_point(Subject(info.title, info.id, a.model, metrics, request.method, request.tag)))
    return found


def _point(side: Subject) -> dict[str, Any]:
    names = ("kl", "kl_se", "perplexity", "perplexity_se", "model_size_mb", "seconds", "peak_memory_gb")
    about = {"run": side.run, "title": side.title, "recipe": side.recipe, "tag": side.tag}
    return about | {name: side.metrics.get(name) for name in names}


def _conversation(store: RunStore, run: Subject) -> dict[str, Any] | None:
    """The conversation that the repository keeps of this model, when it keeps one."""
    request = store.request(run.run)
    try:
        found = read_json(kept_folder(request.model) / "chat.json")
        sides = [{"title": str(side["title"]), "text": str(side["text"])} for side in found["sides"]]
        return {"prompt": str(found["prompt"]), "sides": sides, "command": str(found.get("command", ""))}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def names(comparison: Comparison) -> tuple[str, str]:
    """How the two are called in a sentence: by title, and by the end of the id where the titles are the same."""
    a, b = comparison.a, comparison.b
    if a.title != b.title:
        return a.title, b.title
    return f"{a.title} ({a.run[-4:]})", f"{b.title} ({b.run[-4:]})"
