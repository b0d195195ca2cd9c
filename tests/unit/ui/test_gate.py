"""The outermost layer of the web server, spoken to in plain ASGI."""

import logging
from typing import Any

import pytest

from salq.ui.gate import MAX_BODY, Gate
from tests.helpers import in_a_loop_of_its_own

HTTP = {"type": "http", "method": "POST", "path": "/x"}


def answer(app: Any, parts: list[bytes]) -> list[dict[str, Any]]:
    """What is sent for a request with that body."""
    sent: list[dict[str, Any]] = []
    waiting = iter([{"type": "http.request", "body": part, "more_body": True} for part in parts])

    async def receive() -> dict[str, Any]:
        return next(waiting, {"type": "http.request", "body": b"", "more_body": False})

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    in_a_loop_of_its_own(Gate(app)(HTTP, receive, send))
    return sent


async def reads_all(_: Any, receive: Any, send: Any) -> None:
    while (await receive())["more_body"]:
        continue
    await send({"type": "http.response.start", "status": 200})


def test_a_body_within_the_bound_is_read() -> None:
    assert answer(reads_all, [b"x" * 1000] * 3)[0]["status"] == 200


def test_a_body_beyond_it_is_refused_before_all_of_it_was_read() -> None:
    assert answer(reads_all, [b"x" * (MAX_BODY // 2)] * 5)[0]["status"] == 413


@pytest.mark.parametrize("error", [KeyError(7), TypeError("no"), AttributeError("x"), RecursionError()])
def test_what_nothing_answers_to_is_one_line(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    async def fails(*_: Any) -> None:
        raise error

    with caplog.at_level(logging.WARNING, "salq.page"):
        assert answer(fails, [])[0]["status"] == 400
    (line,) = caplog.messages
    assert line.startswith(f"refused POST /x: {type(error).__name__} in fails (test_gate.py:")


def test_an_answer_that_has_begun_is_not_begun_again() -> None:
    async def fails_late(_: Any, __: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        raise KeyError("late")

    assert len(answer(fails_late, [])) == 1


def test_a_bug_is_not_hidden() -> None:
    async def broken(*_: Any) -> None:
        raise RuntimeError("kaputt")

    with pytest.raises(RuntimeError):
        answer(broken, [])


def test_other_protocols_pass() -> None:
    seen = []

    async def app(scope: Any, *_: Any) -> None:
        seen.append(scope["type"])

    in_a_loop_of_its_own(Gate(app)({"type": "lifespan"}, None, None))  # type: ignore[arg-type]
    assert seen == ["lifespan"]
