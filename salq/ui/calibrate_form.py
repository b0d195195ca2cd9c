"""The left side of Calibrate: what to start. Recipe, preset, every setting of the recipe, and what the run will take."""

from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from salq.core.errors import SalqError
from salq.ui.calibrate_actions import Form, PlanView, about_recipe, advanced_fields, by_heading, command_of, plan_view, recipe_choices
from salq.ui.context import Choices, UiContext
from salq.ui.html import facts, note, reading, section
from salq.ui.listening import LATEST, QUIET

FIRST_RECIPE = "apiq"
"""Chosen when the page opens."""
PRESET_INFO = "quick: minutes on two CPU cores. base: longer and better. published: the paper's own settings, for a GPU and hours."
BLOCKS_INFO = "Only the first N, for a try; 0 is all."
SEED_INFO = "Same seed, same codes."
TITLE_INFO = "How the run is listed; empty: by what it is."
COMMAND_INFO = "The same run from a terminal."
ADVANCED = "Every setting of the recipe. Changed ones appear in the command line; bits, group size and symmetric are in the sidebar."

CLOSE_FIELDS = """(...values) => {
  for (const field of document.querySelectorAll('#calibrate-advanced .salq-fields input')) field.disabled = true;
  return values;
}"""
"""The fields of the choice before take nothing more: what is typed into them while the new ones are on their way would be lost.

A fold that was never open has no fields yet; those of one opened right after the choice are the old ones for a moment, and change nothing."""

Updates = list[Any]


@dataclass(frozen=True)
class FormParts:
    """The controls of the form."""

    recipe: gr.Radio
    about: gr.HTML
    preset: gr.Radio
    blocks: gr.Number
    seed: gr.Number
    title: gr.Textbox
    overrides: gr.State
    """{field path: value} of what the visitor changed under Advanced."""
    fields_of: gr.State
    """Which recipe's fields Advanced shows; a change draws them anew, at their defaults."""
    reset: gr.Button
    estimate: gr.HTML
    command: gr.Textbox
    start: gr.Button

    @property
    def inputs(self) -> list[Any]:
        """In the order of `Form.of`."""
        return [self.recipe, self.preset, self.blocks, self.seed, self.title, self.overrides]


def build_form(ctx: UiContext) -> FormParts:
    """Lay it out and wire it."""
    recipe = gr.Radio([], label="Recipe", elem_id="calibrate-recipe", elem_classes="salq-switch")
    about = gr.HTML("", elem_id="calibrate-about")
    preset = gr.Radio(
        ["quick", "base", "published"], value="quick", label="Preset", info=PRESET_INFO, elem_id="calibrate-preset", elem_classes="salq-switch"
    )
    with gr.Row(elem_id="calibrate-numbers"):
        blocks = gr.Number(0, label="Blocks", info=BLOCKS_INFO, elem_id="calibrate-blocks", scale=1, min_width=110)
        seed = gr.Number(0, label="Seed", info=SEED_INFO, elem_id="calibrate-seed", scale=1, min_width=110)
        title = gr.Textbox(
            "", label="Name", info=TITLE_INFO, placeholder="automatic", max_length=60, elem_id="calibrate-title", scale=1, min_width=150
        )
    overrides, fields_of = gr.State({}), gr.State({})
    estimate = gr.HTML("", elem_id="calibrate-estimate")
    begin = gr.Button("Start", variant="primary", elem_id="calibrate-start")
    command = gr.Textbox("", label="Command", info=COMMAND_INFO, lines=2, interactive=False, buttons=["copy"], elem_id="calibrate-command")
    with gr.Accordion("Advanced", open=False, elem_id="calibrate-advanced"):
        gr.HTML(note(ADVANCED))
        reset = gr.Button("Back to the preset", size="sm", elem_id="calibrate-reset")
        _render_fields(overrides, fields_of)
    form = FormParts(recipe, about, preset, blocks, seed, title, overrides, fields_of, reset, estimate, command, begin)
    _wire(ctx, form)
    return form


def _render_fields(overrides: gr.State, fields_of: gr.State) -> None:
    """A control for every field of the chosen recipe; all their values travel with every change, so none is lost."""

    @gr.render(inputs=[fields_of], triggers=[fields_of.change], show_progress="hidden", concurrency_limit=1)
    def draw(chosen: dict[str, Any]) -> None:
        if not chosen:
            return
        found = advanced_fields(chosen["recipe"], chosen["preset"])
        gr.HTML(note(f"Settings of {chosen['recipe']}, preset {chosen['preset']}."), elem_id="calibrate-settings-of")
        controls = []
        for heading, members in by_heading(found).items():
            gr.HTML(section(heading))
            with gr.Row(elem_classes="salq-fields"):
                controls += [_control(one) for one in members]
        fields = [one for members in by_heading(found).values() for one in members]

        def collect(*values: Any) -> dict[str, Any]:
            changed = zip(fields, values, strict=True)
            return {one.path: value for one, value in changed if value not in (None, "") and value != one.value}

        # Drawn twice for one choice, it is one function: a call on its way finds it. Another choice has other fields, which such a call must not set.
        key = tuple(map(str, chosen.values()))
        gr.on([control.input for control in controls], collect, controls, overrides, key=key, **LATEST, **QUIET)


def _control(one: Any) -> Any:
    """The control that fits a field; bounds are said here and enforced, with a sentence, when the recipe is made."""
    name = one.path.rsplit(".", 1)[-1]
    common = {
        "label": name,
        "info": f"{one.help} {_bounds(one.minimum, one.maximum)}".strip(),
        "elem_id": f"set-{one.path.replace('.', '-')}",
        "interactive": True,
        "min_width": 150,
    }
    if one.kind == "choice":
        return gr.Dropdown(list(one.choices), value=one.value, **common)
    if one.kind == "switch":
        return gr.Checkbox(one.value, **common)
    if one.kind in {"integer", "number"}:
        return gr.Number(one.value, **common)
    return gr.Textbox("" if one.value is None else str(one.value), **common)


def _bounds(low: float | None, high: float | None) -> str:
    if low is None and high is None:
        return ""
    if low is not None and high is not None:
        return f"{low:g} to {high:g}."
    return f"At least {low:g}." if low is not None else f"At most {high:g}."


def _wire(ctx: UiContext, form: FormParts) -> None:
    inputs = [*form.inputs, *ctx.sidebar.inputs]

    def fill() -> Updates:
        chosen = {"recipe": FIRST_RECIPE, "preset": "quick", "drawn": 0}
        return [gr.Radio(choices=recipe_choices(), value=FIRST_RECIPE), _about_html(FIRST_RECIPE), chosen]

    def redraw(recipe: str, preset: str, drawn: dict[str, Any]) -> Updates:
        return [_about_html(recipe), {}, {"recipe": recipe, "preset": preset, "drawn": drawn.get("drawn", 0) + 1}]

    def refresh(*values: Any) -> Updates:
        return _form_updates(ctx, values)

    gr.on([form.recipe.input, form.preset.input, form.reset.click], redraw, [form.recipe, form.preset, form.fields_of],
          [form.about, form.overrides, form.fields_of], js=CLOSE_FIELDS, **LATEST, **QUIET)  # fmt: skip
    own = [form.recipe, form.preset, form.blocks, form.seed, form.title]
    changed = [one.input for one in [*own, *ctx.sidebar.inputs]] + [form.overrides.change, ctx.items["calibrate"].select]
    gr.on(changed, refresh, inputs, [form.command, form.estimate], **LATEST, **QUIET)

    def on_load(opened: Any) -> None:
        filled = opened.then(fill, None, [form.recipe, form.about, form.fields_of], **QUIET)
        filled.then(refresh, inputs, [form.command, form.estimate], **QUIET)

    ctx.later_hooks.append(on_load)


def _form_updates(ctx: UiContext, values: tuple[Any, ...]) -> Updates:
    """The command line and the estimate; a problem is said in the estimate's place."""
    try:
        form, choices = Form.of(*values[:6]), Choices.of(*values[6:])
    except SalqError as error:
        return [gr.skip(), reading(str(error), problem=True)]
    return [command_of(form, choices), _plan_html(plan_view(form, choices, ctx.limits, ctx.store.root))]


def _plan_html(view: PlanView) -> str:
    return facts(view.facts) + reading(view.problem, problem=True) + note(view.note)


def _about_html(recipe: str) -> str:
    try:
        summary, deviations = about_recipe(recipe)
    except SalqError as error:
        return reading(str(error), problem=True)
    items = "".join(f"<li>{escape(one)}</li>" for one in deviations)
    fold = f"<details class='salq-fold'><summary>Where it differs from the paper</summary><ul>{items}</ul></details>" if items else ""
    return note(summary) + fold
