"""All methods by name, and the one function that turns a name and a few wishes into a resolved recipe."""

from collections.abc import Mapping
from typing import Any

from salq.calibration.recipe import Recipe
from salq.core.errors import UnknownNameError
from salq.recipes import apiq, apiq_lw, binary_mos, db_llm, gptq, rtn, salq, salq_full, sapr, sapr_staged, sapr_sw
from salq.recipes.method import PRESETS, Method
from salq.recipes.overrides import apply

METHODS: dict[str, Method] = {
    method.published.name: method
    for method in (
        rtn.METHOD, gptq.METHOD, apiq.METHOD, sapr.METHOD, salq.METHOD, salq_full.METHOD, apiq_lw.METHOD, sapr_staged.METHOD, sapr_sw.METHOD,
        db_llm.METHOD, binary_mos.METHOD,
    )
}  # fmt: skip


def names() -> list[str]:
    """Names of all recipes, simplest first."""
    return list(METHODS)


def describe(name: str) -> Method:
    """Title, summary, papers and deviations of a recipe. Raises UnknownNameError."""
    if name not in METHODS:
        raise UnknownNameError.of("Recipe", name, names())
    return METHODS[name]


def get(
    name: str,
    *,
    preset: str = "quick",
    bits: int | None = None,
    group_size: int | None = 64,
    symmetric: bool = False,
    overrides: Mapping[str, Any] | None = None,
) -> Recipe:
    """The recipe `name`, resolved: the published settings, changed by the preset, the grid and then by `overrides`.

    bits: None means 3, or the only width that the method is defined at.
    overrides: {field: value}, where a field is a dotted path (`stages.0.epochs`, `stages.*.epochs`) or a bare name (`epochs`, `rank`) that
    sets every field of that name. Raises UnknownNameError for a name, preset or field that does not exist, ConfigError for a bad value.
    """
    method = describe(name)
    if preset not in PRESETS:
        raise UnknownNameError.of("Preset", preset, PRESETS)
    changes = [method.presets.get(preset, {}), {"preset": preset, "spec.group_size": group_size, "spec.symmetric": symmetric}]
    if bits is not None:
        changes.append({"spec.bits": bits})
    recipe = method.published
    for change in [*changes, overrides or {}]:
        recipe = apply(recipe, change)
    return recipe
