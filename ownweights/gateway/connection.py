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
        task = asyncio.current_task()
        assert task is not None, "a coroutine that runs has a task"
        has_left = is_stopped = False

        async def watch() -> None:
            nonlocal has_left, is_stopped
            while (await receive())["type"] != "http.disconnect":
                continue
            has_left = True
            if is_drained and self._count < MAX_DRAINS:
                self._count += 1
                self.total += 1
            else:
                is_stopped = True
                task.cancel()

        watcher = asyncio.ensure_future(watch())
        try:
            await work
        except asyncio.CancelledError:
            if not is_stopped or task.uncancel() > 0:  # the server stops too
                raise
            raise ClientGone from None
        finally:
            watcher.cancel()
            if has_left and not is_stopped:
                self._count -= 1
        return not has_left
