"""The page: header, sidebar, five tabs, and what happens when it is opened. `app.py` and the browser tests call `launch`."""

import hmac
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.route_utils import FnIndexInferError

from salq.core import settings
from salq.runs.kept import kept_group, kept_maps
from salq.ui import calibrate, compare, explore, learn, runs_tab, words
from salq.ui.bridge import plot_bridge
from salq.ui.context import UiContext
from salq.ui.gate import Gate
from salq.ui.guard import GuardedBlocks
from salq.ui.html import reading
from salq.ui.links import TABS, read_link
from salq.ui.listening import LATEST, QUIET
from salq.ui.sidebar import build_sidebar, describe_place
from salq.ui.status import LIVELY_SECONDS, chip, seconds_to_next_look
from salq.ui.theme import CSS, MARK, theme
from salq.ui.visitors import SharedStore

if TYPE_CHECKING:
    from salq.runs.store import RunStore

FIRST_GROUP = {"row": 0, "group": 0}
ROOMS = {"learn": learn, "explore": explore, "calibrate": calibrate, "compare": compare, "runs": runs_tab}
FIRST_CHART = """() => new Promise((done) => {
  const until = performance.now() + 5000, shown = () => document.querySelector('#tab-explore-button[aria-selected=true]');
  const look = () => !shown() || document.querySelector('#explore-grid .main-svg') || performance.now() > until ? done() : setTimeout(look, 50);
  setTimeout(look, 50);
})"""
"""Over when Explore is not what is shown, when its first chart is there, or after 5 seconds."""
GRADIO_MEMORY = {"GRADIO_ANALYTICS_MAX_EVENTS": "100", "GRADIO_ANALYTICS_CACHE_FREQUENCY": "1000000000"}
"""Gradio remembers 10,000 events and summarises all of them with pandas after each one, for a monitoring page that is off here."""


def build_page(store: "RunStore", *, default_model: str | None = None) -> gr.Blocks:
    """The whole page over one run store. `default_model`: what the model picker shows first (a catalogue name, hub id or folder)."""
    from salq.models.catalogue import DEFAULT_MODEL
    from salq.runs.limits import Limits

    public = settings.is_public_host()
    model = default_model or DEFAULT_MODEL
    first = first_selection(model)
    if public:
        store = SharedStore(store.root)
    with GuardedBlocks(title=words.TITLE, analytics_enabled=False, delete_cache=(3600, 86400), fill_width=True) as page:
        sidebar = build_sidebar(model, Limits.here())
        with gr.Row(elem_id="header"):
            gr.HTML(_brand(), elem_id="brand")
            status = gr.HTML(chip(store), elem_id="status-chip")
        notice = gr.HTML("", elem_id="link-notice")
        run_id = gr.BrowserState("", storage_key="salq_run")
        explore_id = gr.BrowserState("", storage_key="salq_explore")
        selection, spot = gr.State(first[0]), gr.State(first[1])
        bridge = plot_bridge({**first[0], **first[1]})
        with gr.Tabs(selected="learn", elem_id="tabs", overflow_behavior="wrap") as tabs:
            ctx = UiContext(store, Limits.here(), model, public, sidebar, tabs, run_id, explore_id, selection, spot, status, bridge)
            for key in TABS:
                with gr.Tab(words.TABS[key], id=key, elem_id=f"tab-{key}") as item:
                    ctx.items[key] = item
                    ROOMS[key].build(ctx)
        _wire(page, ctx, notice)
    return page


def first_selection(model: str) -> tuple[dict[str, Any], dict[str, int]]:
    """(selection, spot): the matrix and the group that the repository keeps, so that the first paint shows them; else the first block's last one."""
    kept = kept_maps(model)
    if kept is None:
        return {"block": 0, "matrix": "mlp.down_proj"}, FIRST_GROUP
    group = kept_group(model)
    spot = FIRST_GROUP if group is None else {"row": group.row, "group": group.start // len(group.weights)}
    return {"block": kept.block, "matrix": kept.matrix}, spot


def _wire(page: gr.Blocks, ctx: UiContext, notice: gr.HTML) -> None:
    """Opening the page: follow the link, let each tab draw, then say where work happens; and keep the chip true."""
    side = ctx.sidebar

    def open_page(request: gr.Request, run: str) -> list[Any]:
        link = read_link(dict(request.query_params), ctx.store, default_model=ctx.default_model, public=ctx.public)
        return [
            link.model or gr.skip(),
            link.bits or gr.skip(),
            link.selection or gr.skip(),
            (link.spot or FIRST_GROUP) if link.selection else gr.skip(),
            link.run or gr.skip(),
            gr.Tabs(selected=link.tab) if link.tab else gr.skip(),
            reading(link.problem, problem=True),
            chip(ctx.store, link.run or run),
        ]

    def place(device: str | None, text: str | None) -> list[Any]:
        return describe_place(str(device or "auto"), str(text or "auto"), ctx.limits)

    opened = page.load(open_page, [ctx.run_id], [side.model, side.bits, ctx.selection, ctx.spot, ctx.run_id, ctx.tabs, notice, ctx.chip], **QUIET)
    for hook in ctx.load_hooks:
        hook(opened)
    described = [side.device, side.device_note, side.text, side.text_note]
    settled = opened.then(None, js=FIRST_CHART)
    for hook in ctx.later_hooks:
        hook(settled)
    settled.then(place, [side.device, side.text], described, **QUIET)
    gr.on([side.device.input, side.text.input], place, [side.device, side.text], described, **LATEST, **QUIET)
    timer = gr.Timer(LIVELY_SECONDS)

    def look(seconds: float, *run_ids: str) -> list[Any]:
        wanted = seconds_to_next_look(ctx.store, *run_ids)
        return [chip(ctx.store, *run_ids), gr.Timer(wanted) if wanted != seconds else gr.skip()]

    timer.tick(look, [timer, ctx.run_id, ctx.explore_id], [ctx.chip, timer], **QUIET)


def launch(*, default_model: str | None = None, **options: Any) -> Any:
    """Build the page and serve it on 127.0.0.1:7860 (GRADIO_SERVER_PORT moves it), or by Gradio's own rules on a Space."""
    from salq.runs.store import RunStore

    for name, value in GRADIO_MEMORY.items():
        os.environ.setdefault(name, value)
    page = build_page(RunStore(settings.runs_dir()), default_model=default_model)
    page.queue(max_size=64, default_concurrency_limit=8)
    public = settings.is_public_host()
    secret = settings.password()
    return page.launch(
        auth=None if secret is None else _knows(secret),
        auth_message=None if secret is None else words.PASSWORD,
        theme=theme(),
        css_paths=[CSS],
        favicon_path=MARK,
        head=_early_plotly(),
        run_history=False,
        enable_monitoring=False,
        show_error=False,
        strict_cors=True,
        max_file_size="2mb",
        footer_links=["api", "gradio", "settings"],
        blocked_paths=[str(settings.home())],
        app_kwargs={"middleware": [(Gate, ((FnIndexInferError,),), {})]},
        **({} if public else {"share": False}),
        **options,
    )


def _early_plotly() -> str:
    """Has the browser fetch plotly (4.6 MB, Gradio's own copy) while it lays out the page, and not once the first chart asks for it."""
    assets = Path(gr.__file__).parent / "templates" / "frontend" / "assets"
    return "".join(f'<link rel="modulepreload" fetchpriority="low" href="assets/{path.name}">' for path in assets.glob("PlotlyPlot-*.js"))


def _knows(secret: str) -> Callable[[str, str], bool]:
    """Whether somebody may open the page: any name, and the password of this server."""

    def allowed(_name: str, said: str) -> bool:
        return hmac.compare_digest(said.encode(), secret.encode())

    return allowed


def _brand() -> str:
    mark = MARK.read_text(encoding="utf-8")
    return f'<div class="salq-brand">{mark}<div><h1 class="salq-name">salq</h1><p>{words.PROMISE}</p></div></div>'
