"""Forward a streamed answer, event by event.

In: an answer whose head has come. Out: its bytes on the caller's connection, and the answer they
spell in the exchange. Invariants: events leave as they come (test_forward_streams_chunk_by_chunk)
and byte for byte (test_forward_stream_is_byte_exact_however_it_is_cut); nothing leaves before the
first event proves a stream of completions, so that anything else is an error with a status
(test_forward_garbage_streamed_is_502); half an event never leaves
(test_forward_stream_cut_inside_an_event_ends_in_an_error_event).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from math import inf
from typing import Any

from ownweights.gateway.exchange import Exchange
from ownweights.gateway.protocols import CHAT, Protocol
from ownweights.gateway.upstreams.answer import decoded, whole_answer
from ownweights.gateway.upstreams.client import Reply, garbled, timed_out
from ownweights.gateway.upstreams.translate import StreamTranslator
from ownweights.teacher.asgi import HttpError, Send
from ownweights.teacher.sse import EventCutter, decode_events, event_data
from ownweights.teacher.wire import error_body, sse_event

MAX_STREAM_BYTES = 256 * 2**20
MAX_TIMEOUTS = 30  # a whole stream may last this many times the time-out


async def forward_stream(
    exchange: Exchange,
    reply: Reply,
    *,
    begin: Callable[[], Awaitable[None]],
    send: Send,
    timeout_s: float,
    translator: StreamTranslator | None = None,
) -> None:
    """Pass a stream on; `begin` sends the answer's head. HttpError where nothing was sent yet."""
    source = _Source(reply, timeout_s)
    passing = _Passing(begin, send, exchange.protocol)
    is_plain = reply.coding == "identity"
    try:
        async with source.timed():
            while events := await source.next_events(is_timed=passing.has_begun):
                if translator is not None and not (events := translator.feed(events)):
                    continue
                await passing.take(events, is_plain=is_plain)
        if translator is not None:
            await passing.end(translator.close())
        elif passing.is_open:
            await passing.end(source.tail)
        else:
            await _pass_whole(reply, passing, source.tail)
    except HttpError as error:
        if not passing.has_begun:
            raise
        exchange.error = error.code
        event = sse_event(error_body(error.what, kind=error.kind, code=error.code))
        await send({"type": "http.response.body", "body": event})
    finally:
        exchange.waited_s += source.waited_s
        content = b"".join(passing.sent)
        exchange.num_answer_bytes = len(content)
        _settle(exchange, content)


class _Source:
    """The events of a stream: each within the time-out, all within a number of time-outs.

    The deadline moves with each part and costs nothing but that: the one timer there is looks at it
    when it runs out.
    """

    def __init__(self, reply: Reply, timeout_s: float) -> None:
        self._reply = reply
        self._cutter = EventCutter()
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._give_up_s = self._loop.time() + MAX_TIMEOUTS * timeout_s
        self._deadline_s = inf  # for what is being waited for; infinite while nothing is
        self._size_bytes = 0
        self.waited_s = 0.0

    @property
    def tail(self) -> bytes:
        """What came after the last whole event."""
        return self._cutter.tail

    @contextlib.asynccontextmanager
    async def timed(self) -> AsyncIterator[None]:
        """Hold the deadline while events are read in here."""

        def look() -> None:
            nonlocal timer
            if self._loop.time() >= self._deadline_s:
                limit.reschedule(self._loop.time())
            else:
                timer = self._loop.call_at(self._next_look_s(), look)

        timer = self._loop.call_at(self._next_look_s(), look)
        try:
            async with asyncio.timeout(None) as limit:
                yield
        except TimeoutError:
            raise timed_out() from None
        finally:
            timer.cancel()

    def _next_look_s(self) -> float:
        """When a deadline may be over next."""
        now_s = self._loop.time()
        next_s = min(self._deadline_s, now_s + self._timeout_s)
        return min(next_s, self._give_up_s) if self._give_up_s > now_s else next_s

    async def next_events(self, *, is_timed: bool) -> bytes:
        """The next whole events, empty at the end; the wait for them is counted where asked."""
        asked_s = time.perf_counter()
        self._deadline_s = min(self._loop.time() + self._timeout_s, self._give_up_s)
        try:
            return await self._next_events()
        finally:
            self._deadline_s = inf
            if is_timed:
                self.waited_s += time.perf_counter() - asked_s

    async def _next_events(self) -> bytes:
        while part := await self._reply.part():
            self._size_bytes += len(part)
            if self._size_bytes > MAX_STREAM_BYTES:
                raise garbled(f"the teacher's stream is over {MAX_STREAM_BYTES} bytes")
            if events := self._cutter.feed(part):
                return events
        return b""


class _Passing:
    """What is passed on: held until the first event with data shows what it is."""

    def __init__(
        self, begin: Callable[[], Awaitable[None]], send: Send, protocol: Protocol
    ) -> None:
        self._begin, self._send, self.protocol = begin, send, protocol
        self.held: list[bytes] = []
        self.sent: list[bytes] = []
        self.has_begun = False
        self.is_open = False

    async def take(self, events: bytes, *, is_plain: bool) -> None:
        """Pass events on, or hold them; HttpError when the first data is no JSON object."""
        self.held.append(events)
        if not self.is_open:
            payloads = event_data(events) if is_plain else []
            self.is_open = self.opens(payloads)
            is_comment = is_plain and events.startswith(b":") and len(self.held) == 1
            if not self.is_open and not is_comment:
                return
        await self.flush(more_body=True)

    def opens(self, payloads: list[bytes]) -> bool:
        """Whether these begin a stream; HttpError when the first of them should be, and is not, a
        JSON object."""
        if not payloads or self.protocol.check is None:
            return bool(payloads)
        events, _ = decode_events(payloads[:1])
        if not events or not isinstance(events[0], dict):
            raise garbled("the teacher's stream does not begin with a chat completion")
        return True

    async def end(self, tail: bytes) -> None:
        """Pass the end on; HttpError when the stream was cut inside an event."""
        if tail.strip() and _is_cut(b"".join(self.sent), tail):
            raise garbled("the teacher's answer broke off inside an event")
        self.held.append(tail)
        await self.flush(more_body=False)

    async def flush(self, *, more_body: bool) -> None:
        """Send what is held."""
        if not self.has_begun:
            self.has_begun = True
            await self._begin()
        body = b"".join(self.held)
        self.held.clear()
        self.sent.append(body)
        await self._send({"type": "http.response.body", "body": body, "more_body": more_body})


async def _pass_whole(reply: Reply, passing: _Passing, tail: bytes) -> None:
    """Pass on what ended without an event: a whole answer, or a stream in one piece."""
    passing.held.append(tail)
    content = decoded(reply, b"".join(passing.held))
    if not passing.opens(event_data(content + b"\n\n")):
        whole_answer(content, passing.protocol)
    await passing.flush(more_body=False)
    passing.sent = [content]


def _is_cut(whole: bytes, tail: bytes) -> bool:
    """Whether a stream ends inside an event: not with data, and not after its [DONE]."""
    events, is_done = decode_events(event_data(tail + b"\n\n"))
    return not (events or is_done or decode_events(event_data(whole))[1])


def _settle(exchange: Exchange, content: bytes) -> None:
    """Keep what was sent: a stream, whole or not, or a whole answer."""
    events, _ = decode_events(event_data(content + b"\n\n"))
    protocol = exchange.protocol
    body = protocol.assemble(events)
    if content and not events:
        with contextlib.suppress(HttpError):
            body = whole_answer(content, protocol)
    is_whole = protocol is not CHAT or _has_ended(body)
    exchange.settle(body, is_whole=is_whole and exchange.error is None)


def _has_ended(body: dict[str, Any] | None) -> bool:
    choices = body.get("choices") if body else None
    ends = [c.get("finish_reason") if isinstance(c, dict) else None for c in choices or ()]
    return bool(ends) and all(ends)
