"""A student's answer that leaves while it is being written.

In: a request for a stream, and a route whose score is known from the prompt alone. Out: whether the
student answers; if so, its pieces as they come. Nothing leaves before the decision, which comes
with the first token, so that the teacher can still answer
(test_stream_below_the_threshold_is_the_teachers); what goes wrong afterwards ends the stream in an
error event, as a teacher's would (test_stream_that_breaks_ends_in_an_error_event). What was sent
whole is audited like any answer (test_gateway_audits_a_true_stream); what broke off is the
student's failure (test_gateway_counts_a_broken_stream_as_harm). Who asked for a JSON object gets no
true stream: the gateway must see that it is one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

from ownweights.core.chat import Completion, CompletionChunk, Usage
from ownweights.core.errors import (
    CompleterError,
    CompleterTimeout,
    ContextTooLong,
    Ineligible,
    OwnError,
)
from ownweights.gateway.exchange import Exchange
from ownweights.gateway.students import GRACE_S, NotLoaded, Students
from ownweights.route import Route
from ownweights.route.decide import decide_before, decides_before
from ownweights.teacher.asgi import SSE_HEADERS, Send
from ownweights.teacher.wire import DONE_EVENT, completion_body, error_body, sse_event, usage_body

log = logging.getLogger("ownweights.gateway")


def may_stream(exchange: Exchange, route: Route) -> bool:
    """Whether this request's answer can leave while it is written."""
    asked = exchange.body.get("response_format")
    is_json = isinstance(asked, dict) and asked.get("type") == "json_object"
    return exchange.is_stream and not is_json and decides_before(route)


def note_failure(exchange: Exchange, error: Exception) -> None:
    """Why the student did not answer, as the exchange's reason."""
    if isinstance(error, CompleterTimeout):
        exchange.reason, exchange.error = "student_timeout", "student_timeout"
        exchange.has_failed = True
    elif isinstance(error, ContextTooLong):
        exchange.reason = "ineligible:context"
    elif isinstance(error, Ineligible):
        exchange.reason = "ineligible:student"
    else:
        exchange.reason, exchange.error = "student_error", "student_error"
        exchange.has_failed = not isinstance(error, NotLoaded)
        if not isinstance(error, OwnError):
            log.error("%s student failed with %s", exchange.id, type(error).__name__)


async def stream_student(exchange: Exchange, route: Route, students: Students, send: Send) -> bool:
    """Stream the student's answer where it may be sent; else False, the exchange's reason set."""
    chunks = students.stream(route, exchange.body)
    async with contextlib.aclosing(chunks):  # type: ignore[type-var]
        give_up_s = asyncio.get_running_loop().time() + route.timeout_s + GRACE_S
        first = await _first(exchange, chunks, give_up_s)
        if first is None or not _is_served(exchange, route, first):
            return False
        await _Answer(exchange, send).pass_on(first, chunks, give_up_s)
    return True


async def _first(
    exchange: Exchange, chunks: AsyncIterator[CompletionChunk], give_up_s: float
) -> CompletionChunk | None:
    asked_s = time.perf_counter()
    try:
        return await _next(chunks, give_up_s)
    except Exception as error:  # whatever a student does, the teacher answers
        note_failure(exchange, error)
        return None
    finally:
        exchange.waited_s += time.perf_counter() - asked_s


async def _next(chunks: AsyncIterator[CompletionChunk], give_up_s: float) -> CompletionChunk:
    """The next piece.

    Raises: CompleterTimeout when it does not come in time, CompleterError when none comes at all
    """
    try:
        async with asyncio.timeout_at(give_up_s):
            return await anext(chunks)
    except CompleterTimeout:
        raise
    except TimeoutError:
        raise CompleterTimeout("the student did not end in time") from None
    except StopAsyncIteration:
        raise CompleterError("the student's answer has no end") from None


def _is_served(exchange: Exchange, route: Route, first: CompletionChunk) -> bool:
    read, limit = (first.usage or Usage()).prompt_tokens, route.max_prompt_tokens
    if limit is not None and read > limit:
        exchange.reason = "ineligible:context"
        return False
    decision = decide_before(route, first.features)
    exchange.reason, exchange.score = decision.reason, decision.score
    return decision.serve


class _Answer:
    """What is sent of an answer: events in OpenAI's shape, and the text so far."""

    def __init__(self, exchange: Exchange, send: Send) -> None:
        assert exchange.route is not None, "a student answers by a route"
        exchange.served_by, exchange.http_status = "student", 200
        exchange.student_model = f"own/{exchange.route.student_id}"
        self._exchange, self._send = exchange, send
        self._texts: list[str] = []
        self._end: CompletionChunk | None = None
        nothing = {"usage": None} if exchange.wants_usage else {}
        whole = {name: v for name, v in self._body().items() if name not in ("choices", "usage")}
        self._head = {**whole, "object": "chat.completion.chunk", **nothing}

    async def pass_on(
        self, first: CompletionChunk, chunks: AsyncIterator[CompletionChunk], give_up_s: float
    ) -> None:
        """Send everything, or an error event where the rest does not come; settle the exchange."""
        head = [*SSE_HEADERS, *self._exchange.headers()]
        await self._send({"type": "http.response.start", "status": 200, "headers": head})
        try:
            await self._event({"role": "assistant", "content": ""})
            piece: CompletionChunk | None = first
            while piece is not None and piece.finish_reason is None:
                await self._piece(piece)
                piece = await self._following(chunks, give_up_s)
            if piece is not None:
                await self._piece(piece)
                self._end = piece
            await self._finish(piece)
        finally:
            self._exchange.settle(self._body(), is_whole=self._end is not None)
            self._exchange.completion = self._whole(first)

    async def _following(
        self, chunks: AsyncIterator[CompletionChunk], give_up_s: float
    ) -> CompletionChunk | None:
        """The next piece; None where it does not come, with the exchange's error set."""
        served, asked_s = self._exchange.reason, time.perf_counter()
        try:
            return await _next(chunks, give_up_s)
        except Exception as error:  # whatever a student does
            note_failure(self._exchange, error)
            self._exchange.reason = served  # it was, as far as it went
            self._exchange.error = self._exchange.error or "student_error"
            self._exchange.has_failed = True  # it had begun: whatever it is, the caller is harmed
            return None
        finally:
            self._exchange.waited_s += time.perf_counter() - asked_s

    async def _piece(self, piece: CompletionChunk) -> None:
        if piece.text:
            self._texts.append(piece.text)
            await self._event({"content": piece.text})

    async def _finish(self, last: CompletionChunk | None) -> None:
        """The end of a stream, or the error that it ends in."""
        if last is None:
            what, code = "the student's answer broke off", self._exchange.error
            event = sse_event(error_body(what, kind="student_error", code=code))
            await self._send({"type": "http.response.body", "body": event})
            return
        await self._event({}, last.finish_reason)
        if self._exchange.wants_usage:
            usage = usage_body(last.usage or Usage())
            await self._bytes(sse_event({**self._head, "choices": [], "usage": usage}))
        await self._bytes(DONE_EVENT)
        await self._send({"type": "http.response.body", "body": b""})

    def _whole(self, first: CompletionChunk) -> Completion | None:
        """The answer as it would have come in one piece; None where it broke off."""
        end = self._end
        if end is None or end.finish_reason is None:
            return None
        model, usage = self._exchange.student_model, end.usage or Usage()
        return Completion("".join(self._texts), end.finish_reason, model, usage, first.features)

    async def _event(self, delta: dict[str, Any], finish_reason: str | None = None) -> None:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        await self._bytes(sse_event({**self._head, "choices": [choice]}))

    async def _bytes(self, body: bytes) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": True})

    def _body(self) -> dict[str, Any]:
        """The answer so far as one body."""
        exchange, end = self._exchange, self._end
        body = completion_body(
            "".join(self._texts),
            completion_id=f"chatcmpl-{exchange.id}",
            model=str(exchange.body.get("model") or exchange.student_model),
            finish_reason=(end.finish_reason if end else None) or "",
            created=int(exchange.at),
            usage=end.usage if end else None,
        )
        return {**body, "system_fingerprint": exchange.student_model}
