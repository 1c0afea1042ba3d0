"""What a connection may send us, and how long it may take over it.

In: bytes of a caller's connection. Out: requests for the app; for what is too large, too slow or no
HTTP, an error in OpenAI's shape and the end of the connection. Invariants: a head has a largest
size, finished or not (test_inlet_huge_head_is_431); who drips a head or a body is sent away
(test_inlet_dripped_head_is_408, test_inlet_dripped_body_is_408); who does not read is cut off
(test_inlet_caller_that_never_reads_is_cut_off); no request hides in another
(test_inlet_ambiguous_length_is_refused, test_inlet_upgrade_keeps_its_body); trailers are no headers
(test_inlet_trailers_are_dropped).
Time is looked at once a second for all connections together, so that a request pays for no timer.
Sources: RFC 9110 section 7.8 for an upgrade that is not taken, RFC 9112 sections 6 and 11.2.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, cast

import httptools
import msgspec
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from ownweights.teacher.cork import Cork
from ownweights.teacher.wire import error_body


@dataclass(frozen=True, slots=True)
class Limits:
    """What one connection may do. A body may take `body_s`, and longer at `body_bytes_per_s`."""

    max_head_bytes: int = 64 * 2**10
    max_headers: int = 256
    head_s: float = 30.0
    body_s: float = 30.0
    body_bytes_per_s: float = 500.0
    unread_s: float = 120.0  # how long a caller may leave what was sent to it unread
    linger_s: float = 5.0  # how long a refused caller has to read why
    keep_alive_s: float = 75.0  # longer than clients and proxies keep a connection they may use


DEFAULT_LIMITS = Limits()
_IDLE, _HEAD, _BODY = "idle", "head", "body"
_UPGRADE = (b"connection", b"upgrade", b"http2-settings")


@dataclass(frozen=True, slots=True)
class _Refusal:
    status: int
    what: str
    code: str

    def answer(self, headers: list[tuple[bytes, bytes]]) -> bytes:
        body = msgspec.json.encode(
            error_body(self.what, kind="invalid_request_error", code=self.code)
        )
        size = (b"content-length", str(len(body)).encode())
        lines = [*headers, (b"content-type", b"application/json"), size, (b"connection", b"close")]
        head = b"".join(b"%b: %b\r\n" % line for line in lines)
        return STATUS_LINE[self.status] + head + b"\r\n" + body


_NOT_HTTP = _Refusal(400, "this is not a request in HTTP/1.1", "invalid_http")
_NO_PROXY = _Refusal(400, "the request names a whole address: this is no proxy", "not_a_proxy")
_SLOW = _Refusal(408, "the request did not come in time", "request_timeout")


class Inlet(HttpToolsProtocol):
    """uvicorn's HTTP protocol, with limits."""

    def __init__(self, *args: Any, limits: Limits = DEFAULT_LIMITS, **named: Any) -> None:
        super().__init__(*args, **named)
        self._limits = limits
        self._reading = _IDLE
        self._since_s = self.loop.time()  # when what is being read began
        self._loose_bytes = 0  # received since a head or a piece of a body was whole
        self._body_bytes = 0
        self._refusal: _Refusal | None = None  # why the connection ends
        self._upgrading = False
        self._unread_bytes, self._unread_since_s = 0, self._since_s

    def connection_made(  # type: ignore[override]
        self, transport: asyncio.Transport
    ) -> None:
        super().connection_made(cast("asyncio.Transport", Cork(transport)))

    def data_received(self, data: bytes) -> None:
        if self._refusal is not None:
            return
        self._unset_keepalive_if_required()
        self._begin()
        self._loose_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._without_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._refuse(cause.refusal if isinstance(cause, _Refused) else _NOT_HTTP)
        else:
            if self._loose_bytes > self._limits.max_head_bytes:
                self._refuse(self._too_large())

    def on_message_begin(self) -> None:
        self._begin()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > self._limits.max_head_bytes or len(self.headers) > self._limits.max_headers:
            raise _Refused(self._too_large())
        if self.parser.get_http_version() not in ("1.0", "1.1"):
            raise _Refused(_NOT_HTTP)
        if not self.url.startswith((b"/", b"*")):
            raise _Refused(_NO_PROXY)
        if self.parser.should_upgrade():
            self._upgrading = True
            return
        super().on_headers_complete()
        self.headers = []  # what still comes by this name are trailers
        self._reading, self._since_s = _BODY, self.loop.time()
        self._loose_bytes = self._body_bytes = 0

    def on_body(self, body: bytes) -> None:
        self._loose_bytes = 0
        if not self.cycle.response_complete:
            self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        if not self._upgrading:
            self._reading, self._loose_bytes = _IDLE, 0
            super().on_message_complete()

    def on_response_complete(self) -> None:
        if self._reading is _BODY:  # answered before it was read: what is left has little time
            self._since_s, self._body_bytes = self.loop.time(), 0
        super().on_response_complete()

    def look(self, now_s: float) -> None:
        """Send away who is too slow; to be called now and then."""
        self._look_at_unread(now_s)
        if self.transport.is_closing():
            return
        if self._refusal is not None:
            if now_s - self._since_s > self._limits.linger_s and not self._owes_an_answer():
                self.transport.close()
        elif self.flow.read_paused:
            self._since_s = now_s
        elif now_s - self._since_s > self._patience_s():
            if self._reading is _IDLE:
                self.transport.close()
            else:
                self._refuse(_SLOW)

    def send_400_response(self, msg: str) -> None:
        self._refuse(_NOT_HTTP)

    def _begin(self) -> None:
        if self._reading is _IDLE:
            self._reading, self._since_s = _HEAD, self.loop.time()

    def _patience_s(self) -> float:
        if self._reading is _BODY:
            return self._limits.body_s + self._body_bytes / self._limits.body_bytes_per_s
        is_new = self._reading is _HEAD or self._request is None
        return self._limits.head_s if is_new else float("inf")  # else kept alive by uvicorn's timer

    def _look_at_unread(self, now_s: float) -> None:
        unread_bytes = self.transport.get_write_buffer_size()
        if unread_bytes == 0 or unread_bytes != self._unread_bytes:
            self._unread_bytes, self._unread_since_s = unread_bytes, now_s
        elif now_s - self._unread_since_s > self._limits.unread_s:
            self.transport.abort()

    def _without_upgrade(self, rest: bytes) -> None:
        """Read a request that asks for another protocol as what it is besides. The parser takes
        what follows its head to be in that protocol, though it is the body."""
        self._upgrading = False
        method = self.parser.get_method()
        if method == b"CONNECT":
            self._refuse(_NO_PROXY)
            return
        lines = [b"%b: %b" % line for line in self.headers if line[0] not in _UPGRADE]
        head = b"\r\n".join([b"%b %b HTTP/1.1" % (method, self.url), *lines, b"", b""])
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(head + rest)

    def _too_large(self) -> _Refusal:
        limits = self._limits
        most = f"{limits.max_head_bytes} bytes or {limits.max_headers} headers"
        what = f"the request's head is over {most}"
        return _Refusal(431, what, "headers_too_large")

    @property
    def _request(self) -> RequestResponseCycle | None:
        """The latest request, answered or not."""
        return self.cycle

    def _owes_an_answer(self) -> bool:
        """Whether an earlier request was read whole and is not answered yet."""
        cycle = self._request
        return cycle is not None and not (cycle.response_complete or cycle.more_body)

    def _refuse(self, refusal: _Refusal) -> None:
        """Say why, and end the connection; after the answer that is under way, if there is one."""
        self._refusal, self._since_s = refusal, self.loop.time()
        if self._owes_an_answer():
            self.cycle.keep_alive = False
            return
        cycle = self._request
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
            if self.pipeline or cycle.response_started:
                self.transport.close()
                return
        self.transport.write(refusal.answer(self.server_state.default_headers))
        # closed at once, the answer could be lost with what the caller is still sending
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()


class _Refused(Exception):
    """Ends the reading of a request from within the parser."""

    def __init__(self, refusal: _Refusal) -> None:
        super().__init__(refusal.code)
        self.refusal = refusal
