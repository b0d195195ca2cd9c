"""What a run is asked to do, as an immutable value: enough to start the same run again. Light: reading a request imports no torch."""

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from salq.core.errors import ConfigError
from salq.core.files import last_part
from salq.quant.spec import QuantSpec, check_uniform

if TYPE_CHECKING:
    from salq.calibration.recipe import Recipe

MAX_SEED = 2**31 - 1
MAX_TITLE = 60


def clean_title(text: str) -> str:
    """`text` as a title: printable characters on one line, at most 60 of them. It is shown, never used as a path."""
    printable = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(printable.split())[:MAX_TITLE].strip()


class Evaluation(BaseModel):
    """What a finished run is measured on: `windows` consecutive windows of `window` tokens of `text`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str = Field(default="auto", min_length=1, max_length=4096)
    windows: int = Field(default=8, ge=1, le=100_000)
    window: int = Field(default=512, ge=8, le=131_072, description="Tokens per window.")


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    model: str = Field(min_length=1, max_length=4096, description="Catalogue name, hub id or local folder.")
    device: str = Field(default="auto", min_length=1, max_length=20)
    seed: int = Field(default=0, ge=0, le=MAX_SEED)
    text: str = Field(default="auto", min_length=1, max_length=4096, description="Calibration text.")
    title: str = ""

    @field_validator("title")
    @classmethod
    def _clean_title(cls, value: str) -> str:
        return clean_title(value)

    def to_json(self) -> dict[str, Any]:
        """JSON object; `parse` is its inverse."""
        return self.model_dump(mode="json", by_alias=True)

    def key(self) -> str:
        """Hash of everything that decides the result: two requests with the same key ask for the same thing under any title.

        What is absent (None) does not count, so a feature that is added later and left out does not orphan finished runs.
        """
        content = _without_none({name: value for name, value in self.to_json().items() if name != "title"})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def short_model(self) -> str:
        """The model's name for people: the last part of a hub id or folder."""
        return last_part(self.model)


def _without_none(value: Any) -> Any:
    """`value` with every None dropped from its objects, at any depth."""
    if isinstance(value, dict):
        return {key: _without_none(part) for key, part in value.items() if part is not None}
    return [_without_none(part) for part in value] if isinstance(value, list) else value


class CalibrateRequest(_Request):
    """Calibrate a model with a recipe and measure the result. `recipe` is kept as JSON and validated when it is asked for, which imports torch."""

    kind: Literal["calibrate"] = "calibrate"
    recipe_json: Any = Field(alias="recipe", description="A Recipe, or its JSON object; kept as the latter.")
    n_blocks: int | None = Field(default=None, ge=1, le=10_000, description="Calibrate only the first blocks; none means all.")
    evaluation: Evaluation = Evaluation()

    @field_validator("recipe_json", mode="before")
    @classmethod
    def _as_json(cls, value: Any) -> dict[str, Any]:
        if isinstance(value, BaseModel):
            return value.model_dump(mode="json")
        if isinstance(value, dict) and all(isinstance(value.get(part), kind) for part, kind in (("name", str), ("spec", dict))):
            QuantSpec.model_validate(value["spec"])  # lists show it, and must not fail over a damaged request
            return value
        raise ValueError("a recipe is an object with at least a name and a spec")

    @property
    def recipe(self) -> "Recipe":
        """The recipe as a value. Raises ConfigError when it is not one that this version of salq knows."""
        from salq.calibration.recipe import Recipe  # torch comes with it

        try:
            return Recipe.model_validate(self.recipe_json)
        except ValidationError as error:
            raise ConfigError(f"The recipe of this request is not valid: {sentence(error)}.") from error

    @property
    def method(self) -> str:
        """Name of the recipe."""
        return str(self.recipe_json.get("name", ""))

    @property
    def spec(self) -> QuantSpec:
        """The grid of the recipe."""
        return QuantSpec.model_validate(self.recipe_json.get("spec", {}))

    @property
    def tag(self) -> str:
        """The grid for people, such as `w2g64`; `w2g64+mixed` when some matrices have another one."""
        return f"{self.spec.tag}+mixed" if self.recipe_json.get("mixed") else self.spec.tag

    @property
    def shown_title(self) -> str:
        """The user's title, else what the run is, such as 'sapr w2g64 smollm2-135m'."""
        return self.title or f"{self.method} {self.tag} {self.short_model}"


def _is_grid(spec: QuantSpec) -> QuantSpec:
    try:
        check_uniform(spec)
    except ConfigError as error:
        raise ValueError(str(error)) from error
    return spec


class ExploreRequest(_Request):
    """Quantization error of every matrix for each of `specs`, and saliency when wanted."""

    kind: Literal["explore"] = "explore"
    specs: tuple[Annotated[QuantSpec, AfterValidator(_is_grid)], ...] = Field(default=(), max_length=64)
    n_samples: int = Field(default=24, ge=1, le=65_536)
    seq_len: int = Field(default=256, ge=8, le=8192)
    saliency: bool = True
    run: str | None = Field(default=None, pattern=r"^[0-9]{8}-[0-9]{6}-[0-9a-f]{4}$", description="A finished calibration to measure as well.")

    @property
    def shown_title(self) -> str:
        """The user's title, else what the run is."""
        return self.title or f"explore {' '.join(spec.tag for spec in self.specs) or 'saliency'} {self.short_model}"


Request = Annotated[CalibrateRequest | ExploreRequest, Field(discriminator="kind")]
_ADAPTER: TypeAdapter[CalibrateRequest | ExploreRequest] = TypeAdapter(Request)


def parse(value: Mapping[str, Any]) -> CalibrateRequest | ExploreRequest:
    """A request from JSON. Raises ConfigError, saying which field is wrong."""
    try:
        return _ADAPTER.validate_python(dict(value))
    except ValidationError as error:
        raise ConfigError(f"The request is not valid: {sentence(error)}.") from error


def sentence(error: ValidationError) -> str:
    """The first problem of a validation error in a few words: field, value, what is allowed."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "request"
    got = first.get("input")
    shown = f" (got {got!r})" if isinstance(got, str | int | float | bool) else ""
    return f"{where}: {first['msg'][:1].lower()}{first['msg'][1:]}{shown}"
