"""Pass a request to the teacher and its answer back, byte for byte.

In: an exchange, the caller's headers. Out: the teacher's status, headers and bytes on the caller's
connection, and the decoded answer in the exchange. Invariants: body bytes are untouched both ways
(test_forward_is_byte_exact); an answer that is not streamed is whole within the time-out
(test_forward_slow_teacher_is_504); no connection error reaches the caller but as OpenAI's error
shape (test_forward_teacher_down_is_502).
Source of the headers that end here: RFC 9110 section 7.6.1.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable

import httpx
import msgspec

from ownweights.core.chat import Completion
from ownweights.gateway.answer import as_http_errors, decoded, read_whole, whole_answer
from ownweights.gateway.exchange import Exchange
from ownweights.gateway.settings import GatewaySettings, Upstream
from ownweights.gateway.stream import forward_stream
from ownweights.teacher.asgi import Headers, Scope, Send, send_bytes
from ownweights.teacher.wire import parse_completion

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
        exchange.upstream = upstream.name
        content = _content(exchange, upstream)
        request = self._request(upstream, scope, content=content, wants_plain=exchange.is_stream)
        asked_s = time.perf_counter()

        async def begin() -> None:
            exchange.waited_s += time.perf_counter() - asked_s
            headers = [*_response_headers(response), *exchange.headers()]
            status = response.status_code
            await send({"type": "http.response.start", "status": status, "headers": headers})

        async with self._answer(request) as response:
            exchange.http_status = response.status_code
            if exchange.is_stream and response.is_success:
                await forward_stream(exchange, response, begin, send, timeout_s=self._timeout_s)
                return
            left_s = self._timeout_s - (time.perf_counter() - asked_s)
            content = await read_whole(response, left_s)
        exchange.waited_s += time.perf_counter() - asked_s
        if response.is_success:
            exchange.settle(whole_answer(decoded(response, content)))
        else:
            exchange.error = "teacher_refused"
        headers = [*_response_headers(response), *exchange.headers()]
        await send_bytes(send, response.status_code, content, headers)

    async def fetch(
        self, path: str, upstream: Upstream, scope: Scope
    ) -> tuple[int, Headers, bytes]:
        """The teacher's answer to a GET."""
        request = self._request(upstream, scope, path=path)
        asked_s = time.perf_counter()
        async with self._answer(request) as response:
            left_s = self._timeout_s - (time.perf_counter() - asked_s)
            content = await read_whole(response, left_s)
        return response.status_code, _response_headers(response), content

    async def ask(self, exchange: Exchange, upstream: Upstream, scope: Scope) -> Completion | None:
        """The teacher's answer to a request that is over; None or HttpError where it has none."""
        body = {k: v for k, v in exchange.body.items() if k not in ("stream", "stream_options")}
        content = msgspec.json.encode(
            {**body, **({"model": upstream.model} if upstream.model else {})}
        )
        request = self._request(upstream, scope, content=content)
        asked_s = time.perf_counter()
        async with self._answer(request) as response:
            left_s = self._timeout_s - (time.perf_counter() - asked_s)
            answer = decoded(response, await read_whole(response, left_s))
        if not response.is_success:
            return None
        return parse_completion(whole_answer(answer))

    def _request(
        self,
        upstream: Upstream,
        scope: Scope,
        *,
        path: str = "/chat/completions",
        content: bytes | None = None,
        wants_plain: bool = False,
    ) -> httpx.Request:
        query = scope.get("query_string", b"").decode("latin-1")
        url = upstream.base_url.rstrip("/") + path + (f"?{query}" if query else "")
        headers = _request_headers(scope["headers"], upstream.key(), wants_plain)
        with as_http_errors():
            method = "GET" if content is None else "POST"
            return httpx.Request(method, url, headers=headers, content=content)

    @contextlib.asynccontextmanager
    async def _answer(self, request: httpx.Request) -> AsyncIterator[httpx.Response]:
        """The answer's head, its body unread; what goes wrong until then is an HttpError."""
        with as_http_errors():
            async with asyncio.timeout(self._timeout_s):  # httpx bounds each read, not all of them
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
