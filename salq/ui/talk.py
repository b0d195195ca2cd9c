"""A conversation and the facts of one side as HTML: everything that anybody wrote is escaped here."""

from html import escape

from salq.chat.lockstep import Side
from salq.ui.compare_actions import side_remarks, side_words
from salq.ui.html import note, reading


def talk_html(said: list[dict[str, str]], heading: str = "") -> str:
    """A conversation as text: everything is escaped, so nothing that a model or a visitor writes is ever markup.

    heading: who speaks here, where the picker above may say somebody else.
    """
    names = {"user": "You", "assistant": "Answer"}
    rows = "".join(
        f'<div class="{one["role"]}"><span class="salq-hidden">{names[one["role"]]}: </span>{escape(one["content"])}</div>' for one in said
    )
    return f'<div class="salq-log-talk" role="log" tabindex="0" aria-label="Conversation">{note(heading)}{rows}</div>'


def facts_html(side: Side, remark: str) -> str:
    """What one side costs, how it ended, and what runs it and why; a failure is the one sentence in its place."""
    if side.state == "failed":
        return reading(side.message, problem=True)
    state = '<span class="salq-wait"></span>' if side.state in {"waiting", "loading"} else ""
    remarks = " ".join(part for part in (side_remarks(side), remark) if part)
    numbers = side_words(side)
    return (
        f'<div class="salq-side-facts" role="status"><b>{escape(side.participant.title)}</b> {escape(numbers)}</div>'
        f'<p class="salq-note">{state}{escape(remarks)}</p>'
    )
