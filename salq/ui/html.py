"""Small pieces of HTML, built from values that are escaped here and nowhere else."""

from collections.abc import Sequence
from html import escape

from salq.core.progress import Progress


def reading(text: str, *, problem: bool = False) -> str:
    """The one sentence under a chart, announced to screen readers when it changes."""
    kind = "salq-reading salq-problem" if problem else "salq-reading"
    return f'<p class="{kind}" role="status" aria-live="polite">{escape(text)}</p>' if text else ""


def note(text: str) -> str:
    """Small print: where numbers come from, what a control does."""
    return f'<p class="salq-note">{escape(text)}</p>' if text else ""


def how_made(command: str) -> str:
    """The command that gives the numbers that are shown, folded."""
    if not command:
        return ""
    return f'<details class="salq-fold"><summary>The command that made this</summary><pre class="salq-log">{escape(command)}</pre></details>'


def csv_button(plot: str) -> str:
    """The button that exports what the chart with that elem_id has drawn; assets/ui/plots.js does it, in the browser."""
    return f'<button type="button" class="salq-csv" data-plot="{escape(plot)}">Numbers as CSV</button>'


def section(text: str) -> str:
    """A heading inside a tab."""
    return f'<h2 class="salq-section">{escape(text)}</h2>'


def facts(pairs: Sequence[tuple[str, str, str]]) -> str:
    """A row of named numbers: (name, number with unit, small print)."""
    cells = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)} <small>{escape(small)}</small></dd></div>" for name, value, small in pairs)
    return f'<dl class="salq-facts">{cells}</dl>' if pairs else ""


def progress_bar(label: str, progress: Progress) -> str:
    """What a run is doing, how far it is, and how long it will take."""
    left = f", about {duration(progress.eta)} left" if progress.eta is not None else ""
    phase = f"{progress.phase} {progress.phase_done:.0f} of {progress.phase_of} {progress.unit}" if progress.phase else "starting"
    return (
        f'<div class="salq-progress" role="status"><span>{escape(label)}</span>'
        f'<progress max="1" value="{progress.fraction:.3f}" aria-label="{escape(label)}"></progress>'
        f"<span>{progress.fraction:.0%}: {escape(phase)}{left}</span></div>"
    )


def work_bar(label: str, done: int, of: int) -> str:
    """How much of a short piece of work is done."""
    return (
        f'<div class="salq-progress" role="status"><span>{escape(label)}</span>'
        f'<progress max="{of}" value="{done}" aria-label="{escape(label)}"></progress><span>{done} of {of}</span></div>'
    )


def duration(seconds: float | None) -> str:
    """Seconds for people: `8 s`, `3 min`, `2.5 h`."""
    if not isinstance(seconds, int | float):  # None, or what a damaged file says
        return "unknown"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def lede(text: str, number: str = "") -> str:
    """The first sentence of a tab; `number`, where it occurs in the text, is set in the accent colour."""
    escaped = escape(text)
    if number:
        escaped = escaped.replace(escape(number), f"<b>{escape(number)}</b>", 1)
    return f'<p class="salq-lede">{escaped}</p>'


def prose(text: str) -> str:
    """A paragraph of explanation."""
    return f'<p class="salq-prose">{escape(text)}</p>'


def number(value: float) -> str:
    """A measured value for a sentence: four digits, thousands separated, never in powers of ten above one."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"  # noqa: PLR2004 - four digits
