"""How late the event loop takes its turns: the part of the overhead that no request can see.

In: a running event loop. Out: one lag each `EVERY_S`. Invariant: what blocks the loop shows as a
lag of that length (test_loop_lag_sees_what_blocks_the_loop).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

EVERY_S = 0.1


class LoopLag:
    """Asks for a turn at a known time, and tells how late it came."""

    def __init__(self, tell: Callable[[float], None]) -> None:
        self._tell = tell
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to measure."""
        self._task = asyncio.ensure_future(self._measure())

    async def close(self) -> None:
        """End measuring."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _measure(self) -> None:
        while True:
            due_s = time.perf_counter() + EVERY_S
            await asyncio.sleep(EVERY_S)
            self._tell(max(0.0, time.perf_counter() - due_s))
