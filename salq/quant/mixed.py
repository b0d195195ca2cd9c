"""Mixed bits as a value: which matrix gets which grid, by patterns on its name. Plain values, no tensors."""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from salq.core.errors import ConfigError
from salq.quant.spec import QuantSpec, check_group_size


class SpecRule(BaseModel):
    """The grid of every matrix whose 'block.module_name' fits the pattern."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pattern: str = Field(
        min_length=1, max_length=100, description="Matrices it is for: * stands for anything in block.module_name, as in *.down_proj or 0.*"
    )
    spec: QuantSpec = Field(description="Their grid.")


def rules_of(value: Any) -> Any:
    """Rules from a command line's text, such as '*.down_proj:w4g64 0.*:w8g64'; '' is none, anything else is left to pydantic."""
    if not isinstance(value, str):
        return value
    return tuple(_rule(part) for part in value.replace(",", " ").split()) or None


def grids(spec: QuantSpec, rules: Iterable[SpecRule] | None, names: Iterable[str]) -> dict[str, QuantSpec]:
    """{name: its grid} of the matrices `names` ('block.module_name'): the first rule that fits, else `spec`."""
    rules = tuple(rules or ())
    return {name: next((rule.spec for rule in rules if fnmatchcase(name, rule.pattern)), spec) for name in names}


def check_rules(rules: Iterable[SpecRule] | None, names: Iterable[str]) -> None:
    """Raise ConfigError for a rule that fits none of a model's matrices: it was meant for something."""
    names = tuple(names)
    for rule in rules or ():
        if not any(fnmatchcase(name, rule.pattern) for name in names):
            raise ConfigError(f"Pattern {rule.pattern!r} of mixed fits no matrix of this model; their names are like {names[-1]}.")


def check_group_sizes(specs: Mapping[str, QuantSpec], shapes: Mapping[str, tuple[int, int]]) -> None:
    """Raise ShapeError for the first matrix whose own grid does not divide its inputs; specs and shapes are by the same names."""
    for spec in dict.fromkeys(specs.values()):
        check_group_size(spec, {name: shape for name, shape in shapes.items() if specs[name] == spec})


def _rule(text: str) -> SpecRule:
    pattern, colon, tag = text.rpartition(":")
    if not colon or not pattern:
        raise ValueError(f"{text!r} is not PATTERN:GRID; write for example *.down_proj:w4g64")
    try:
        return SpecRule(pattern=pattern, spec=QuantSpec.from_tag(tag))
    except ConfigError as error:
        raise ValueError(str(error)) from error
