"""The Learn tab: what quantization does, told with measured numbers of a real model; visible before any chart library is loaded."""

import gradio as gr

from salq.core.errors import SalqError
from salq.models.catalogue import CATALOGUE, DEFAULT_MODEL
from salq.runs.exploration import kept
from salq.runs.kept import KeptRun, kept_group, kept_runs
from salq.ui import lessons, words
from salq.ui.context import UiContext
from salq.ui.explore_grid import grid_sentence
from salq.ui.html import lede, note, prose, reading, section
from salq.ui.insights import bars, conditions, group_sentence, headline, number_lines


def build(ctx: UiContext) -> None:
    """Lay the tab out: an insight, what a grid of levels is, the lessons, where to go next."""
    gr.HTML(_insight(), elem_id="learn-insight")
    gr.HTML(_explanation(), elem_id="learn-what")
    lessons.build(ctx)
    gr.HTML(_where(), elem_id="learn-where")
    with gr.Row():
        explore = gr.Button("Open Explore", variant="primary", elem_id="learn-explore", scale=0, min_width=180)
        calibrate = gr.Button("Calibrate a model", elem_id="learn-calibrate", scale=0, min_width=180)
    explore.click(lambda: gr.Tabs(selected="explore"), None, ctx.tabs, queue=False, api_visibility="private", show_progress="hidden")
    calibrate.click(lambda: gr.Tabs(selected="calibrate"), None, ctx.tabs, queue=False, api_visibility="private", show_progress="hidden")


def _insight() -> str:
    """The measured headline of the default model, or what is known instead."""
    runs = _runs()
    told = headline(runs)
    if told is not None:
        return lede(*told) + bars(runs) + note(conditions(runs))
    sentence = _grid_sentence()
    if sentence:
        return lede(f"{CATALOGUE[DEFAULT_MODEL].title}, measured: {sentence}")
    return lede(words.PROMISE) + note(words.LEARN_EMPTY.format(model=CATALOGUE[DEFAULT_MODEL].title))


def _explanation() -> str:
    group = kept_group(DEFAULT_MODEL)
    picture = "" if group is None else number_lines(group) + reading(group_sentence(group))
    return section("A ruler with few marks") + prose(words.LEARN_WHAT) + picture


def _where() -> str:
    sentence = _grid_sentence() if headline(_runs()) is not None else ""
    return section("Which moves hurt") + (reading(sentence) if sentence else "") + prose(words.LEARN_NEXT)


def _runs() -> list[KeptRun]:
    try:
        return kept_runs(DEFAULT_MODEL)
    except SalqError:
        return []


def _grid_sentence() -> str:
    try:
        found = kept(DEFAULT_MODEL)
    except SalqError:
        return ""
    return "" if found is None else grid_sentence(found)
