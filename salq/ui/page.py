"""The page: sidebar, five tabs, and what happens when it is opened. `app.py` and the browser tests call `launch`."""

from typing import TYPE_CHECKING, Any

import gradio as gr

from salq.core import settings
from salq.ui import calibrate, compare, explore, learn, runs_tab, words
from salq.ui.context import BITS, GROUP_SIZES, WHOLE_ROW, Sidebar, UiContext

if TYPE_CHECKING:
    from salq.runs.store import RunStore


def build_page(store: "RunStore", *, default_model: str | None = None) -> gr.Blocks:
    """The whole page over one run store. `default_model`: what the model picker shows first (a catalogue name, hub id or folder)."""
    from salq.models.catalogue import CATALOGUE, DEFAULT_MODEL
    from salq.runs.limits import Limits

    public = settings.is_public_host()
    model = default_model or DEFAULT_MODEL
    with gr.Blocks(title=words.TITLE, analytics_enabled=False, delete_cache=(3600, 86400), fill_width=True) as page:
        sidebar = _sidebar(list(CATALOGUE), model, public)
        run_id = gr.BrowserState("", storage_key="salq_run")
        block = gr.Number(0, precision=0, visible="hidden", elem_id="selected-block")
        matrix = gr.Textbox("mlp.down_proj", visible="hidden", elem_id="selected-matrix")
        with gr.Tabs(selected="learn", elem_id="tabs") as tabs:
            ctx = UiContext(store, Limits.here(), model, public, sidebar, tabs, run_id, block, matrix)
            for key, room in (
                ("learn", learn),
                ("explore", explore),
                ("calibrate", calibrate),
                ("compare", compare),
                ("runs", runs_tab),
            ):
                with gr.Tab(words.TABS[key], id=key, elem_id=f"tab-{key}"):
                    room.build(ctx)
        for hook in ctx.load_hooks:
            hook(page)
    return page


def launch(*, default_model: str | None = None, **options: Any) -> Any:
    """Build the page and serve it: 127.0.0.1:7860 (GRADIO_SERVER_PORT moves it); on a Space by Gradio's own rules."""
    from salq.runs.store import RunStore

    page = build_page(RunStore(settings.runs_dir()), default_model=default_model)
    page.queue(max_size=64, default_concurrency_limit=8)
    return page.launch(run_history=False, enable_monitoring=False, max_file_size="2mb", **options)


def _sidebar(models: list[str], model: str, public: bool) -> Sidebar:
    choices = models if model in models else [model, *models]
    with gr.Sidebar(width=300, elem_id="sidebar"):
        return Sidebar(
            model=gr.Dropdown(
                choices,
                value=model,
                label="Model",
                info=words.MODEL_INFO_PUBLIC if public else words.MODEL_INFO_LOCAL,
                allow_custom_value=not public,
                elem_id="model",
            ),
            bits=gr.Radio(list(BITS), value=3, label="Bits", info=words.BITS_INFO, elem_id="bits"),
            group_size=gr.Dropdown(
                [("whole row" if size == WHOLE_ROW else str(size), size) for size in GROUP_SIZES],
                value=64,
                label="Group size",
                info=words.GROUP_INFO,
                elem_id="group-size",
            ),
            symmetric=gr.Checkbox(False, label="Symmetric", info=words.SYMMETRIC_INFO, elem_id="symmetric"),
            device=gr.Dropdown(["auto"], value="auto", label="Device", info=words.DEVICE_INFO, elem_id="device"),
            text=gr.Dropdown(["auto"], value="auto", label="Text", info=words.TEXT_INFO, elem_id="text"),
        )
