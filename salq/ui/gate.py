"""The outermost layer of the web server: bodies of a bounded size, and one line in the log for a request that names what does not exist.

Plain ASGI, so that nothing has to be imported for it.
"""

import json
import logging
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

logger = logging.getLogger("salq.page")
MAX_BODY = 4_000_000
"""Bytes of a request's body; uploads have a bound of their own, which is smaller."""

REFUSED = (KeyError, IndexError, ValueError, TypeError, AttributeError, RecursionError, OverflowError)
"""What the server raises for a request that names what does not exist, or is not well-formed."""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Gate:
    """ASGI middleware."""

    def __init__(self, app: Callable[[Message, Receive, Send], Awaitable[None]], also: tuple[type[Exception], ...] = ()) -> None:
        """`app`: what the requests go to. `also`: errors of the server's own that mean a request which nothing answers to."""
        self._app = app
        self._refused: tuple[type[Exception], ...] = (*REFUSED, *also)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on; end it with a short answer when it is too large, or when nothing here answers to what it names."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        taken, has_begun = 0, False

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > MAX_BODY:
                raise _TooLarge
            return message

        async def noted(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, counted, noted)
        except _TooLarge:
            if not has_begun:
                await _answer(send, 413, f"A request may have {MAX_BODY} bytes.")
        except self._refused as error:
            logger.warning("refused %s %s: %s in %s", scope.get("method"), str(scope.get("path"))[:200], type(error).__name__, _place_of(error))
            if not has_begun:
                await _answer(send, 400, "This request names something that is not here, or is not well-formed.")


def _place_of(error: Exception) -> str:
    """Where it was raised, without anything that a visitor sent."""
    (frame,) = traceback.extract_tb(error.__traceback__, limit=-1)
    return f"{frame.name} ({Path(frame.filename).name}:{frame.lineno})"


class _TooLarge(Exception):  # noqa: N818 - a way out, not an error that anybody sees
    """The body is longer than allowed."""


async def _answer(send: Send, status: int, words: str) -> None:
    body = json.dumps({"error": words}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
