"""The engine's thread: only what differs from the process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Hashable

import pytest

from ownweights.core.chat import ChatRequest
from ownweights.core.errors import CompleterError
from ownweights.engine import BatchEngine, EngineThread
from ownweights.engine.wire import Ask, Reply

REQUEST = ChatRequest.of([{"role": "user", "content": "hi"}])


class StuckEngine(BatchEngine):
    """Takes asks and never gets to them."""

    def __init__(self) -> None:
        super().__init__({})
        self.asked: dict[Hashable, Ask] = {}
        self.is_empty = threading.Event()
        self.is_asked = threading.Event()

    @property
    def has_work(self) -> bool:
        return False

    def submit(self, key: Hashable, ask: Ask) -> None:
        self.asked[key] = ask
        self.is_asked.set()

    def cancel(self, key: Hashable) -> None:
        self.asked.pop(key, None)
        if not self.asked:
            self.is_empty.set()


class BrokenEngine(StuckEngine):
    """Fails at its first step."""

    @property
    def has_work(self) -> bool:
        return bool(self.asked)

    def step(self) -> list[tuple[Hashable, Reply]]:
        raise ZeroDivisionError("a bug")


def test_thread_stop_tells_who_waits() -> None:
    engine = StuckEngine()
    thread = EngineThread(engine)

    async def use() -> None:
        call = asyncio.ensure_future(thread.completer("s").complete(REQUEST))
        await asyncio.to_thread(engine.is_asked.wait)
        await asyncio.to_thread(thread.stop)
        with pytest.raises(CompleterError, match="ended before it had answered"):
            await call
        with pytest.raises(CompleterError, match="the engine thread has ended"):
            await thread.completer("s").complete(REQUEST)

    asyncio.run(use())
    assert not thread.is_alive()
    thread.stop()


def test_thread_close_cancels_what_is_under_way() -> None:
    engine = StuckEngine()

    async def use(thread: EngineThread) -> None:
        completer = thread.completer("s")
        calls = [asyncio.ensure_future(completer.complete(REQUEST)) for _ in range(3)]
        await asyncio.to_thread(engine.is_asked.wait)
        await completer.close()
        await asyncio.to_thread(engine.is_empty.wait)
        for call in calls:
            call.cancel()

    with EngineThread(engine) as thread:
        asyncio.run(use(thread))
    assert not engine.asked


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_thread_that_breaks_tells_who_waits() -> None:
    thread = EngineThread(BrokenEngine())
    with pytest.raises(CompleterError, match="ended before it had answered"):
        asyncio.run(thread.completer("s").complete(REQUEST))
    thread.stop()
    assert not thread.is_alive()
