"""What reaches the page's handlers when somebody calls them raw: values of the kind that their controls send, within bounds; else one sentence.

Gradio looks at what files a value names; whether a number is a number, or an id a text, is looked at here, once for all endpoints.
"""

import copy
import logging
from collections.abc import Mapping
from typing import Any

import gradio as gr

from salq.core.errors import SalqError
from salq.ui.visitors import visiting

logger = logging.getLogger("salq.page")
MAX_TEXT = 200_000
"""Characters of one text of a call."""
MAX_ITEMS = 20_000
"""Values of one call, at any depth."""
MAX_DEPTH = 24
MAX_NUMBER = 1e15
REFUSED = "This call was refused: {why}. The page sends other values; reload it if you used it."
Scalar = str | int | float | bool


class SteadyDict(dict[int, Any]):
    """Its values and items, as they were when they were asked for.

    Gradio goes over the components of a session in the thread of a render, while other events of the session are at work; seen once, in a
    complete test run: "dictionary changed size during iteration".
    """

    def values(self) -> Any:
        """A copy of them, made at once."""
        return list(super().values())

    def items(self) -> Any:
        """A copy of them, made at once."""
        return list(super().items())


class Functions(SteadyDict):
    """A session's functions by id. One that a redraw took away can still be called, and changes nothing.

    Between the redraw on the server and in the browser, a person may use a control that is about to go; Gradio looks its function up in vain.
    """

    def __init__(self, *of: Any) -> None:
        """As a dict."""
        super().__init__(*of)
        self._gone: dict[int, Any] = {}

    def __copy__(self) -> "Functions":
        """What a session begins with: ids count on from here in every session by itself, so what is gone is its own."""
        return Functions(self)

    def __delitem__(self, key: int) -> None:
        """Take a function away; keep its inputs and outputs."""
        gone = copy.copy(self[key])
        gone.fn = lambda *_: gr.skip()
        super().__delitem__(key)
        self._gone[key] = gone

    def __missing__(self, key: int) -> Any:
        """A function that was taken away; KeyError for one that never was."""
        return self._gone[key]


class GuardedBlocks(gr.Blocks):
    """Blocks whose endpoints refuse what no control of the page sends, without a traceback, and show a SalqError as its sentence."""

    def __exit__(self, *caught: Any) -> None:
        """The page is built: every session begins with a copy of its components and functions."""
        super().__exit__(*caught)
        self.default_config.blocks = SteadyDict(self.default_config.blocks)
        self.default_config.fns = Functions(self.default_config.fns)

    async def process_api(self, block_fn: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Check the raw values of a call and remember whose it is, then go on as Gradio does."""
        event = kwargs.get("event_data")
        problem = bounds_problem(inputs) or bounds_problem(getattr(event, "_data", None))
        if problem:
            raise refusal(problem)
        if event is not None:
            event._data = {"index": None, "value": None, **(event._data if isinstance(event._data, Mapping) else {})}
        visiting(kwargs.get("request"))
        try:
            return await super().process_api(block_fn, inputs, *args, **kwargs)
        except SalqError as error:
            raise gr.Error(str(error), duration=None, print_exception=False) from error

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *args: Any, **kwargs: Any) -> Any:
        """Gradio's own checks, whose failure is a refusal; then the kind of every value."""
        try:
            processed = await super().preprocess_data(block_fn, inputs, *args, **kwargs)
        except gr.Error as error:
            raise refusal("a value is not one that its control offers") from error
        except Exception as error:
            logger.info("refused a call: %s", type(error).__name__)
            raise refusal("a value does not fit its control") from error
        for block, value in zip(block_fn.inputs, processed, strict=False):
            why = kind_problem(block, value)
            if why:
                raise refusal(why)
        return processed


def refusal(why: str) -> gr.Error:
    """The page's red note; nothing is printed."""
    return gr.Error(REFUSED.format(why=why), print_exception=False)


def bounds_problem(value: Any, depth: int = 0) -> str:
    """Why a raw value is out of bounds: too deep, too long, too many; '' when it is not."""
    left = [MAX_ITEMS]

    def look(part: Any, level: int) -> str:
        left[0] -= 1
        if left[0] < 0:
            return "it has too many values"
        if level > MAX_DEPTH:
            return "its values are nested too deeply"
        if isinstance(part, str):
            return "a text is too long" if len(part) > MAX_TEXT else ""
        if isinstance(part, Mapping):
            return next((why for item in (*part.keys(), *part.values()) if (why := look(item, level + 1))), "")
        if isinstance(part, list | tuple):
            return next((why for item in part if (why := look(item, level + 1))), "")
        return ""

    return look(value, depth)


def kind_problem(block: Any, value: Any) -> str:
    """Why a value is not of the kind that this control sends; '' when it is."""
    label = getattr(block, "label", None) or type(block).__name__
    if block.stateful:
        return ""  # kept by the server, never sent
    if isinstance(value, float | int) and not isinstance(value, bool) and not abs(value) <= MAX_NUMBER:
        return f"{label} is not a number within bounds"
    if value is None:
        return f"{label} is missing" if isinstance(block, gr.BrowserState | gr.Textbox | gr.Checkbox) else ""
    allowed = next((kinds for control, kinds in KINDS if isinstance(block, control)), None)
    if isinstance(block, gr.BrowserState):
        allowed = (type(block.default_value),)
    if isinstance(block, gr.HTML):
        allowed = (type(block.value),) if block.value is not None else None
    if allowed is not None and not isinstance(value, allowed):
        return f"{label} is a {type(value).__name__}"
    return ""


KINDS: tuple[tuple[Any, Any], ...] = (
    (gr.CheckboxGroup, list),
    (gr.Checkbox, bool),
    (gr.Number, (int, float)),
    (gr.Slider, (int, float)),
    (gr.Radio, (str, int, float, bool)),
    (gr.Dropdown, (str, int, float, bool)),
    (gr.Textbox, str),
)
