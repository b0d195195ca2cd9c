"""What the verdict of two runs does, without gradio: who can be compared, the sentence with its table, and the files to take away."""

import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from salq.core.errors import ConfigError
from salq.core.files import atomic_path
from salq.runs.requests import CalibrateRequest
from salq.runs.store import RunStore
from salq.runs.subjects import ORIGINAL, RTN
from salq.ui.html import number

ROWS = (
    ("perplexity", "perplexity", "perplexity_se"),
    ("KL from the original, nats/token", "kl", "kl_se"),
    ("KL, median token", "kl_median", ""),
    ("KL, 99th percentile", "kl_p99", ""),
    ("same first choice", "top1_agreement", ""),
    ("whole model, MB", "model_size_mb", ""),
    ("calibration, s", "seconds", ""),
    ("peak memory, GB", "peak_memory_gb", ""),
)


@dataclass(frozen=True)
class Verdict:
    """What the page shows: the sentence, small print, a table as HTML, and the comparison as an HTML and a JSON file."""

    sentence: str
    remarks: tuple[str, ...]
    table: str
    html: Path
    json: Path


def options_of(store: RunStore) -> list[tuple[str, str]]:
    """(label, value) of what can stand on a side: finished calibrations, newest first, their original, and rounding to nearest at their grid."""
    runs = [(f"{info.title} ({info.id})", info.id) for info in store.list() if info.status == "done" and isinstance(info.request, CalibrateRequest)]
    return [*runs, ("the original", ORIGINAL), ("rounded to nearest, same grid", RTN)]


class Verdicts:
    """Comparisons with their files, in a folder of this process that Gradio may serve from and that vanishes with it."""

    def __init__(self, store: RunStore) -> None:
        """Nothing is written yet."""
        self._store = store
        self._folder = tempfile.TemporaryDirectory(prefix="salq-comparisons-", ignore_cleanup_errors=True)

    def of(self, a: str | None, b: str | None) -> Verdict:
        """Compare two sides by value. Raises ConfigError when one is missing or the two cannot be paired, in one sentence."""
        if not a or not b:
            raise ConfigError("Two sides are needed; pick a run for A, and for B another run, the original or rounding to nearest.")
        from salq.figures.report import page
        from salq.runs.comparison import compare
        from salq.runs.verdict import document

        value = document(compare(self._store, a, b))
        files = [
            self._write(value, "html", page(value)),
            self._write(value, "json", json.dumps(value, indent=1, allow_nan=False) + "\n"),
        ]
        return Verdict(value["verdict"], tuple(value["remarks"]), table_html(value), *files)

    def _write(self, value: Mapping[str, Any], ending: str, text: str) -> Path:
        """One file per pair of sides: asking again replaces it."""
        names = [str(value[side]["run"] or ORIGINAL) for side in ("a", "b")]
        folder = Path(self._folder.name) / hashlib.sha256(" ".join(names).encode()).hexdigest()[:16]
        path = folder / f"salq-{names[0]}-against-{names[1]}.{ending}"
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
        return path


def table_html(value: Mapping[str, Any]) -> str:
    """Both sides and the difference, one number per row."""
    a, b = value["a"], value["b"]
    heads = "".join(f"<th>{escape(text)}</th>" for text in ("", f"A: {a['title']}", f"B: {b['title']}", "B minus A"))
    rows = [_row(name, key, error, value) for name, key, error in ROWS]
    where = value["conditions"]
    caption = f"{where['text']}, {where['windows']} windows of {where['window']} tokens; ± is one standard error, brackets are paired 95 % intervals."
    return (
        f'<div class="salq-scroll"><table class="salq-table"><caption>{escape(caption)}</caption><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _row(name: str, key: str, error: str, value: Mapping[str, Any]) -> str:
    cells = []
    for side in ("a", "b"):
        one = value[side]
        spread = f" ± {number(one[error])}" if error and isinstance(one.get(error), int | float) else ""
        cells.append(f"{_shown(one.get(key))}{spread}")
    cells.append(_difference(value, key))
    return f'<tr><th scope="row">{escape(name)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in cells)}</tr>'


def _difference(value: Mapping[str, Any], key: str) -> str:
    paired = (value["differences"] or {}).get({"top1_agreement": "agrees"}.get(key, key))
    if paired is not None:
        low, high = paired["interval"]
        return f"{paired['value']:+.3g} [{low:+.3g}, {high:+.3g}]"
    a, b = value["a"].get(key), value["b"].get(key)
    return f"{b - a:+.3g}" if isinstance(a, int | float) and isinstance(b, int | float) else "-"


def _shown(value: Any) -> str:
    return number(value) if isinstance(value, int | float) else "-"
