"""Run a generator of events for its result alone."""

from collections.abc import Callable, Generator
from typing import TypeVar

Result = TypeVar("Result")


Item = TypeVar("Item")


def drain(events: Generator[Item, None, Result], watch: Callable[[Item], None] = lambda _: None) -> Result:
    """The value that `events` returns; what it yields on the way goes to `watch`."""
    while True:
        try:
            watch(next(events))
        except StopIteration as done:
            result: Result = done.value
            return result
