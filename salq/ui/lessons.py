"""The seven lessons on the Learn tab: their words as HTML, and the bridge that hands the browser real weights when it asks for them."""

import re
from html import escape
from typing import Any

import gradio as gr

from salq.core.errors import ModelError, SalqError
from salq.core.settings import ASSETS
from salq.lessons import words
from salq.lessons.allocation import WIDTHS
from salq.lessons.facts import facts, measured
from salq.lessons.material import Budget, Material, kept_material
from salq.lessons.reader import Asked, Reader
from salq.lessons.words import LESSONS, Lesson
from salq.models.catalogue import DEFAULT_MODEL
from salq.models.shapes import linear_shapes
from salq.runs.exploration import Exploration, explorations, saliency_key_of
from salq.ui.context import UiContext
from salq.ui.explore_actions import is_here, known_config
from salq.ui.explore_subject import run_of, subjects
from salq.ui.listening import EVERY, QUIET

GROUP = 64
"""Group size of the lessons (`lessons.matrix.GROUP`, which torch would come with)."""

SCRIPTS = ASSETS / "ui" / "lessons"

BRIDGE = """
let lessons = null, asked = 0; // an answer equal to the last one would not be seen, so each carries its number
const root = () => document.querySelector("#learn-lessons .salq-lessons"), base = (window.gradio_config && window.gradio_config.root) || "";
const wait = (found) => (root() ? found() : setTimeout(() => wait(found), 50));
import(`${base}/gradio_api/file=${props.scripts}/main.js`).then((module) => wait(() => {
  lessons = module.start(root(), (source) => trigger("wanted", { source, number: (asked += 1) }));
}));
watch("value", () => lessons && lessons.receive(props.value));
"""
"""The scripts are ES modules beside each other; the page loads them when the tab is drawn, after its first paint."""


def build(ctx: UiContext) -> None:
    """All lessons in one column, then the bridge."""
    gr.set_static_paths([SCRIPTS])
    gr.HTML(lessons_html(facts(DEFAULT_MODEL)), elem_id="learn-lessons")
    bridge = gr.HTML(
        {}, html_template="<span></span>", js_on_load=BRIDGE, elem_id="learn-bridge", elem_classes="salq-bridge", scripts=SCRIPTS.as_posix()
    )

    reader = Reader()

    def hand_out(event: gr.EventData, selection: dict[str, Any], spot: dict[str, int], model: str) -> dict[str, Any]:
        return material_for(getattr(event, "source", None), ctx, reader, {**selection, **spot}, str(model)) | {"number": getattr(event, "number", 0)}

    bridge.wanted(hand_out, [ctx.selection, ctx.spot, ctx.sidebar.model], bridge, **EVERY, **(QUIET | {"concurrency_limit": 2}))


def material_for(source: Any, ctx: UiContext, reader: Reader, selection: dict[str, Any], model: str) -> dict[str, Any]:
    """{"source", "material", "told"}: what a lesson draws and what is said of it; `material` is None, and `told` says why, without it."""
    try:
        material = kept_material(DEFAULT_MODEL) if source == "kept" else _selected(ctx, reader, selection, model)
    except SalqError as error:
        return {"source": source, "material": None, "told": str(error)}
    if material is None:
        return {"source": source, "material": None, "told": words.NOTHING_KEPT}
    told = words.KEPT_NOTE if source == "kept" else words.SELECTED_NOTE
    shown = {"title": material.title, "block": material.block, "matrix": material.matrix, "note": material.note}
    return {"source": source, "material": material.model_dump(mode="json"), "told": told.format(**shown).strip()}


def _selected(ctx: UiContext, reader: Reader, selection: dict[str, Any], model: str) -> Material:
    """The selected matrix, when its model is on this machine. Raises ModelError with what to do when it is not."""
    ctx.limits.check_model(model)
    if not is_here(model):
        raise ModelError(f"The weights of {model} are not on this machine yet; open one of its matrices in Explore to fetch them.")
    known = explorations(ctx.store, model)
    runs = (run_of(ctx.store, model, value) for _, value in subjects(ctx.store, model))
    run = next((info for info in runs if info is not None and info.metrics.get("recipe") != "rtn"), None)
    asked = Asked(
        root=str(ctx.store.root), model=model, block=int(selection["block"]), matrix=str(selection["matrix"]), row=int(selection.get("row", 0)),
        group=int(selection.get("group", 0)), key=saliency_key_of(known), run=None if run is None else run.id,
        title="" if run is None else run.title,
    )  # fmt: skip
    return reader.material(asked).model_copy(update={"budget": _budget_of(known)})


def _budget_of(known: list[Exploration]) -> Budget | None:
    """The costs of the newest exploration that measured all widths in the lessons' groups; None without one."""
    tags = {bits: f"w{bits}g{GROUP}" for bits in WIDTHS}
    found = next((one for one in known if all(one.cells("weighted_error", tag) for tag in tags.values())), None)
    config = None if found is None else known_config(found.model)
    if found is None or config is None:
        return None
    shapes = linear_shapes(config, n_blocks=1)
    weights = tuple(shapes[f"0.{name}"][0] * shapes[f"0.{name}"][1] for name in found.linears)
    cost = {str(bits): tuple(tuple(value or 0.0 for value in row) for row in found.cells("weighted_error", tag) or []) for bits, tag in tags.items()}
    return Budget(group_size=GROUP, linears=tuple(found.linears), weights=weights, cost=cost)


def lessons_html(known: dict[str, str]) -> str:
    """The tour's bar and all lessons; readable without the scripts."""
    sections = "".join(lesson_html(lesson, number, known) for number, lesson in enumerate(LESSONS, 1))
    return (
        f'<div class="salq-lessons"><h2 class="salq-section">{escape(words.TITLE)}</h2><p class="salq-prose">{escape(words.INTRO)}</p>'
        f'<div class="salq-tour" role="region" aria-label="Guided tour" data-offer="{escape(words.OFFER)}">'
        f'<p class="task" role="status" aria-live="polite">{escape(words.OFFER)}</p>'
        f'<button type="button" class="start">{escape(words.TOUR)}</button>'
        f'<button type="button" class="leave" hidden>{escape(words.LEAVE)}</button></div>{sections}</div>'
    )


def lesson_html(lesson: Lesson, number: int, known: dict[str, str]) -> str:
    """One lesson: words, question, room for the widget, formula, reveal."""
    told = "".join(f"<p>{escape(sentence)}</p>" for sentence in measured(lesson, known))
    options = "".join(f'<button type="button" aria-pressed="false">{escape(option)}</button>' for option in lesson.options)
    sources = "".join(
        f'<button type="button" data-source="{key}" aria-pressed="{"true" if key == "toy" else "false"}">{escape(name)}</button>'
        for key, name in words.SOURCES.items()
    )
    title = f"lesson-{lesson.key}-title"
    return (
        f'<section class="lesson" data-lesson="{lesson.key}" data-task="{escape(lesson.task)}" aria-labelledby="{title}">'
        f'<p class="why">{escape(lesson.why)}</p><h3 id="{title}"><span class="count">{number}</span>{escape(lesson.title)}</h3>'
        f'<p class="lede">{escape(lesson.lede)}</p>'
        f'<div class="source" role="group" aria-label="What is drawn">{sources}<span class="note" role="status"></span></div>'
        f'<div class="stage"><div class="controls"></div><p class="look">{escape(lesson.look)}</p><div class="figure"></div></div>'
        f'<p class="live" role="status" aria-live="polite"></p>'
        f'<div class="formula"><p class="law">{_law(lesson.law)}</p><p>{_slots(lesson.live)}</p></div>'
        f'<div class="question" data-answer="{lesson.answer}"><p class="ask">{escape(_asked(lesson))}</p>'
        f'<div class="options">{options}</div><p class="verdict" role="status"></p></div>'
        f'<div class="reveal" hidden><p>{escape(lesson.reveal)}</p>{told}</div></section>'
    )


def _asked(lesson: Lesson) -> str:
    """The question, or a sentence that the options end."""
    return lesson.ask if lesson.ask.endswith("?") else f"{lesson.ask} …"


def _law(text: str) -> str:
    """A formula with its power as one."""
    return escape(text).replace("2^bits", "2<sup>bits</sup>").replace("     ", "<br>")


def _slots(text: str) -> str:
    """`{name}` becomes the place that the browser fills."""
    return re.sub(r"\{(\w+)\}", r'<b data-v="\1"></b>', escape(text))
