"""Links into the page, such as `?model=..&bits=..&run=..&block=..&matrix=..&group=row,group&tab=..`: read when it opens, copied by a button.

They hold ids only and survive a restart; Gradio's own deep links are not used because they would keep everything that was typed.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from salq.core.errors import SalqError
from salq.figures import METRICS
from salq.models.catalogue import CATALOGUE
from salq.runs.store import RunStore
from salq.ui.context import BITS
from salq.ui.explore_actions import n_blocks_of, selection_of
from salq.ui.explore_group import group_of
from salq.ui.explore_subject import KEPT, subjects

TABS = ("learn", "explore", "calibrate", "compare", "runs")
_HUB_ID = re.compile(r"^[\w.-]{1,96}/[\w.-]{1,96}$")

COPY_LINK = """(model, bits, selection, madeBy, minus, value, watched) => {
  const here = new URL(window.location.origin + window.location.pathname);
  const local = /^[.~/]|\\\\\\\\/.test(model);
  const group = `${selection.row || 0},${selection.group || 0}`, run = madeBy === "rounding" ? watched : madeBy;
  const against = minus === "none" ? "" : minus;
  const { block, matrix } = selection, ids = { model: local ? "" : model, bits, block, matrix, group, run, minus: against, value, tab: "explore" };
  for (const [name, value] of Object.entries(ids)) if (value !== "" && value !== null && value !== undefined) here.searchParams.set(name, value);
  const button = document.getElementById("explore-link");
  const say = (text) => { const before = button.textContent; button.textContent = text; setTimeout(() => (button.textContent = before), 1600); };
  navigator.clipboard.writeText(here.href).then(() => say("Copied"), () => say(here.href));
}"""

COPY_RUN_LINK = """(run) => {
  const button = document.getElementById("runs-link");
  const say = (text) => { const before = "Copy link"; button.textContent = text; setTimeout(() => (button.textContent = before), 1600); };
  if (!run) { say("Pick a run first"); return; }
  const here = new URL(window.location.origin + window.location.pathname);
  here.searchParams.set("run", run);
  here.searchParams.set("tab", "runs");
  navigator.clipboard.writeText(here.href).then(() => say("Copied"), () => say(here.href));
}"""


@dataclass(frozen=True)
class Link:
    """What a link asks for; None for what it does not say or says wrongly. `problem` names what was wrong."""

    model: str | None = None
    bits: int | None = None
    selection: dict[str, Any] | None = None
    spot: dict[str, int] | None = None
    """Row and number of the group, when the link chooses a matrix too."""
    run: str | None = None
    tab: str | None = None
    problem: str = ""
    made_by: str | None = None
    """Value of Explore's picker A: a calibration, when the link opens Explore."""
    minus: str | None = None
    value: str | None = None
    """Metric of the grid."""


def read_link(query: Mapping[str, str], store: RunStore, *, default_model: str, public: bool) -> Link:
    """Check a link's parts one by one: a bad part is left out and named, the good ones count."""
    wrong: list[str] = []

    def checked(name: str, good: Callable[[str], bool]) -> str | None:
        """The part when it is there and good; names it when it is there and bad."""
        value = query.get(name) or None
        if value is None or good(value):
            return value
        wrong.append(name)
        return None

    model = checked("model", lambda name: name in CATALOGUE or name == default_model or (not public and _HUB_ID.match(name) is not None))
    bits = checked("bits", lambda text: text in map(str, BITS))
    known = [value for _, value in subjects(store, model or default_model)]
    run = checked("run", lambda text: (text.startswith(KEPT) and text in known) or _kind(store, text) != "")
    selection, spot = _selection(query, n_blocks_of(model or default_model), wrong)
    minus, value = checked("minus", known.__contains__), checked("value", METRICS.__contains__)
    tab, kind = query.get("tab"), "" if run is None else _kind(store, run)
    if tab is None and (selection is not None or run is not None):
        tab = "calibrate" if selection is None and kind == "calibrate" else "explore"
    if tab is not None and tab not in TABS:
        wrong.append("tab")
        tab = None
    problem = f"This link's {', '.join(wrong)} cannot be found here; the rest of the link was followed." if wrong else ""
    made_by = run if tab == "explore" and run in known else None
    own_run = None if run is not None and run.startswith(KEPT) else run
    return Link(model, None if bits is None else int(bits), selection, spot, own_run, tab, problem, made_by, minus, value)


def _kind(store: RunStore, run: str) -> str:
    """What kind of run an id stands for; "" for none."""
    try:
        return store.get(run).kind
    except SalqError:
        return ""


def _selection(query: Mapping[str, str], n_blocks: int, wrong: list[str]) -> tuple[dict[str, Any] | None, dict[str, int] | None]:
    """(selection, spot) of a link; adds to `wrong` what cannot be."""
    selection = None
    if "block" in query or "matrix" in query:
        selection = selection_of(query.get("block", "0"), query.get("matrix", "mlp.down_proj"), n_blocks)
        if selection is None:
            wrong.append("block or matrix")
    if "group" not in query:
        return selection, None
    parts = query["group"].split(",")
    place = group_of(*parts) if len(parts) == 2 else None  # noqa: PLR2004 - row and group
    if place is None:
        wrong.append("group")
    return selection, place if selection is not None else None
