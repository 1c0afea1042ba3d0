"""The little of HTTP that our servers share: read a body, answer JSON, answer an error.

In: ASGI messages. Out: ASGI messages. Invariants: every error has OpenAI's shape
(test_send_error_has_openai_shape); a body over the limit is refused before it is held whole
(test_read_body_over_limit_is_refused).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

import msgspec

from ownweights.core.errors import OwnError
from ownweights.teacher.wire import error_body

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

JSON_TYPE = (b"content-type", b"application/json")
SSE_HEADERS: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
]


DROPPED_PER_LIMIT = 4  # how much of a body over the limit is read and dropped


class HttpError(OwnError):
    """An answer with an error `status`, to be sent in OpenAI's shape."""

    def __init__(
        self,
        status: int,
        what: str,
        *,
        code: str,
        kind: str = "invalid_request_error",
        param: str | None = None,
        headers: Headers | None = None,
    ) -> None:
        super().__init__(what)
        self.status, self.code, self.kind, self.param = status, code, kind, param
        self.headers = headers or []

    @property
    def body(self) -> dict[str, Any]:
        return error_body(self.what, kind=self.kind, code=self.code, param=self.param)


class ClientGone(Exception):
    """The caller closed the connection before its request was read."""


def check_method(scope: Scope, wanted: str) -> None:
    """HttpError 405 unless the request has the method that its path takes."""
    if scope["method"] != wanted:
        what = f"{scope['path']} takes {wanted}"
        allow = [(b"allow", wanted.encode())]
        raise HttpError(405, what, code="method_not_allowed", headers=allow)


async def read_body(receive: Receive, max_bytes: int) -> bytes:
    """The whole request body; HttpError 413 when it is longer than `max_bytes`.

    What comes after the limit is read and dropped for a while, because a client that is still
    sending would not see the answer.
    """
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        size += len(message.get("body", b""))
        if size <= max_bytes:
            parts.append(message.get("body", b""))
        if not message.get("more_body", False) or size > DROPPED_PER_LIMIT * max_bytes:
            break
    if size > max_bytes:
        what = f"the request body is longer than {max_bytes} bytes"
        raise HttpError(413, what, code="request_too_large")
    return b"".join(parts)


def decode_json(body: bytes) -> dict[str, Any]:
    """The JSON object in a request body; HttpError 400 when there is none."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        what = f"the request body is not valid JSON in UTF-8: {error}"
        raise HttpError(400, what, code="invalid_json") from None
    if not isinstance(value, dict):
        what = f"the request body must be a JSON object, got {type(value).__name__}"
        raise HttpError(400, what, code="invalid_json")
    return value


async def send_json(send: Send, status: int, body: Any, headers: Iterable[Any] = ()) -> None:
    """A whole JSON answer."""
    await send_bytes(send, status, msgspec.json.encode(body), [JSON_TYPE, *headers])


async def send_bytes(send: Send, status: int, body: bytes, headers: Headers) -> None:
    """A whole answer; its length is added."""
    size = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, size]})
    await send({"type": "http.response.body", "body": body})


async def send_error(send: Send, error: HttpError, headers: Iterable[Any] = ()) -> None:
    """An error answer in OpenAI's shape."""
    await send_json(send, error.status, error.body, [*error.headers, *headers])


def header(scope: Scope, name: bytes) -> str | None:
    """One request header as text, or None; the last one counts."""
    found = [value for key, value in scope["headers"] if key == name]
    return found[-1].decode("latin-1") if found else None


async def run_lifespan(
    receive: Receive,
    send: Send,
    start: Callable[[], Awaitable[None]],
    stop: Callable[[], Awaitable[None]],
) -> None:
    """Answer the server's start-up and shutdown messages with our own steps."""
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            try:
                await start()
            except OwnError as error:
                await send({"type": "lifespan.startup.failed", "message": str(error)})
                raise
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await stop()
            await send({"type": "lifespan.shutdown.complete"})
            return
