"""The explore tab."""

import gradio as gr

from salq.ui.context import UiContext


def build(ctx: UiContext) -> None:
    """Lay the tab out and wire it."""
    gr.Markdown(ctx.default_model)
