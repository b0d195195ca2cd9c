"""What a recipe file declares: the published recipe, what the presets change, whom to cite and where salq deviates."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from salq.calibration.recipe import Recipe

PRESETS = ("quick", "base", "published")


@dataclass(frozen=True)
class Paper:
    """A source, by arXiv number."""

    arxiv: str
    title: str
    authors: str

    @property
    def url(self) -> str:
        """Page of the paper."""
        return f"https://arxiv.org/abs/{self.arxiv}"


@dataclass(frozen=True)
class Method:
    """A method: `published` holds the authors' settings, `presets` what quick and base change in it (by field path, see `overrides`)."""

    title: str
    summary: str
    published: Recipe
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    cites: tuple[Paper, ...] = ()
    deviations: tuple[str, ...] = ()

    @property
    def only_bits(self) -> int | None:
        """The only width that the method is defined at; None when any will do."""
        return self.published.quantizer.only_bits
