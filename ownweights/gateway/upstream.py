"""Pass a request to the teacher and its answer back, byte for byte.

In: an exchange, the caller's headers. Out: the teacher's status, headers and bytes on the caller's
connection, and the decoded answer in the exchange. Invariants: body bytes are untouched both ways
(test_forward_is_byte_exact); chunks leave as they come (test_forward_streams_chunk_by_chunk); no
connection error reaches the caller but as OpenAI's error shape (test_forward_teacher_down_is_502).
Source of the headers that end here: RFC 9110 section 7.6.1.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import zlib
from collections.abc import AsyncIterator, Iterable
from typing import Any

import httpx
import msgspec

from ownweights.core.errors import CompleterGarbled
from ownweights.gateway.exchange import Exchange
from ownweights.gateway.settings import GatewaySettings, Upstream
from ownweights.teacher.asgi import Headers, HttpError, Scope, Send, send_bytes
from ownweights.teacher.sse import decode_events, event_data, split_events
from ownweights.teacher.wire import assemble, error_body, parse_completion, sse_event

MAX_ANSWER_BYTES = 64 * 2**20
MAX_TAIL_BYTES = 2**20
_HOP_BY_HOP = {
    b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization",
    b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade",
}  # fmt: skip
_OURS = (
    b"x-own-request-id", b"x-own-served-by", b"x-own-reason", b"x-own-certificate",
    b"x-own-overhead-ms",
)  # fmt: skip
_CODINGS = ("gzip", "deflate", "identity")


class TeacherDoor:
    """The way to every teacher: one HTTP client for the life of the gateway."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._timeout_s = settings.timeout_s
        self._client = httpx.AsyncClient(
            timeout=httpx.Timeout(settings.timeout_s, connect=settings.connect_timeout_s),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=256),
            follow_redirects=False,
        )

    async def close(self) -> None:
        """Let go of every connection."""
        await self._client.aclose()

    async def forward(
        self, exchange: Exchange, upstream: Upstream, scope: Scope, send: Send
    ) -> None:
        """Let the teacher answer an exchange; HttpError when it could not and nothing was sent."""
        request = self._request("POST", "/chat/completions", upstream, scope, exchange)
        asked_s = time.perf_counter()
        async with self._answer(request) as response:
            exchange.http_status = response.status_code
            if exchange.is_stream and response.is_success:
                exchange.waited_s += time.perf_counter() - asked_s
                await _send_stream(exchange, response, send)
                return
            left_s = self._timeout_s - (time.perf_counter() - asked_s)
            content = await _read(response, left_s)
        exchange.waited_s += time.perf_counter() - asked_s
        if response.is_success:
            exchange.settle(_whole_answer(response, content))
        else:
            exchange.error = "teacher_refused"
        headers = [*_response_headers(response), *exchange.headers()]
        await send_bytes(send, response.status_code, content, headers)

    async def fetch(
        self, path: str, upstream: Upstream, scope: Scope
    ) -> tuple[int, Headers, bytes]:
        """The teacher's answer to a GET."""
        request = self._request("GET", path, upstream, scope, None)
        async with self._answer(request) as response:
            content = await _read(response, self._timeout_s)
        return response.status_code, _response_headers(response), content

    def _request(
        self, method: str, path: str, upstream: Upstream, scope: Scope, exchange: Exchange | None
    ) -> httpx.Request:
        query = scope.get("query_string", b"").decode("latin-1")
        url = upstream.base_url.rstrip("/") + path + (f"?{query}" if query else "")
        wants_plain = exchange is not None and exchange.is_stream
        headers = _request_headers(scope["headers"], upstream.key(), wants_plain)
        content = None if exchange is None else _content(exchange, upstream)
        with _as_http_errors():
            return httpx.Request(method, url, headers=headers, content=content)

    @contextlib.asynccontextmanager
    async def _answer(self, request: httpx.Request) -> AsyncIterator[httpx.Response]:
        """The answer's head, its body unread; what goes wrong until then is an HttpError."""
        with _as_http_errors():
            response = await self._client.send(request, stream=True)
        try:
            yield response
        finally:
            await response.aclose()


def _content(exchange: Exchange, upstream: Upstream) -> bytes:
    """The caller's own bytes, unless the operator's settings name another model."""
    if upstream.model in ("", exchange.body.get("model")):
        return exchange.raw
    return msgspec.json.encode({**exchange.body, "model": upstream.model})


@contextlib.contextmanager
def _as_http_errors() -> Any:
    """Say what the connection to the teacher did, in an error the caller can read."""
    try:
        yield
    except (httpx.TimeoutException, TimeoutError):
        what, code = "the teacher did not answer in time", "teacher_timeout"
        raise HttpError(504, what, code=code, kind="upstream_error") from None
    except httpx.LocalProtocolError:
        what = "one of the request's headers cannot be passed on"
        raise HttpError(400, what, code="invalid_header") from None
    except httpx.RemoteProtocolError:
        what, code = "the teacher's answer broke off or is not HTTP", "teacher_garbled"
        raise HttpError(502, what, code=code, kind="upstream_error") from None
    except (httpx.HTTPError, httpx.InvalidURL, OSError):
        what, code = "the teacher cannot be reached", "teacher_unreachable"
        raise HttpError(502, what, code=code, kind="upstream_error") from None


def _request_headers(
    asked: Iterable[tuple[bytes, bytes]], key: str | None, wants_plain: bool
) -> Headers:
    """The caller's headers as the teacher gets them."""
    headers: Headers = []
    codings = "identity"
    dropped = _HOP_BY_HOP | {b"host", b"content-length", b"expect", b"accept-encoding"}
    for name, value in asked:
        if name == b"accept-encoding" and not wants_plain:
            asked_for = (coding.strip() for coding in value.decode("latin-1").split(","))
            codings = ", ".join(c for c in asked_for if c in _CODINGS) or codings
        elif name == b"authorization" and key is not None:
            continue
        elif name not in dropped and not name.startswith(b"x-own-"):
            headers.append((name, value))
    if key is not None:
        headers.append((b"authorization", b"Bearer " + key.encode()))
    return [*headers, (b"accept-encoding", codings.encode("latin-1"))]


def _response_headers(response: httpx.Response) -> Headers:
    """The teacher's headers as the caller gets them; the length is counted anew."""
    dropped = {*_HOP_BY_HOP, *_OURS, b"content-length", b"date", b"server"}
    pairs = ((name.lower(), value) for name, value in response.headers.raw)
    return [(name, value) for name, value in pairs if name not in dropped]


async def _read(response: httpx.Response, left_s: float) -> bytes:
    """The rest of an answer, within the time that is left for it."""
    parts: list[bytes] = []
    size = 0
    with _as_http_errors():
        async with asyncio.timeout(left_s):
            async for part in response.aiter_raw():
                parts.append(part)
                size += len(part)
                if size > MAX_ANSWER_BYTES:
                    what = f"the teacher's answer is longer than {MAX_ANSWER_BYTES} bytes"
                    raise HttpError(502, what, code="teacher_garbled", kind="upstream_error")
    return b"".join(parts)


def _whole_answer(response: httpx.Response, content: bytes) -> dict[str, Any]:
    """The decoded answer; HttpError 502 when a success carries no completion."""
    try:
        body = msgspec.json.decode(_decoded(response, content))
        parse_completion(body)
    except (ValueError, zlib.error, CompleterGarbled):
        what = "the teacher said 200, but its answer is not a chat completion"
        raise HttpError(502, what, code="teacher_garbled", kind="upstream_error") from None
    return body


def _decoded(response: httpx.Response, content: bytes) -> bytes:
    coding = response.headers.get("content-encoding", "identity").strip().lower()
    if coding == "gzip":
        return _inflate(content, 16 + zlib.MAX_WBITS)
    if coding == "deflate":
        return _inflate(content, zlib.MAX_WBITS)
    if coding in ("identity", ""):
        return content
    raise ValueError(f"content-encoding {coding!r} was not asked for")


def _inflate(content: bytes, wbits: int) -> bytes:
    inflater = zlib.decompressobj(wbits)
    plain = inflater.decompress(content, MAX_ANSWER_BYTES)
    if not inflater.eof:
        raise ValueError("the compressed answer is cut off or too long")
    return plain


async def _send_stream(exchange: Exchange, response: httpx.Response, send: Send) -> None:
    """Forward events as they come; an event in the making is held until it is whole."""
    headers = [*_response_headers(response), *exchange.headers()]
    await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
    whole: list[bytes] = []
    tail = b""
    try:
        with _as_http_errors():
            async for part in response.aiter_raw():
                ready, tail = split_events(tail + part)
                if len(tail) > MAX_TAIL_BYTES:
                    ready, tail = ready + tail, b""
                if ready:
                    whole.append(ready)
                    await send({"type": "http.response.body", "body": ready, "more_body": True})
    except HttpError as error:
        exchange.error = error.code
        event = sse_event(error_body(error.what, kind=error.kind, code=error.code))
        await send({"type": "http.response.body", "body": event})
    else:
        whole.append(tail)
        await send({"type": "http.response.body", "body": tail})
    finally:
        _settle_stream(exchange, b"".join(whole))


def _settle_stream(exchange: Exchange, content: bytes) -> None:
    """Keep what a stream said, whole or not."""
    events, _ = decode_events(event_data(content + b"\n\n"))
    body = assemble(events)
    if body is None and not events:
        with contextlib.suppress(ValueError):
            decoded = msgspec.json.decode(content)
            body = decoded if isinstance(decoded, dict) else None
    choices = body.get("choices") if body else None
    is_whole = bool(choices) and all(c.get("finish_reason") for c in choices or ())
    exchange.settle(body, is_whole=is_whole and exchange.error is None)
