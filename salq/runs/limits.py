"""What this host lets a request ask for, checked before any work: by the command line, the page, and the run itself alike. Light.

On a person's own machine only absurd numbers are refused; on a public host a visitor gets what two shared cores can give.
Memory, disk and shapes need the model's config and are checked by `work` before weights are read.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from salq.core import settings
from salq.core.errors import ConfigError, ModelError, TextError
from salq.data.names import check_source
from salq.data.text import Role
from salq.models.catalogue import CATALOGUE
from salq.runs.requests import CalibrateRequest, ExploreRequest

LARGEST = 10**15
"""No setting is that large; the comparison also refuses NaN and infinity."""
_DEVICE = re.compile(r"^(auto|cpu|cuda(:\d{1,3})?)$")
_PUBLIC_TEXT = re.compile(r"^(auto|bundled|wikitext2|c4|(self|chats):\d{1,6})$")


@dataclass(frozen=True)
class Limits:
    """Upper bounds of one host. `catalogue_only`: no hub ids and folders; `own_text`: whether files of this machine may be read."""

    max_parameters: int | None = None
    max_samples: int = 4096
    max_seq_len: int = 8192
    max_tokens: int = 4_194_304
    """Tokens of all calibration or saliency samples together."""
    max_epochs: int = 1000
    max_steps: int = 1_000_000
    max_rank: int = 1024
    max_projections: int = 16_384
    """Directions of a sliced Wasserstein term: a step holds that many numbers per token."""
    max_windows: int = 10_000
    max_window: int = 32_768
    max_evaluation_tokens: int = 4_194_304
    max_specs: int = 32
    catalogue_only: bool = False
    own_text: bool = True
    where: str = "here"

    @classmethod
    def here(cls) -> "Limits":
        """The limits of this host."""
        return PUBLIC if settings.is_public_host() else LOCAL

    def check(self, request: CalibrateRequest | ExploreRequest) -> None:
        """Raise ConfigError, ModelError or TextError, with the bound, for the first thing that is not allowed here."""
        self.check_model(request.model)
        if not _DEVICE.match(request.device):
            raise ConfigError(f"Device {request.device!r} is not known; use auto, cpu or cuda:N (for example cuda:0).")
        self.check_text(request.text)
        if isinstance(request, ExploreRequest):
            self._check_count("specs", len(request.specs), self.max_specs)
            self._check_samples("", {"n_samples": request.n_samples, "seq_len": request.seq_len})
            return
        self.check_text(request.evaluation.text, "evaluation")
        self.check_evaluation(request.evaluation.windows, request.evaluation.window)
        self._check_recipe(request.recipe_json)

    def check_model(self, name: str) -> None:
        """Raise ModelError for a model that this host does not serve."""
        entry = CATALOGUE.get(name)
        allowed = [key for key, item in CATALOGUE.items() if self.max_parameters is None or item.parameters <= self.max_parameters]
        if self.catalogue_only and entry is None:
            raise ModelError(f"Model {name!r} is not offered {self.where}; choose one of: {', '.join(allowed)}, or run salq on your own machine.")
        if self.max_parameters is not None and entry is not None and entry.parameters > self.max_parameters:
            raise ModelError(
                f"{name} has {entry.parameters / 1e6:.0f} M parameters, above the limit of {self.max_parameters / 1e6:.0f} M {self.where}; "
                f"choose one of: {', '.join(allowed)}, or run salq on your own machine."
            )

    def check_parameters(self, name: str, parameters: int) -> None:
        """Raise ModelError for a model whose size became known only with its config."""
        if self.max_parameters is not None and parameters > self.max_parameters:
            raise ModelError(f"{name} has {parameters / 1e6:.0f} M parameters, above the limit of {self.max_parameters / 1e6:.0f} M {self.where}.")

    def check_text(self, source: str, role: Role = "calibration") -> None:
        """Raise TextError for a text that a visitor of this host may not open, or that cannot serve that role."""
        if not self.own_text and not _PUBLIC_TEXT.match(source):
            raise TextError(f"Text {source!r} is not offered {self.where}; use auto, bundled, wikitext2, c4, self:N or chats:N.")
        check_source(source, role)

    def check_evaluation(self, windows: int, window: int) -> None:
        """Raise ConfigError for more evaluation text than this host scores."""
        self._check_count("windows", windows, self.max_windows)
        self._check_count("window (tokens)", window, self.max_window)
        self._check_count("evaluation tokens (windows x window)", windows * window, self.max_evaluation_tokens)

    def _check_recipe(self, recipe: Mapping[str, Any]) -> None:
        for part in ("data", "saliency", "distillation"):
            values = recipe.get(part)
            if isinstance(values, Mapping):
                self._check_samples(f"{part}.", values)
        bounds = {"epochs": self.max_epochs, "rank": self.max_rank, "steps": self.max_steps, "projections": self.max_projections}
        for path, value in _numbers(recipe, ""):
            bound = bounds.get(path.rsplit(".", 1)[-1])
            if bound is not None:
                self._check_count(path, _number(path, value), bound)

    def _check_samples(self, prefix: str, values: Mapping[str, Any]) -> None:
        n_samples, seq_len = (_number(f"{prefix}{name}", values.get(name, 0)) for name in ("n_samples", "seq_len"))
        self._check_count(f"{prefix}n_samples", n_samples, self.max_samples)
        self._check_count(f"{prefix}seq_len (tokens)", seq_len, self.max_seq_len)
        self._check_count(f"{prefix}tokens (n_samples x seq_len)", n_samples * seq_len, self.max_tokens)

    def _check_count(self, what: str, got: float, most: int) -> None:
        if got > most:
            raise ConfigError(f"{what} is {got:,}, above the limit of {most:,} {self.where}; use at most {most:,}.")


LOCAL = Limits()
PUBLIC = Limits(
    max_parameters=400_000_000,
    max_samples=64,
    max_seq_len=512,
    max_tokens=32_768,
    max_epochs=20,
    max_steps=200,
    max_rank=64,
    max_projections=1024,
    max_windows=32,
    max_window=1024,
    max_evaluation_tokens=16_384,
    max_specs=8,
    catalogue_only=True,
    own_text=False,
    where="on this public host",
)


def check(request: CalibrateRequest | ExploreRequest, limits: Limits | None = None) -> None:
    """`Limits.check` with the limits of this host unless others are given."""
    (limits or Limits.here()).check(request)


def _number(path: str, value: Any) -> float:
    """A bounded setting as a number. Raises ConfigError for anything else, which would slip past its bound and become a number later."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= LARGEST:
        raise ConfigError(f"{path} is {str(value)[:40]!r}; it must be a number.")
    return value


def _numbers(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _numbers(item, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _numbers(item, f"{path}.{number}")
    elif value is not None:
        yield path, value
