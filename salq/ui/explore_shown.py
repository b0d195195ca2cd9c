"""Charts, sentences and tables of Explore as what Gradio's components take; a figure that is shown already is not sent again."""

import hashlib
from typing import Any

import gradio as gr
from gradio.components.plot import PlotData

from salq.core.errors import SalqError, ShapeError
from salq.models.catalogue import CATALOGUE
from salq.ui import words
from salq.ui.context import Choices
from salq.ui.explore_actions import MatrixPicture, size_facts
from salq.ui.explore_charts import Chart
from salq.ui.explore_group import GroupPicture
from salq.ui.html import facts, note, reading

Updates = list[Any]


def plot_data(figure: str | None) -> PlotData | None:
    """A figure's JSON as the plot component takes it."""
    return None if figure is None else PlotData(type="plotly", plot=figure)


def plot_update(figure: str | None) -> Any:
    """The plot with this figure; hidden without one."""
    return gr.update(value=plot_data(figure), visible=figure is not None)


def digest(figure: str | None) -> str:
    """Short name of a figure's content; "" for none."""
    return "" if figure is None else hashlib.sha256(figure.encode()).hexdigest()[:16]


def unless(shown: str, figure: str | None) -> Any:
    """The plot's update, or none when the browser shows this figure already."""
    drawn = digest(figure)
    return gr.skip() if drawn and drawn == shown else plot_update(figure)


def panel_updates(shown: str, chart: Chart) -> Updates:
    """[plot, text, table] of a panel."""
    table = gr.Dataframe(value=chart.table, headers=chart.header) if chart.header else gr.Dataframe(value=[], headers=["nothing yet"])
    same = bool(chart.figure) and digest(chart.figure) == shown
    return [unless(shown, chart.figure), chart_html(chart), gr.skip() if same else table]


def chart_html(chart: Chart) -> str:
    """What is said under a chart."""
    return reading(chart.reading) + reading(chart.problem, problem=True)


def group_html(picture: GroupPicture) -> str:
    """What is said above the number line."""
    empty = not picture.line.figure and not picture.line.problem
    return reading(words.GROUP_WAITS) if empty else facts(picture.facts)


def matrix_html(picture: MatrixPicture, hint: str = "") -> str:
    """What is said above the maps."""
    return facts(picture.facts) + reading(picture.reading) + note(f"{picture.problem} {hint}".strip())


def sizes_html(choices: Choices) -> str:
    """Bits per weight and megabytes, or why this grid does not fit the model; empty for a model that is not here yet."""
    try:
        return facts(size_facts(choices))
    except ShapeError as error:
        return reading(str(error), problem=True)
    except (SalqError, KeyError):
        return ""


def not_fetched(choices: Choices) -> str:
    """How to get the model's weights, and how much that is when it is known."""
    entry = CATALOGUE.get(choices.model)
    size = f" (about {entry.memory_gb(2):.1f} GB)" if entry is not None else ""
    return words.NOT_FETCHED.format(model=choices.short_model, size=size)
