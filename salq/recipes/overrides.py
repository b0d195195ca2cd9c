"""Reading and changing a recipe by field name: what `--set key=value`, the Advanced form and the presets share."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from salq.calibration.recipe import Recipe
from salq.core.errors import ConfigError, UnknownNameError

ALIASES = {"samples": ("data.n_samples",), "lr": ("stages.*.lr_clipping", "stages.*.lr_adapter")}
"""Short words that people try first. `lr` sets both learning rates of the blocks, and does not start to train weights."""
FIXED = ("name", "preset", "kind")
"""Fields that say what a recipe is; they are not settings."""


@dataclass(frozen=True)
class Field:
    """One setting of a recipe, enough to draw a form control for it."""

    path: str
    value: Any
    kind: Literal["integer", "number", "switch", "choice", "text"]
    help: str
    choices: tuple[Any, ...] = ()
    minimum: float | None = None
    maximum: float | None = None


def fields(recipe: Recipe) -> list[Field]:
    """Every setting of `recipe`, in reading order. Parts that the recipe does not have (no adapter, no stages) have no fields."""
    return list(_walk(recipe, ""))


def apply(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """A new recipe with `changes` made; values may be text from a command line. Raises UnknownNameError or ConfigError."""
    if not changes:
        return recipe
    paths = _settable(recipe)
    values = recipe.model_dump(mode="json")
    for key, value in changes.items():
        for path in _matching(key, paths, recipe.name):
            _put(values, path, _parsed(value))
    if values["adapter"] is not None and values["adapter"]["rank"] == 0:
        values["adapter"] = None  # rank 0 is how people write "no adapter"
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise ConfigError(sentence(error)) from error


def sentence(error: ValidationError) -> str:
    """The first problem of a pydantic error as one sentence: field, what is wrong, what was got."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"] if part not in {"lwc", "min_max", "dual_binary", "binary_mos"}) or "recipe"
    message = first["msg"].removeprefix("Value error, ")
    got = first.get("input")
    shown = f" (got {got!r})" if isinstance(got, str | int | float | bool) or got is None else ""
    return f"{where}: {message[0].lower()}{message[1:]}{shown}."


def _walk(value: BaseModel, prefix: str) -> Iterator[Field]:
    for name, info in type(value).model_fields.items():
        current, path = getattr(value, name), f"{prefix}{name}"
        if name in FIXED:
            continue
        if isinstance(current, BaseModel):
            yield from _walk(current, f"{path}.")
        elif isinstance(current, tuple):
            for number, item in enumerate(current):
                yield from _walk(item, f"{path}.{number}.")
        elif not (current is None and _holds_model(info)):
            yield _field(path, current, info)


def _field(path: str, value: Any, info: FieldInfo) -> Field:
    annotation = _required(info.annotation)
    choices = _choices(annotation)
    kind: Literal["integer", "number", "switch", "choice", "text"] = "text"
    if choices:
        kind = "choice"
    elif isinstance(value, bool):
        kind = "switch"
    elif isinstance(value, float):  # an optional number that is absent is a text: a number field would show it as 0
        kind = "number"
    elif isinstance(value, int) or path.endswith("group_size"):
        kind = "integer"
    return Field(path, value, kind, info.description or "", choices, _bound(info, "ge", "gt"), _bound(info, "le", "lt"))


def _bound(info: FieldInfo, *names: str) -> float | None:
    """The first of the named bounds that the field declares."""
    return next((getattr(item, name) for name in names for item in info.metadata if getattr(item, name, None) is not None), None)


def _required(annotation: Any) -> Any:
    """`X` of `X | None`; any other annotation as it is."""
    parts = [part for part in get_args(annotation) if part is not type(None)]
    return parts[0] if len(parts) == 1 and type(None) in get_args(annotation) else annotation


def _choices(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def _holds_model(info: FieldInfo) -> bool:
    return any(isinstance(part, type) and issubclass(part, BaseModel) for part in get_args(info.annotation))


def _settable(recipe: Recipe) -> list[str]:
    """Paths of all settings; `preset` is set by the registry alone but is part of the recipe."""
    return [item.path for item in fields(recipe)] + ["preset"]


def _matching(key: str, paths: list[str], recipe: str) -> list[str]:
    """Paths that `key` means: itself, a pattern with *, or every path that ends in the bare name."""
    patterns = [wanted.split(".") for wanted in ALIASES.get(key, (key,))]
    found = [path for path in paths if any(_fits(pattern, path.split(".")) for pattern in patterns)]
    if not found:
        raise UnknownNameError.of(f"Field of recipe {recipe!r}", key, sorted({path.rsplit(".", 1)[-1] for path in paths if path != "preset"}))
    return found


def _fits(pattern: list[str], path: list[str]) -> bool:
    if len(pattern) == 1 and len(path) > 1:
        path = path[-1:]
    return len(pattern) == len(path) and all(
        wanted in {"*", part} or (wanted.endswith("_*") and part.startswith(wanted[:-1])) for wanted, part in zip(pattern, path, strict=True)
    )


def _put(values: Any, path: str, value: Any) -> None:
    *parents, leaf = path.split(".")
    for part in parents:
        values = values[int(part)] if isinstance(values, list) else values[part]
    values[leaf] = value


def _parsed(value: Any) -> Any:
    """Text from a command line as the value it means; pydantic checks and converts the rest."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    named = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False, "none": None, "row": None, "": None}
    if text.lower() in named:
        return named[text.lower()]
    for convert in (int, float):
        try:
            return convert(text)
        except ValueError:
            continue
    return text
