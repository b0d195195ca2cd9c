"""Links into the page, `?model=..&bits=..&run=..&block=..&matrix=..&tab=..`: read and checked when it opens, copied by a button.

They hold ids only and survive a restart; Gradio's own deep links are not used because they would keep everything that was typed.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from salq.core.errors import SalqError
from salq.models.catalogue import CATALOGUE
from salq.runs.store import RunStore
from salq.ui.context import BITS
from salq.ui.explore_actions import n_blocks_of, selection_of

TABS = ("learn", "explore", "calibrate", "compare", "runs")
_HUB_ID = re.compile(r"^[\w.-]{1,96}/[\w.-]{1,96}$")

COPY_LINK = """(model, bits, selection, run) => {
  const here = new URL(window.location.origin + window.location.pathname);
  const local = /^[.~/]|\\\\\\\\/.test(model);
  const ids = { model: local ? "" : model, bits, block: selection.block, matrix: selection.matrix, run, tab: "explore" };
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
    run: str | None = None
    tab: str | None = None
    problem: str = ""


def read_link(query: Mapping[str, str], store: RunStore, *, default_model: str, public: bool) -> Link:
    """Check a link's parts one by one: a bad part is left out and named, the good ones count."""
    wrong: list[str] = []
    model = query.get("model") or None
    if model is not None and model not in CATALOGUE and model != default_model and (public or not _HUB_ID.match(model)):
        wrong.append("model")
        model = None
    bits = query.get("bits")
    if bits is not None and bits not in map(str, BITS):
        wrong.append("bits")
        bits = None
    run, kind = query.get("run") or None, ""
    if run is not None:
        try:
            kind = store.get(run).kind
        except SalqError:
            wrong.append("run")
            run = None
    selection = None
    if "block" in query or "matrix" in query:
        selection = selection_of(query.get("block", "0"), query.get("matrix", "mlp.down_proj"), n_blocks_of(model or default_model))
        if selection is None:
            wrong.append("block or matrix")
    tab = query.get("tab")
    if tab is None and (selection is not None or run is not None):
        tab = "calibrate" if run is not None and selection is None and kind == "calibrate" else "explore"
    if tab is not None and tab not in TABS:
        wrong.append("tab")
        tab = None
    problem = f"This link's {', '.join(wrong)} cannot be found here; the rest of the link was followed." if wrong else ""
    return Link(model, None if bits is None else int(bits), selection, run, tab, problem)
