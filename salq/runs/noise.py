"""The noise floor of a measurement: how far the original is from itself when it is stored and computed in another precision.

A KL or an agreement below it says nothing about quantization. Measured by `salq evaluate --noise-floor` and kept under SALQ_HOME, so that the
page and `salq compare` can print it beside every number of the same model, text and windows; the repository keeps that of the default model.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from salq.core import settings
from salq.core.files import read_json, write_json
from salq.runs.exploration import kept_folder

SAME = 1e-3
"""Relative difference of the original's perplexity up to which a kept floor belongs to a measurement: another device, not another model."""


@dataclass(frozen=True)
class Floor:
    """Scores of the original against itself. kl, kl_median, kl_p99: nats per token; top1_agreement: share; how: what differed."""

    model: str
    text: str
    windows: int
    window: int
    tokens: int
    perplexity_original: float
    perplexity: float
    kl: float
    kl_median: float
    kl_p99: float
    top1_agreement: float
    how: str

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)

    @property
    def words(self) -> str:
        """One sentence."""
        return f"Noise floor: {self.how} is {self.kl:.2g} nats/token from itself and agrees on {self.top1_agreement:.2%} of first choices."


def floor_of(model: str, how: str, metrics: Mapping[str, Any]) -> Floor:
    """From the metrics of the original against itself."""
    return Floor(model=model, how=how, **{name: metrics[name] for name in Floor.__dataclass_fields__ if name not in {"model", "how"}})


def keep_floor(floor: Floor, folder: Path | None = None) -> Path:
    """Write it where `known_floor` looks; returns the file. Raises ResourceError when the disk refuses."""
    path = (folder or settings.home() / "noise") / _file(floor.model, floor.to_json())
    write_json(path, floor.to_json())
    return path


def known_floor(model: str, metrics: Mapping[str, Any]) -> Floor | None:
    """The floor that was measured on the same model, text and windows as `metrics`; None when nobody did, or what lies there is not one."""
    for folder in (settings.home() / "noise", kept_folder(model)):
        try:
            floor = Floor(**read_json(folder / _file(model, metrics)))
            if math.isclose(floor.perplexity_original, float(metrics["perplexity_original"]), rel_tol=SAME):
                return floor
        except (OSError, ValueError, TypeError, KeyError):
            continue
    return None


def _file(model: str, about: Mapping[str, Any]) -> str:
    """Named by what was measured; a model's name may hold anything, so it is hashed too."""
    key = json.dumps([model, *(about.get(name) for name in ("text", "windows", "window", "tokens"))])
    return f"noise-{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
