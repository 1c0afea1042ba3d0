"""Ask an endpoint many things, and keep what came back beside what did not.

In: requests. Out: one Reply for each, in their order: a completion, or why there is none. An
endpoint that answers none of the first ten is not asked the rest
(test_ask_all_gives_up_on_a_dead_endpoint). Only errors of a Completer are caught.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ownweights.core.chat import ChatRequest, Completion
from ownweights.core.completer import Completer
from ownweights.core.errors import CompleterError, ContextTooLong, Ineligible

GIVE_UP_AFTER = 10
NOT_ASKED = "not asked: the endpoint had answered nothing"

Progress = Callable[[float, float | None, str], None]  # (done, total, stage)


@dataclass(frozen=True, slots=True)
class Reply:
    """A completion and how long it took, or the `fault` that came in its place."""

    completion: Completion | None
    seconds: float = 0.0
    fault: str = ""

    @property
    def text(self) -> str | None:
        """The answer's text, None where there is none to read."""
        return None if self.completion is None else self.completion.text


@dataclass(frozen=True, slots=True)
class Manner:
    """How an endpoint is asked."""

    concurrency: int = 8
    timeout_s: float = 60.0
    on_progress: Progress | None = None
    stopwatch: Callable[[], float] = time.monotonic


async def ask_all(
    completer: Completer, requests: Sequence[ChatRequest], manner: Manner, *, stage: str = "ask"
) -> list[Reply]:
    """The reply to each request, at most `concurrency` at a time."""
    replies = [Reply(None, fault=NOT_ASKED)] * len(requests)
    waiting = iter(enumerate(requests))
    num_answered = num_done = 0

    async def worker() -> None:
        nonlocal num_answered, num_done
        for index, request in waiting:
            if num_answered or num_done < GIVE_UP_AFTER:
                replies[index] = await _ask(completer, request, manner)
            num_answered += replies[index].completion is not None
            num_done += 1
            if manner.on_progress:
                manner.on_progress(num_done, len(requests), stage)

    await asyncio.gather(*(worker() for _ in range(max(1, manner.concurrency))))
    return replies


async def _ask(completer: Completer, request: ChatRequest, manner: Manner) -> Reply:
    started = manner.stopwatch()
    try:
        completion = await completer.complete(request, timeout_s=manner.timeout_s)
    except (CompleterError, ContextTooLong, Ineligible) as error:
        return Reply(None, fault=error.what)
    return Reply(completion, manner.stopwatch() - started)
