"""Run a generator of events for its result alone."""

from collections.abc import Generator
from typing import TypeVar

Result = TypeVar("Result")


def drain(events: Generator[object, None, Result]) -> Result:
    """The value that `events` returns; what it yields on the way is dropped."""
    while True:
        try:
            next(events)
        except StopIteration as done:
            result: Result = done.value
            return result
