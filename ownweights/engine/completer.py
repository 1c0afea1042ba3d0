"""A student as a Completer: asks go out over a link, replies come back by id. No torch here.

In: chat requests. Out: completions, chunks, or the errors of `core.completer`. Invariants: who
stops waiting (time-out, cancelled task, abandoned stream) has the ask cancelled in the engine
(test_completer_cancels_what_nobody_waits_for); when the link breaks, everyone who waits gets a
CompleterError (test_completer_fails_when_the_engine_dies).
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable
from typing import Protocol, TypeVar

from ownweights.core.chat import ChatRequest, Completion, CompletionChunk
from ownweights.core.errors import CompleterError, CompleterTimeout
from ownweights.engine.options import read_ask
from ownweights.engine.wire import (
    Ask,
    Done,
    Failed,
    Piece,
    Reply,
    chunk_of,
    completion_of,
    error_of,
)

T = TypeVar("T")
Replies = asyncio.Queue[Reply | None]


class Link(Protocol):
    """A way to an engine. Replies go to the ask's queue; None there says that the link broke."""

    async def send(self, ask: Ask, replies: Replies) -> None:
        """Ask. Raises: CompleterError when there is no engine at the other end"""
        ...

    async def cancel(self, ask_id: int) -> None:
        """Stop an ask, and forget its queue; nothing happens when it has ended."""
        ...

    async def close(self) -> None:
        """Let go; may be called twice."""
        ...


class EngineCompleter:
    """Answers for one student over a link of its own; satisfies `core.completer.Completer`."""

    def __init__(self, link: Link, student_id: str) -> None:
        self._link = link
        self._student = student_id
        self._ids = itertools.count(1)

    async def complete(self, request: ChatRequest, *, timeout_s: float | None = None) -> Completion:
        """The whole answer at once, with features."""
        ask = read_ask(next(self._ids), self._student, request, is_stream=False)
        async with _Exchange(self._link, ask, timeout_s) as exchange:
            reply = await exchange.next()
            while not isinstance(reply, Done):
                reply = await exchange.next()
        return completion_of(reply, self._student)

    async def stream(
        self, request: ChatRequest, *, timeout_s: float | None = None
    ) -> AsyncIterator[CompletionChunk]:
        """The answer in pieces as they are generated; `timeout_s` is for the whole of it.

        The first comes with the first token and carries the prompt's state, whatever its text.
        """
        ask = read_ask(next(self._ids), self._student, request, is_stream=True)
        async with _Exchange(self._link, ask, timeout_s) as exchange:
            reply = await exchange.next()
            while not isinstance(reply, Done):
                yield chunk_of(reply)
                reply = await exchange.next()
        done = completion_of(reply, self._student)
        yield CompletionChunk("", done.finish_reason, done.usage)

    async def close(self) -> None:
        """Close the link; the engine forgets what was asked over it."""
        await self._link.close()


class _Exchange:
    """One ask and its replies. Leaving before the end cancels it."""

    def __init__(self, link: Link, ask: Ask, timeout_s: float | None) -> None:
        self._link, self._ask, self._timeout_s = link, ask, timeout_s
        self._replies: Replies = asyncio.Queue()
        self._is_ended = False
        self._give_up_s: float | None = None

    async def __aenter__(self) -> _Exchange:
        if self._timeout_s is not None:
            self._give_up_s = asyncio.get_running_loop().time() + self._timeout_s
        try:
            await self._in_time(self._link.send(self._ask, self._replies))
        except BaseException:
            await self._link.cancel(self._ask.id)
            raise
        return self

    async def __aexit__(self, *error: object) -> None:
        if not self._is_ended:
            await self._link.cancel(self._ask.id)

    async def next(self) -> Piece | Done:
        """The next reply.

        Raises: the error that the engine reports; CompleterError when it is gone; CompleterTimeout
        """
        reply = await self._in_time(self._replies.get())
        self._is_ended = not isinstance(reply, Piece)
        if reply is None:
            raise CompleterError(
                "the engine ended before it had answered",
                hint="it is started again by whoever runs it; its last words are on stderr",
            )
        if isinstance(reply, Failed):
            raise error_of(reply)
        return reply

    async def _in_time(self, waited_for: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout_at(self._give_up_s):
                return await waited_for
        except TimeoutError:
            raise CompleterTimeout(f"no answer within {self._timeout_s} s") from None
