"""Raw calls to every endpoint of the page, private ones included, as anybody can send them: made from the page's own description."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from gradio import routes
from gradio.state_holder import SessionState

HOSTILE: tuple[Any, ...] = (
    None, True, False, 0, -1, 3, 1e308, -1e308, 10**30, 2**63, -(2**63), 0.5, math.nan, math.inf, -math.inf,
    "", " ", "0", "-1", "1e999", "nan", "None", "null", "\x00", "\u202e", "\ud800", "%00", "%2e%2e%2f", "a" * 5000, "../" * 40 + "etc/passwd",
    "/etc/passwd", "/proc/self/environ", "~/.ssh/id_rsa",
    "file:///etc/passwd", "http://169.254.169.254/latest/meta-data", "\\\\host\\share",
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "{{7*7}}", "'; drop table runs; --",
    "$(touch hacked)", "`id`", "%s%s%n", "__import__('os')",
    "20260101-000000-abcd", "20260101-000000-abcd/../../x", "2" * 400, "auto\n",
    "self:999999999", "cuda:99999", "gpu", "smollm2-135m\x00",
    [], {}, [[]], {"": None}, [None] * 50, [["a"] * 30] * 30,
    {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}, {"value": "/etc/passwd"},
    {"url": "http://169.254.169.254/", "path": "x", "meta": {"_type": "gradio.FileData"}},
    {"__type__": "update", "value": 1}, {"block": -1, "matrix": "x"},
    {"block": math.nan, "matrix": ["mlp.down_proj"]}, {"block": 10**400, "matrix": None},
    {"headers": [], "data": [[1]]}, {"type": "plotly", "plot": "{"},
)  # fmt: skip
EVENTS: tuple[Any, ...] = (
    None, {}, [], "x", 7, {"index": [0, 0]}, {"index": [10**9, -1], "value": []}, {"index": "x"}, {"index": [{}]},
    {"block": "0", "matrix": "q_proj"},
    {"block": math.inf, "matrix": {}}, {"run": []}, {"run": "../../x"}, {"source": "selected", "number": "x"},
    {"source": ["kept"]}, {"target": 1, "_data": 2},
)  # fmt: skip

SCOPE: dict[str, Any] = {
    "type": "http", "method": "POST", "path": "/", "headers": [], "client": ("192.0.2.7", 7),
    "query_string": b"model=..%2F..%2Fx&bits=7&run=%00&block=1e999&matrix=%ff&tab=%3Cscript%3E",
}  # fmt: skip


@dataclass(frozen=True)
class Call:
    """One raw call of an endpoint."""

    fn_index: int
    data: list[Any]
    event_data: Any


def endpoints(page: gr.Blocks) -> list[int]:
    """Numbers of all endpoints that run Python."""
    return [number for number, fn in page.fns.items() if fn.fn is not None]


def usual(block: Any) -> Any:
    """What a control sends when nobody has touched it."""
    if isinstance(block, gr.BrowserState):
        return block.default_value
    value = getattr(block, "value", None)
    return value() if callable(value) else value


def random_call(
    page: gr.Blocks, generator: np.random.Generator, more: tuple[Any, ...] = (), fn_index: int | None = None, share: float | None = None
) -> Call:
    """A call in which some values are what the page sends and the others anything; now and then there are too few or too many."""
    known = endpoints(page)
    number = fn_index if fn_index is not None else known[int(generator.integers(len(known)))]
    values = (*HOSTILE, *more)
    share = float(generator.choice([0.1, 0.5, 1.0])) if share is None else share
    data = [values[int(generator.integers(len(values)))] if generator.random() < share else usual(block) for block in page.fns[number].inputs]
    if generator.random() < 0.05:  # noqa: PLR2004 - one in twenty has another length
        data = data[: int(generator.integers(len(data) + 1))] + [None] * int(generator.integers(3))
    return Call(number, data, EVENTS[int(generator.integers(len(EVENTS)))])


def calls(page: gr.Blocks, each: int, seed: int, more: tuple[Any, ...] = (), share: float | None = None) -> Iterator[Call]:
    """`each` random calls of every endpoint; `share` of their values is hostile (by default it differs from call to call)."""
    generator = np.random.default_rng([11, seed])
    for number in endpoints(page):
        for _ in range(each):
            yield random_call(page, generator, more, number, share)


async def perform(page: gr.Blocks, call: Call) -> str:
    """Make a call without a network; returns what a visitor would see of it: "" or the words of the refusal. Raises what is a bug."""
    fn, state = page.fns[call.fn_index], SessionState(page)
    event = gr.EventData(None, call.event_data)
    iterator, words = None, ""
    request = gr.Request(routes.fastapi.Request(SCOPE), username="somebody", session_hash="raw")
    for _ in range(50):
        try:
            result = await page.process_api(fn, list(call.data), state, request=request, iterator=iterator, event_data=event)
        except gr.Error as error:
            if error.print_exception:
                raise
            return str(error.message)
        iterator = result.get("iterator")
        if not result.get("is_generating"):
            break
    return words


def opened_below(folder: Path, seen: list[str]) -> Any:
    """An audit hook that notes every file below `folder` that is opened or listed."""
    prefix = str(folder)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in {"open", "os.listdir", "os.scandir"} and str(arguments[0]).startswith(prefix):
            seen.append(f"{event} {arguments[0]}")

    return hook
