"""The engine in a thread of this process: the same completers without a child, for tests and
scoring.

Invariant: it answers as the process does (tests/engine/test_completers.py runs one contract on
both).
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable, Hashable
from types import TracebackType

from ownweights.core.errors import CompleterError, OwnError
from ownweights.engine.batch import BatchEngine
from ownweights.engine.completer import EngineCompleter, Replies
from ownweights.engine.wire import Ask, Piece, Reply, failure_of

_Deliver = Callable[[Reply | None], None]


class EngineThread:
    """Steps an engine in a thread of its own; only that thread touches the engine."""

    def __init__(self, engine: BatchEngine) -> None:
        self._engine = engine
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._deliver: dict[Hashable, _Deliver] = {}
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def completer(self, student_id: str) -> EngineCompleter:
        """A Completer for one student."""
        return EngineCompleter(ThreadLink(self), student_id)

    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """End the thread; who waits is told. May be called twice."""
        self._inbox.put(None)
        self._thread.join()

    def __enter__(self) -> EngineThread:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.stop()

    def ask(self, key: Hashable, ask: Ask, deliver: _Deliver) -> None:
        """Have the thread take on an ask; it calls `deliver` with each reply, None if it ends."""
        self._inbox.put(lambda: self._submit(key, ask, deliver))

    def cancel(self, key: Hashable) -> None:
        """Have the thread forget an ask."""
        self._inbox.put(lambda: self._forget(key))

    def _run(self) -> None:
        try:
            while self._take_in():
                for key, reply in self._engine.step() if self._engine.has_work else []:
                    deliver = self._deliver[key]
                    if not isinstance(reply, Piece):
                        del self._deliver[key]
                    deliver(reply)
        finally:
            for deliver in self._deliver.values():
                deliver(None)

    def _take_in(self) -> bool:
        """Do what has been asked for; wait for something when there is nothing else to do."""
        with contextlib.suppress(queue.Empty):
            while True:
                action = self._inbox.get(block=not self._engine.has_work)
                if action is None:
                    return False
                action()
        return True

    def _submit(self, key: Hashable, ask: Ask, deliver: _Deliver) -> None:
        try:
            self._engine.submit(key, ask)
        except OwnError as error:
            deliver(failure_of(ask.id, error))
        else:
            self._deliver[key] = deliver

    def _forget(self, key: Hashable) -> None:
        self._engine.cancel(key)
        self._deliver.pop(key, None)


class ThreadLink:
    """One completer's way to an engine thread."""

    def __init__(self, thread: EngineThread) -> None:
        self._thread = thread
        self._under_way: set[int] = set()

    async def send(self, ask: Ask, replies: Replies) -> None:
        """Ask; replies come to the queue of this event loop."""
        if not self._thread.is_alive():
            raise CompleterError("the engine thread has ended")
        loop = asyncio.get_running_loop()

        def deliver(reply: Reply | None) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and who waited with it
                loop.call_soon_threadsafe(replies.put_nowait, reply)

        self._under_way.add(ask.id)
        self._thread.ask((self, ask.id), ask, deliver)

    async def cancel(self, ask_id: int) -> None:
        """Stop an ask."""
        self._under_way.discard(ask_id)
        self._thread.cancel((self, ask_id))

    async def close(self) -> None:
        """Stop everything that was asked here and has not ended."""
        for ask_id in list(self._under_way):
            await self.cancel(ask_id)
