"""What every tab receives from the page: the run store, the limits of this host, and the controls that all tabs share.

A visitor's state holds ids only (run, block, matrix); models, tensors and results stay in the run store and on disk.
"""

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import gradio as gr

from salq.core.errors import ConfigError, SalqError

if TYPE_CHECKING:
    from salq.quant.spec import QuantSpec
    from salq.runs.limits import Limits
    from salq.runs.store import RunStore

F = TypeVar("F", bound=Callable[..., Any])

BITS = (2, 3, 4, 8)
WHOLE_ROW = -1
GROUP_SIZES = (32, 64, 96, 128, WHOLE_ROW)


@dataclass(frozen=True)
class Choices:
    """The sidebar's values, in the order of `Sidebar.inputs`."""

    model: str
    bits: int
    group_size: int | None
    symmetric: bool
    device: str
    text: str

    @classmethod
    def of(cls, *values: Any) -> "Choices":
        """From the raw values of `Sidebar.inputs`. Raises ConfigError for values that the page does not offer."""
        model, bits, group_size, symmetric, device, text = values
        if bits not in BITS or group_size not in GROUP_SIZES:
            raise ConfigError(f"Bits {bits!r} with group size {group_size!r} is not offered; use bits {BITS} and group size {GROUP_SIZES}.")
        if not isinstance(model, str) or not model.strip():
            raise ConfigError("No model is chosen; pick one from the list or type a hub id such as HuggingFaceTB/SmolLM2-135M-Instruct.")
        group = None if group_size == WHOLE_ROW else int(group_size)
        return cls(model.strip(), int(bits), group, bool(symmetric), str(device or "auto"), str(text or "auto"))

    @property
    def short_model(self) -> str:
        """The model's name for people: the last part of a hub id or folder."""
        return self.model.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]

    @property
    def spec(self) -> "QuantSpec":
        """The grid of these choices."""
        from salq.quant.spec import QuantSpec  # keeps torch out of the first paint

        return QuantSpec(bits=self.bits, group_size=self.group_size, symmetric=self.symmetric)  # type: ignore[arg-type]  # `of` checked it


@dataclass(frozen=True)
class Sidebar:
    """The shared controls."""

    model: gr.Dropdown
    bits: gr.Radio
    group_size: gr.Dropdown
    symmetric: gr.Checkbox
    device: gr.Dropdown
    device_note: gr.HTML
    text: gr.Dropdown
    text_note: gr.HTML

    @property
    def inputs(self) -> list[Any]:
        """All controls, in the order that `Choices.of` expects."""
        return [self.model, self.bits, self.group_size, self.symmetric, self.device, self.text]


@dataclass(frozen=True)
class UiContext:
    """Shared by all tabs of one page."""

    store: "RunStore"
    limits: "Limits"
    default_model: str
    public: bool
    sidebar: Sidebar
    tabs: gr.Tabs
    run_id: gr.BrowserState
    """Id of the run that this visitor watches ("" for none); kept in the browser, so a reload finds the run again."""
    explore_id: gr.BrowserState
    """Id of the exploration that this visitor started ("" for none)."""
    selection: gr.State
    """{"block": 0-based index, "matrix": module_name, "asked": model whose download it asked for}: shared by every view; set by clicks, keys,
    pickers and links."""
    spot: gr.State
    """{"row": 0-based output, "group": number of the group in its row}: the selected group of that matrix; a state of its own, so that choosing
    another group draws the group and nothing else."""
    chip: gr.HTML
    """Status chip of the current run (`status.chip`); refreshed by the page's own timer, and another one with every event of an active run."""
    bridge: gr.HTML
    """Clicks on charts (`bridge.plot_bridge`): events `cell` and `point`; its value is selection and spot, which grid and maps outline."""
    items: dict[str, gr.Tab] = field(default_factory=dict)
    """The tabs by id, for `items["runs"].select(...)`."""
    load_hooks: list[Callable[[Any], None]] = field(default_factory=list)
    """Called with the event of the page's opening, after the link was followed: chain a tab's first drawing with `.then`."""
    later_hooks: list[Callable[[Any], None]] = field(default_factory=list)
    """The same, once the first chart is drawn: what imports torch, which would hold up everything else for seconds."""


@contextmanager
def errors_shown() -> Iterator[None]:
    """Turn a SalqError into the page's red note with the same one sentence; never wrap a `yield` in it."""
    try:
        yield
    except SalqError as error:
        raise gr.Error(str(error), duration=None, print_exception=False) from error


def as_gr_error(action: F) -> F:
    """Decorator of an event handler (plain function or generator): a SalqError is shown as its one sentence, anything else stays a bug."""
    if inspect.isgeneratorfunction(action):

        @functools.wraps(action)
        def stream(*args: Any, **kwargs: Any) -> Iterator[Any]:
            try:
                yield from action(*args, **kwargs)
            except SalqError as error:
                raise gr.Error(str(error), duration=None, print_exception=False) from error

        return stream  # type: ignore[return-value]

    @functools.wraps(action)
    def call(*args: Any, **kwargs: Any) -> Any:
        with errors_shown():
            return action(*args, **kwargs)

    return call  # type: ignore[return-value]
