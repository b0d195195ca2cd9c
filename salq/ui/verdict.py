"""The verdict at the foot of Runs: two sides, one sentence, the numbers behind it, and the comparison as a file."""

from typing import Any

import gradio as gr

from salq.ui.context import UiContext, as_gr_error
from salq.ui.html import note, reading, section
from salq.ui.listening import LATEST, QUIET
from salq.ui.verdict_actions import Verdicts, options_of

TITLE = "Verdict of two runs"
LEDE = "Is one really better, or would other text say otherwise? Paired over the same windows of text, with an interval."
A_INFO, B_INFO = "A finished run.", "Another run, the original, or rounding to nearest."
Updates = list[Any]


def build(ctx: UiContext, timer: gr.Timer) -> None:
    """Lay the section out and wire it. `timer`: ticks while runs are being worked on."""
    verdicts = Verdicts(ctx.store)
    first = options_of(ctx.store)
    gr.HTML(section(TITLE) + note(LEDE))
    with gr.Row(elem_classes="salq-fields", elem_id="verdict-sides"):
        a = gr.Dropdown(first, value=None, label="A", info=A_INFO, elem_id="verdict-a", scale=3, min_width=240)
        b = gr.Dropdown(first, value=None, label="B", info=B_INFO, elem_id="verdict-b", scale=3, min_width=240)
        go = gr.Button("Compare", variant="primary", elem_id="verdict-go", scale=1, min_width=120)
    told = gr.HTML("", elem_id="verdict-told")
    table = gr.HTML("", elem_id="verdict-table")
    with gr.Row(visible=False, elem_id="verdict-files") as files:
        html = gr.DownloadButton("Save as HTML", elem_id="verdict-html", scale=0, min_width=150)
        plain = gr.DownloadButton("Save as JSON", elem_id="verdict-json", scale=0, min_width=150)
    known = gr.State(first)

    @as_gr_error
    def compare(one: str | None, other: str | None) -> Updates:
        found = verdicts.of(one, other)
        words = reading(found.sentence) + "".join(note(remark) for remark in found.remarks)
        return [words, found.table, gr.Row(visible=True), gr.DownloadButton(value=found.html), gr.DownloadButton(value=found.json)]

    def refresh(listed: list[Any], one: str | None, other: str | None) -> Updates:
        now = options_of(ctx.store)
        if [tuple(item) for item in listed] == now:
            return [gr.skip()] * 3
        values = {value for _, value in now}
        return [
            gr.Dropdown(choices=now, value=one if one in values else None),
            gr.Dropdown(choices=now, value=other if other in values else None),
            now,
        ]

    go.click(compare, [a, b], [told, table, files, html, plain], **QUIET)
    gr.on([ctx.items["runs"].select, timer.tick], refresh, [known, a, b], [a, b, known], **LATEST, **QUIET)
    ctx.load_hooks.append(lambda opened: opened.then(refresh, [known, a, b], [a, b, known], **QUIET))
