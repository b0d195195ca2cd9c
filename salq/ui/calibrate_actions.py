"""What Calibrate does with its form, without gradio: a request, a command line, an estimate, a start. Torch comes only when it must."""

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from salq.core.errors import ConfigError, SalqError
from salq.core.files import path_of, size_words
from salq.models.catalogue import CATALOGUE
from salq.runs.limits import Limits
from salq.runs.requests import CalibrateRequest, parse
from salq.runs.store import RunStore
from salq.ui.context import Choices
from salq.ui.html import duration

if TYPE_CHECKING:
    from salq.calibration.recipe import Recipe
    from salq.recipes import Field

Facts = list[tuple[str, str, str]]

SIDEBAR_FIELDS = ("spec.bits", "spec.group_size", "spec.symmetric")
"""Set in the sidebar, for all tabs."""


@dataclass(frozen=True)
class Form:
    """The tab's own controls. `overrides` are the Advanced fields that the visitor changed, by path."""

    recipe: str
    preset: str
    n_blocks: int | None
    seed: int
    title: str
    overrides: Mapping[str, Any]

    @classmethod
    def of(cls, recipe: Any, preset: Any, n_blocks: Any, seed: Any, title: Any, overrides: Any) -> "Form":
        """From raw values. Raises ConfigError for numbers that are not whole."""
        return cls(
            str(recipe or "apiq"),
            str(preset or "quick"),
            None if n_blocks in (None, "", 0) else _whole("Blocks", n_blocks),
            _whole("Seed", 0 if seed is None else seed),
            str(title or ""),
            dict(overrides or {}),
        )


def recipe_choices() -> list[tuple[str, str]]:
    """(title, name) of every recipe, simplest first."""
    from salq import recipes  # torch comes with it

    return [(recipes.describe(name).title, name) for name in recipes.names()]


def about_recipe(name: str) -> tuple[str, list[str]]:
    """One sentence with its sources, and where salq deviates from the paper. Raises UnknownNameError."""
    from salq import recipes

    method = recipes.describe(name)
    sources = "; ".join(f"{paper.authors}, arXiv {paper.arxiv}" for paper in method.cites)
    width = (
        "" if method.only_bits is None else f" Its width is {method.only_bits} bit{'s' if method.only_bits > 1 else ''}, whatever the sidebar says."
    )
    return f"{method.summary}{f' ({sources})' if sources else ''}{width}", list(method.deviations)


def bits_of(recipe: str, choices: Choices) -> int:
    """The width that a recipe has with these choices: the sidebar's, or the only one that the method is defined at. Raises UnknownNameError."""
    from salq import recipes

    return recipes.describe(recipe).only_bits or choices.bits


@dataclass(frozen=True)
class Advanced:
    """A recipe at its preset, and the fields of it that the sidebar does not have."""

    recipe: "Recipe"
    fields: "list[Field]"


def advanced_fields(recipe: str, preset: str) -> Advanced:
    """Every setting of the recipe but those of the sidebar. Raises UnknownNameError."""
    from salq import recipes

    resolved = recipes.get(recipe, preset=preset)
    return Advanced(resolved, [one for one in recipes.fields(resolved) if one.path not in SIDEBAR_FIELDS])


def heading_of(path: str, stage_names: Sequence[str]) -> str:
    """The part of the recipe that a field belongs to, in words: `stages.0.epochs` -> 'Stage 1: mixed'."""
    parts = path.split(".")
    if parts[0] == "stages":
        number = int(parts[1])
        name = stage_names[number] if number < len(stage_names) else ""
        inner = f", {parts[2]}" if len(parts) > 3 else ""
        return f"Stage {number + 1}: {name}{inner}" if name else f"Stage {number + 1}{inner}"
    if len(parts) == 1:
        return "Whole recipe"
    return {"data": "Calibration text", "saliency": "Saliency map"}.get(parts[0], parts[0].capitalize())


def by_heading(advanced: Advanced) -> "dict[str, list[Field]]":
    """The fields under the headings of their parts, both in reading order."""
    stages = [stage.name for stage in advanced.recipe.stages]
    found: dict[str, list[Field]] = {}
    for one in advanced.fields:
        found.setdefault(heading_of(one.path, stages), []).append(one)
    return found


def request_of(form: Form, choices: Choices, limits: Limits) -> CalibrateRequest:
    """What Start asks for. Raises ConfigError, UnknownNameError and the errors of `Limits.check`."""
    from salq import recipes

    recipe = recipes.get(
        form.recipe,
        preset=form.preset,
        bits=bits_of(form.recipe, choices),
        group_size=choices.group_size,
        symmetric=choices.symmetric,
        overrides=form.overrides,
    )
    values = {"model": choices.model, "device": choices.device, "seed": form.seed, "text": choices.text, "title": form.title}
    request = checked_request({**values, "kind": "calibrate", "recipe": recipe.model_dump(mode="json"), "n_blocks": form.n_blocks})
    limits.check(request)
    return request


def checked_request(values: Mapping[str, Any]) -> CalibrateRequest:
    """A calibrate request from plain values. Raises ConfigError that names the field."""
    request = parse(values)
    if not isinstance(request, CalibrateRequest):
        raise ConfigError("This is not a calibration; choose a recipe.")
    return request


def command_of(form: Form, choices: Choices) -> str:
    """The command line that does the same; what is at its default is left out."""
    group = "row" if choices.group_size is None else str(choices.group_size)
    words = ["python", "-m", "salq", "calibrate", "--model", choices.model, "--recipe", form.recipe, "--bits", str(bits_of(form.recipe, choices))]
    words += ["--group-size", group, "--preset", form.preset]
    words += ["--symmetric"] if choices.symmetric else []
    words += ["--blocks", str(form.n_blocks)] if form.n_blocks else []
    words += ["--seed", str(form.seed)] if form.seed else []
    words += ["--text", choices.text] if choices.text != "auto" else []
    words += ["--device", choices.device] if choices.device != "auto" else []
    words += ["--run", form.title.strip()] if form.title.strip() else []
    for path, value in form.overrides.items():
        words += ["--set", f"{path}={_plain(value)}"]
    return shlex.join(words)


@dataclass(frozen=True)
class PlanView:
    """What a calibration will take, before it starts. `problem` is why it cannot start as it is, or ''."""

    facts: Facts = field(default_factory=list)
    note: str = ""
    problem: str = ""


def plan_view(form: Form, choices: Choices, limits: Limits, root: Path) -> PlanView:
    """Time, memory, disk and size of the result. A model that is not on this machine is not fetched for it."""
    try:
        request = request_of(form, choices, limits)
        if not is_at_hand(choices.model):
            return PlanView(note=f"{choices.model} is not in the list: time and memory are known once its files are here. Start fetches it.")
        from salq.runs.plan import check_room, plan

        planned = plan(request)
    except SalqError as error:
        return PlanView(problem=str(error))
    expected, size = planned.estimate, planned.size
    parts = [("saliency", expected.saliency_seconds), ("calibration", expected.seconds), ("scoring", expected.evaluation_seconds)]
    shown = ", ".join(f"{name} {duration(seconds)}" for name, seconds in parts if seconds >= 1)
    facts = [
        ("Time, about", duration(expected.total_seconds), shown),
        ("Memory, about", f"{expected.memory_gb:.1f} GB", f"on {planned.choice.device}"),
        ("Disk", size_words(expected.disk_gb), "finished blocks are kept"),
        ("Result", f"{size.bits_per_weight:.2f} bits per weight", f"{size.size_mb:,.3g} MB; whole model {size.model_size_mb:,.3g} MB"),
    ]
    problem = ""
    try:
        check_room(planned, choices.model, root)
    except SalqError as error:
        problem = str(error)
    return PlanView(facts, f"Estimated from {expected.basis}.", problem)


def is_at_hand(model: str) -> bool:
    """Whether shapes are known without a download."""
    return model in CATALOGUE or path_of(model).is_dir()


def start(store: RunStore, form: Form, choices: Choices, limits: Limits, *, current: str, public: bool) -> str:
    """Check, store and start a run; returns its id. Raises SalqError with what is wrong, before anything is written."""
    request = request_of(form, choices, limits)
    if public and _is_active(store, current):
        raise ConfigError("Your calibration is still running on this shared host; wait for it or cancel it first.")
    seconds = None
    if is_at_hand(choices.model):
        from salq.runs.plan import check_room, plan

        planned = plan(request)
        check_room(planned, choices.model, store.root)
        seconds = planned.estimate.total_seconds
    from salq.runs import worker

    run_id = store.create(request)
    if seconds is not None:
        store.expect(run_id, seconds)
    worker.start(store, run_id)
    return run_id


def resume(store: RunStore, run_id: str) -> None:
    """Go on with a run that ended early. Raises SalqError."""
    from salq.runs import worker

    worker.start(store, run_id)


def _is_active(store: RunStore, run_id: str) -> bool:
    try:
        return bool(run_id) and store.get(run_id).is_active
    except SalqError:
        return False


def _plain(value: Any) -> str:
    return {True: "true", False: "false", None: "none"}.get(value, str(value)) if value is None or isinstance(value, bool) else str(value)


def _whole(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or int(value) != value:
        raise ConfigError(f"{name} is {value!r}; it must be a whole number.")
    if value < 0:
        raise ConfigError(f"{name} is {int(value)}; it must not be negative.")
    return int(value)
