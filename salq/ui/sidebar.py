"""The sidebar: which model, which grid, where work happens and on which text, with the reason for the device and the text in use."""

import threading
from typing import Any

import gradio as gr

from salq.core.errors import SalqError
from salq.models.catalogue import CATALOGUE
from salq.runs.limits import Limits
from salq.ui import words
from salq.ui.context import BITS, GROUP_SIZES, WHOLE_ROW, Sidebar
from salq.ui.html import note


def build_sidebar(model: str, limits: Limits) -> Sidebar:
    """Lay the sidebar out. Devices and texts are filled in after the first paint: finding them imports torch and asks the hub."""
    with gr.Sidebar(width=310, elem_id="sidebar"):
        gr.HTML(f'<p class="salq-side">{words.WORKPLACE}</p>')
        return Sidebar(
            model=gr.Dropdown(
                model_choices(model, limits),
                value=model,
                label="Model",
                info=words.MODEL_INFO_PUBLIC if limits.catalogue_only else words.MODEL_INFO_LOCAL,
                allow_custom_value=not limits.catalogue_only,
                elem_id="model",
            ),
            bits=gr.Radio(list(BITS), value=3, label="Bits", info=words.BITS_INFO, elem_id="bits", elem_classes="salq-switch"),
            group_size=gr.Dropdown(
                [("whole row" if size == WHOLE_ROW else str(size), size) for size in GROUP_SIZES],
                value=64,
                label="Group size",
                info=words.GROUP_INFO,
                elem_id="group-size",
            ),
            symmetric=gr.Checkbox(False, label="Symmetric", info=words.SYMMETRIC_INFO, elem_id="symmetric"),
            device=gr.Dropdown(["auto"], value="auto", label="Device", info=words.DEVICE_INFO, elem_id="device"),
            device_note=gr.HTML(note(words.DEVICE_WAITS), elem_id="device-note"),
            text=gr.Dropdown(["auto"], value="auto", label="Text", info=words.TEXT_INFO, elem_id="text", allow_custom_value=limits.own_text),
            text_note=gr.HTML(note(words.TEXT_WAITS), elem_id="text-note"),
        )


def model_choices(model: str, limits: Limits) -> list[tuple[str, str]]:
    """(label, value) of the catalogue, with size and whether a token is needed; the page's own default first when it is not in it."""
    allowed = [entry for entry in CATALOGUE.values() if limits.max_parameters is None or entry.parameters <= limits.max_parameters]
    listed = [(f"{entry.title}{', gated' if entry.gated else ''}", entry.key) for entry in allowed]
    return listed if model in CATALOGUE else [(model.rstrip("/").rsplit("/", 1)[-1], model), *listed]


def describe_place(device: str, text: str, limits: Limits) -> list[Any]:
    """Choices of the device and text pickers, and one sentence each about what is in use."""
    from salq.core.device import available_devices, choose_device
    from salq.data.names import text_sources

    devices = [(label, value) for value, label in available_devices()]
    try:
        why = choose_device(device).reason
    except SalqError as error:
        why = str(error)
    texts = [(label, value) for value, label in text_sources()]
    warm_up()
    return [gr.Dropdown(choices=devices), note(f"{why[:1].upper()}{why[1:]}."), gr.Dropdown(choices=texts), note(text_in_use(text, limits))]


def text_in_use(text: str, limits: Limits) -> str:
    """Which text the choice stands for right now, or why it cannot be used."""
    from salq.core.network import hub_answers

    try:
        limits.check_text(text)
    except SalqError as error:
        return str(error)
    if text == "auto":
        return "In use: WikiText-2 from the hub." if hub_answers() else "In use: the bundled texts, because the hub does not answer here."
    return f"In use: {text}."


_warm = threading.Event()


def warm_up() -> None:
    """Import what reading a group of weights needs in the background, once, so that the first click does not wait for it."""
    if not _warm.is_set():
        _warm.set()
        threading.Thread(target=_import_heavy, name="warm-up", daemon=True).start()


def _import_heavy() -> None:
    import salq.evaluation.group_view
    import salq.models.llama  # noqa: F401 - for its effect
