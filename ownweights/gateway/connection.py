"""What becomes of an answer whose caller leaves before it is whole.

In: the work of answering, the caller's connection. Out: the work's end; ClientGone where it was
stopped because nobody waits for it. Invariants: by default the upstream is stopped with the caller
(test_forward_client_that_leaves_stops_the_teacher); where it is drained instead, the whole answer
is kept (test_gateway_drains_what_a_caller_left), of no more than `MAX_DRAINS` at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from ownweights.teacher.asgi import ClientGone, Receive

MAX_DRAINS = 256


class Drains:
    """How many answers are read to their end although their callers left."""

    def __init__(self) -> None:
        self._count = 0
        self.total = 0

    @property
    def count(self) -> int:
        """How many are being read now."""
        return self._count

    async def while_connected(
        self, work: Coroutine[Any, Any, None], receive: Receive, *, is_drained: bool
    ) -> bool:
        """Do the work; whether its caller stayed.

        Raises: ClientGone when the caller left before it was done and it was stopped
        """
        answer = asyncio.ensure_future(work)
        gone = asyncio.ensure_future(_until_gone(receive))
        try:
            await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
            has_stayed = answer.done()
            if not has_stayed:
                if not is_drained or self._count >= MAX_DRAINS:
                    raise ClientGone
                await self._drain(answer)
        finally:
            gone.cancel()
            answer.cancel()
            await asyncio.gather(answer, gone, return_exceptions=True)
        answer.result()
        return has_stayed

    async def _drain(self, answer: asyncio.Future[None]) -> None:
        self._count += 1
        self.total += 1
        try:
            await asyncio.wait({answer})
        finally:
            self._count -= 1


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue
