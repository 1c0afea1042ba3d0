"""Pass a request to a teacher and its answer back, byte for byte.

In: an exchange, the caller's headers, the teacher to ask. Out: the teacher's status, headers and
bytes on the caller's connection, and the decoded answer in the exchange. Invariants: body bytes are
untouched both ways (test_forward_is_byte_exact); an answer that is not streamed is whole within the
time-out (test_forward_slow_teacher_is_504); no connection error reaches the caller but as OpenAI's
error shape (test_forward_teacher_down_is_502); once a byte of an answer was sent, nobody else is
asked (test_failover_never_after_the_first_byte); who cannot be asked in its place is passed over
(test_failover_passes_over_a_teacher_that_cannot_be_asked_this).
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time

import msgspec

from ownweights.core.chat import Completion
from ownweights.gateway.callers import Caller
from ownweights.gateway.exchange import Exchange
from ownweights.gateway.keys.key import KEY_HEADERS
from ownweights.gateway.settings import GatewaySettings, Upstream
from ownweights.gateway.spending import may_go
from ownweights.gateway.upstreams.address import call_for, models_call, response_headers
from ownweights.gateway.upstreams.again import (
    Rests,
    RetryBudget,
    Tries,
    may_pass,
    retry_after_s,
)
from ownweights.gateway.upstreams.answer import decoded, read_whole, whole_answer
from ownweights.gateway.upstreams.client import Call, Client, Reply, as_http_errors, garbled
from ownweights.gateway.upstreams.stream import forward_stream
from ownweights.gateway.upstreams.translate import (
    Spoken,
    StreamTranslator,
    answer_for,
    error_for,
    spoken,
)
from ownweights.teacher.asgi import JSON_TYPE, Headers, HttpError, Scope, Send, send_bytes
from ownweights.teacher.wire import parse_completion

_OF_THE_BODY = (b"content-type", b"content-encoding")
_CREDENTIALS = KEY_HEADERS | {
    b"cookie", b"x-goog-api-key", b"ocp-apim-subscription-key", b"openai-organization",
    b"openai-project",
}  # fmt: skip
MOST_WAIT_S = 10.0  # for a repeat at the same teacher; who is asked to wait longer tells the caller


class TeacherDoor:
    """The way to every teacher: one HTTP client for the life of the gateway."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._client = Client(connect_timeout_s=settings.connect_timeout_s)
        self._rests = Rests()
        self._budget = RetryBudget(settings.retry_frac)
        self.tries = Tries()

    def follow(self, settings: GatewaySettings) -> None:
        """Go on with other settings."""
        self._settings = settings
        self._budget.follow(settings.retry_frac)

    async def close(self) -> None:
        """Let go of every connection."""
        await self._client.close()

    def resting_s(self) -> dict[str, float]:
        """How long each of the teachers still rests."""
        return {name: self._rests.left_s(name) for name in self._settings.teachers}

    async def forward(
        self, exchange: Exchange, upstream: Upstream, scope: Scope, send: Send
    ) -> None:
        """Let a teacher answer an exchange; HttpError when none could and nothing was sent."""
        asked_s = time.perf_counter()
        give_up_s = asked_s + self._settings.timeout_s

        async def begin() -> None:
            exchange.waited_s += time.perf_counter() - asked_s
            headers = [*response_headers(reply.headers, exchange.caller), *exchange.headers()]
            await send({"type": "http.response.start", "status": reply.status, "headers": headers})

        self._budget.asked()
        reply, said = await self._ask_in_turn(exchange, upstream, scope, give_up_s)
        try:
            exchange.http_status = reply.status
            if exchange.is_stream and reply.is_success:
                timeout_s = self._settings.timeout_s
                other = StreamTranslator(exchange) if said.is_translated else None
                await forward_stream(
                    exchange, reply, begin=begin, send=send, timeout_s=timeout_s, translator=other
                )
                return
            content = await read_whole(reply, give_up_s - time.perf_counter())
        finally:
            reply.close()
        exchange.waited_s += time.perf_counter() - asked_s
        exchange.num_answer_bytes = len(content)
        headers = response_headers(reply.headers, exchange.caller)
        if said.is_translated:
            content = _translated(exchange, reply, content)
            headers = [JSON_TYPE, *(one for one in headers if one[0] not in _OF_THE_BODY)]
        elif reply.is_success:
            _settle(exchange, reply, content)
        if not reply.is_success:
            exchange.error = "teacher_refused"
        await send_bytes(send, reply.status, content, [*headers, *exchange.headers()])

    async def fetch(
        self, upstream: Upstream, scope: Scope, caller: Caller
    ) -> tuple[int, Headers, bytes]:
        """The teacher's list of models."""
        reply, content = await self._read(models_call(upstream, scope))
        return reply.status, response_headers(reply.headers, caller), content

    async def ask(self, exchange: Exchange, upstream: Upstream, scope: Scope) -> Completion | None:
        """The teacher's answer to a request that is over; None or HttpError where it has none."""
        body = {k: v for k, v in exchange.body.items() if k not in ("stream", "stream_options")}
        whole = dataclasses.replace(exchange, body=body)
        said = spoken(whole, upstream)
        call = call_for(
            upstream, scope, protocol=said.protocol, raw=None, body=said.body, wants_plain=False
        )
        reply, content = await self._read(call)
        if not reply.is_success:
            return None
        answer = whole_answer(decoded(reply, content), said.protocol)
        return parse_completion(answer_for(whole, answer) if said.is_translated else answer)

    async def _ask_in_turn(
        self, exchange: Exchange, upstream: Upstream, scope: Scope, give_up_s: float
    ) -> tuple[Reply, Spoken]:
        first, *rest = self._settings.candidates(upstream, exchange.protocol.name)
        candidates = [first, *(one for one in rest if may_go(exchange, one))]
        turns = self._turns(exchange, upstream, candidates)
        num_repeats = self._settings.max_retries
        while True:
            asked = turns.pop(0)
            self.tries.note(asked.name, before=exchange.upstream, first=upstream.name)
            exchange.asked = asked
            left_s = give_up_s - time.perf_counter()
            try:
                said = spoken(exchange, asked)
                call = call_for(
                    asked, _seen_by(asked, upstream, scope), protocol=said.protocol, body=said.body,
                    raw=None if said.is_translated else exchange.raw,
                    wants_plain=exchange.is_stream,
                )  # fmt: skip
                reply = await self._send(call, min(left_s, asked.timeout_s) if turns else left_s)
            except HttpError as error:
                if error.status < 500:
                    raise
                self._rests.failed(asked.name)
                turns = _able(exchange, upstream, turns)
                if not turns and not await self._may_repeat(num_repeats, None, give_up_s):
                    raise
            else:
                if not may_pass(reply.status):
                    self._rests.worked(asked.name)
                    return reply, said
                wait_s = retry_after_s(reply)
                self._rests.failed(asked.name, wait_s)
                turns = _able(exchange, upstream, turns)
                try:
                    may_go_on = turns or await self._may_repeat(num_repeats, wait_s, give_up_s)
                except asyncio.CancelledError:  # the caller left
                    reply.close()
                    raise
                if not may_go_on:
                    return reply, said
                reply.close()
            if not turns:
                num_repeats -= 1
                turns = self._turns(exchange, upstream, candidates)[:1]

    def _turns(
        self, exchange: Exchange, upstream: Upstream, candidates: list[Upstream]
    ) -> list[Upstream]:
        """Who is asked, in order; the first of them can be."""
        turns = self._rests.order(candidates) if len(candidates) > 1 else list(candidates)
        return _able(exchange, upstream, turns)

    async def _may_repeat(self, num_repeats: int, wait_s: float | None, give_up_s: float) -> bool:
        """Wait for another try at the same teacher; false where there is none."""
        pause_s = 0.5 if wait_s is None else wait_s
        left_s = give_up_s - time.perf_counter()
        if num_repeats <= 0 or pause_s > min(MOST_WAIT_S, left_s) or not self._budget.take():
            return False
        await asyncio.sleep(pause_s)
        return True

    async def _send(self, call: Call, left_s: float) -> Reply:
        with as_http_errors:
            async with asyncio.timeout(left_s):
                return await self._client.send(call)

    async def _read(self, call: Call) -> tuple[Reply, bytes]:
        """A whole answer, whatever it says."""
        timeout_s = self._settings.timeout_s
        give_up_s = time.perf_counter() + timeout_s
        reply = await self._send(call, timeout_s)
        try:
            return reply, await read_whole(reply, give_up_s - time.perf_counter())
        finally:
            reply.close()


def _able(exchange: Exchange, upstream: Upstream, turns: list[Upstream]) -> list[Upstream]:
    """The turns from the first on that can be asked this; `upstream`, whose turn it is by rights,
    stays whatever it takes: its refusal is the caller's to know."""
    for index, one in enumerate(turns):
        with contextlib.suppress(HttpError):
            if one is not upstream:
                spoken(exchange, one)
            return turns[index:]
    return []


def _seen_by(asked: Upstream, named: Upstream, scope: Scope) -> Scope:
    """The request as a teacher may see it: at another host than the one the caller means, a
    stand-in does not get what the caller shows that one."""
    if asked is named:
        return scope
    if asked.base_url.split("/")[:3] == named.base_url.split("/")[:3]:
        return scope
    return {**scope, "headers": [one for one in scope["headers"] if one[0] not in _CREDENTIALS]}


def _translated(exchange: Exchange, reply: Reply, content: bytes) -> bytes:
    """An answer or error in the caller's protocol, kept where it is an answer."""
    plain = decoded(reply, content)
    if not reply.is_success:
        return msgspec.json.encode(error_for(exchange, reply.status, plain))
    try:
        answer = msgspec.json.decode(plain)
    except (ValueError, RecursionError):
        raise garbled("the teacher said 200, but its answer is not JSON") from None
    exchange.settle(answer_for(exchange, answer))
    return msgspec.json.encode(exchange.response)


def _settle(exchange: Exchange, reply: Reply, content: bytes) -> None:
    """Keep a whole answer; HttpError 502 where it is none and must be one."""
    try:
        plain = decoded(reply, content)
    except HttpError:
        if exchange.protocol.check is not None:
            raise
        return
    exchange.settle(whole_answer(plain, exchange.protocol))
