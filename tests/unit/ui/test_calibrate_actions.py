"""Calibrate's form: the command line says what the request does, every recipe field can be set, and bad input is one sentence."""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from salq import recipes
from salq.cli.program import build_parser
from salq.core.errors import ConfigError, SalqError, ShapeError, UnknownNameError
from salq.runs.limits import LOCAL, PUBLIC
from salq.runs.store import RunStore
from salq.ui.calibrate_actions import (
    Form,
    about_recipe,
    advanced_fields,
    by_heading,
    command_of,
    plan_view,
    recipe_choices,
    request_of,
    start,
)
from salq.ui.context import Choices

CHOICES = Choices("smollm2-135m", 3, 64, False, "cpu", "bundled")
FORM = Form("sapr", "quick", 2, 7, "my run", {"adapter.rank": 4, "stages.0.epochs": 1})


def from_command(line: str) -> Any:
    """What the command line itself makes of a command."""
    from salq.cli import options

    args = build_parser().parse_args(shlex.split(line)[3:])
    recipe = recipes.get(
        args.recipe, preset=args.preset, bits=args.bits, group_size=args.group_size, symmetric=args.symmetric, overrides=options.overrides(args)
    )
    return options.calibrate_request(args, recipe, title=args.name)


@pytest.mark.parametrize(
    ("form", "choices"),
    [
        (FORM, CHOICES),
        (Form("rtn", "published", None, 0, "", {}), replace(CHOICES, bits=8, group_size=None, symmetric=True, device="auto", text="auto")),
        (Form("binary-mos", "quick", 2, 0, "", {}), CHOICES),
        (replace(FORM, title="it's; rm -rf $HOME `x`", overrides={"stages.0.regularizer.weighted": False, "stages.0.schedule": "constant"}), CHOICES),
    ],
)
def test_the_command_does_the_same_as_the_button(form: Form, choices: Choices) -> None:
    request = request_of(form, choices, LOCAL)
    same = from_command(command_of(form, choices))
    assert same.key() == request.key()
    assert same.title == request.title


def test_a_method_of_one_width_has_it_whatever_the_sidebar_says() -> None:
    widths = {name: request_of(Form(name, "quick", None, 0, "", {}), CHOICES, LOCAL).spec.bits for name in recipes.names()}
    assert widths == {name: {"db-llm": 2, "binary-mos": 1}.get(name, CHOICES.bits) for name in recipes.names()}
    assert "1 bit, whatever" in about_recipe("binary-mos")[0]


@pytest.mark.parametrize("preset", recipes.PRESETS)
@pytest.mark.parametrize("name", recipes.names())
def test_advanced_has_every_field_but_the_sidebars(name: str, preset: str) -> None:
    recipe = recipes.get(name, preset=preset)
    everything = {one.path for one in recipes.fields(recipe)}
    advanced = advanced_fields(name, preset)
    shown = [one.path for members in by_heading(advanced).values() for one in members]
    assert len(shown) == len(set(shown))
    assert set(shown) == everything - {"spec.bits", "spec.group_size", "spec.symmetric"}
    bits = recipe.spec.bits
    unchanged = request_of(Form(name, preset, None, 0, "", {one.path: one.value for one in advanced.fields}), replace(CHOICES, bits=bits), LOCAL)
    assert unchanged.recipe == recipes.get(name, preset=preset, bits=bits, group_size=64)


def test_every_recipe_is_described() -> None:
    assert [name for _, name in recipe_choices()] == recipes.names()
    for name in recipes.names():
        summary, _ = about_recipe(name)
        assert summary


@pytest.mark.parametrize(
    "values",
    [
        {"n_blocks": 2.5},
        {"n_blocks": -1},
        {"n_blocks": float("nan")},
        {"n_blocks": "many"},
        {"seed": -3},
        {"seed": 1e30},
        {"overrides": {"no_such_field": 1}},
        {"overrides": {"adapter.rank": 10**9}},
        {"overrides": {"adapter.rank": -1}},
        {"overrides": {"stages.0.epochs": "many"}},
        {"recipe": "gptq9000"},
        {"preset": "fastest"},
    ],
)
def test_bad_input_is_one_sentence(values: dict[str, Any]) -> None:
    given = {"recipe": "apiq", "preset": "quick", "n_blocks": None, "seed": 0, "title": "", "overrides": {}} | values
    with pytest.raises((ConfigError, UnknownNameError)) as caught:
        request_of(Form.of(*given.values()), CHOICES, LOCAL)
    assert "\n" not in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_an_empty_number_of_blocks_means_all() -> None:
    for empty in (None, 0, ""):
        assert Form.of("rtn", "quick", empty, 0, "", {}).n_blocks is None


def test_the_plan_of_a_catalogue_model_needs_no_download(tmp_path: Path) -> None:
    view = plan_view(Form("apiq", "quick", None, 0, "", {}), CHOICES, LOCAL, tmp_path)
    assert view.problem == ""
    names = [name for name, _, _ in view.facts]
    assert names == ["Time, about", "Memory, about", "Disk", "Result"]
    assert "bits per weight" in view.facts[3][1]


def test_the_plan_says_which_group_size_would_fit(tmp_path: Path, tiny_folder: Path) -> None:
    view = plan_view(Form("rtn", "quick", None, 0, "", {}), replace(CHOICES, model=str(tiny_folder), group_size=100), LOCAL, tmp_path)
    assert "is not a multiple of group size 100" in view.problem
    assert view.facts == []


def test_a_model_elsewhere_is_not_fetched_for_an_estimate(tmp_path: Path) -> None:
    view = plan_view(Form("rtn", "quick", None, 0, "", {}), replace(CHOICES, model="somebody/some-llama"), LOCAL, tmp_path)
    assert "Start fetches it" in view.note
    assert view.facts == []


def test_a_public_host_refuses_before_anything_is_written(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "runs")
    with pytest.raises(SalqError, match="public host"):
        start(store, Form("apiq", "published", None, 0, "", {}), CHOICES, PUBLIC, current="", public=True)
    with pytest.raises(ShapeError):
        start(store, Form("rtn", "quick", None, 0, "", {}), replace(CHOICES, group_size=100), LOCAL, current="", public=False)
    assert store.ids() == []
