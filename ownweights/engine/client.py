"""The engine as a child process, and the way to it. No torch here: that is the child's.

In: a project and student ids. Out: completers. The child ends when our end of its stdin closes, so
it never outlives us (test_engine_process_ends_with_stdin); when it dies, who waits gets a
CompleterError and `is_alive` says so (test_engine_process_death_fails_who_waits); starting it again
is the gateway's.
"""

from __future__ import annotations

import asyncio
import json
import selectors
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from ownweights.core.errors import CompleterError, CompleterGarbled, CompleterTimeout
from ownweights.core.project import Project
from ownweights.engine.completer import EngineCompleter, Replies
from ownweights.engine.wire import REPLIES, Ask, Cancel, Piece, frame, take_frames

START_S = 120.0
STOP_S = 5.0


class EngineProcess:
    """A running engine child. `failures` says which students it could not load, and why."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path, ready: Any) -> None:
        self._process = process
        self._folder = folder
        self._stopping = threading.Lock()
        self.failures: dict[str, str] = dict(ready["failures"])
        self.socket = Path(ready["socket"])

    @classmethod
    def start(
        cls,
        project: Project,
        student_ids: Iterable[str],
        *,
        max_batch: int = 32,
        threads: int = 0,
        wait_s: float = START_S,
    ) -> EngineProcess:
        """Start the child and wait until it has loaded its students and listens.

        Raises: CompleterError when it ends instead, CompleterTimeout when it takes too long
        """
        folder = Path(tempfile.mkdtemp(prefix="own-"))
        words = ["--project", str(project.root), "--socket", str(folder / "engine"),
                 "--max-batch", str(max_batch), "--threads", str(threads)]  # fmt: skip
        for student_id in student_ids:
            words += ["--student", student_id]
        process = subprocess.Popen(
            [sys.executable, "-m", "ownweights.engine", *words],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for us; the child ends when we do
        )  # fmt: skip
        try:
            return cls(process, folder, _wait_ready(process, wait_s))
        except BaseException:
            _end(process, folder, grace_s=0)
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def completer(self, student_id: str) -> EngineCompleter:
        """A Completer with a connection of its own, made when first used."""
        return EngineCompleter(SocketLink(self.socket), student_id)

    def is_alive(self) -> bool:
        """Whether the child runs."""
        return self._process.poll() is None

    def stop(self) -> None:
        """End the child; may be called twice, from any thread."""
        with self._stopping:
            _end(self._process, self._folder, grace_s=STOP_S)

    def __enter__(self) -> EngineProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.stop()


class SocketLink(asyncio.Protocol):
    """A connection to an engine's socket, made when first needed and again after it broke."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting: dict[int, Replies] = {}
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connecting = asyncio.Lock()

    async def send(self, ask: Ask, replies: Replies) -> None:
        """Ask; replies will come to the queue."""
        try:
            transport = await self._connection()
        except OSError as error:
            raise CompleterError(f"the engine cannot be reached: {error}") from None
        self._waiting[ask.id] = replies
        transport.write(frame(ask))

    async def cancel(self, ask_id: int) -> None:
        """Stop an ask if it is under way."""
        if self._waiting.pop(ask_id, None) is not None and self._transport is not None:
            self._transport.write(frame(Cancel(ask_id)))

    async def close(self) -> None:
        """Close the connection; who still waits is told."""
        if self._transport is not None:
            self._transport.close()
            self.connection_lost(None)
            await asyncio.sleep(0)  # the transport closes its socket in the loop's next turn

    def data_received(self, data: bytes) -> None:
        """Hand out the replies that have come whole."""
        self._received += data
        try:
            for body in take_frames(self._received):
                reply = REPLIES.decode(body)
                find = self._waiting.get if isinstance(reply, Piece) else self._waiting.pop
                replies = find(reply.id, None)
                if replies is not None:
                    replies.put_nowait(reply)
        except (CompleterGarbled, msgspec.DecodeError):
            assert self._transport is not None, "data comes over a transport"
            self._transport.abort()  # and who waits is told that it broke

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell everyone who waits."""
        self._transport = None
        self._received.clear()
        waiting, self._waiting = self._waiting, {}
        for replies in waiting.values():
            replies.put_nowait(None)

    async def _connection(self) -> asyncio.Transport:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:  # a completer may be used in one `asyncio.run` after another
            self._loop, self._transport, self._connecting = loop, None, asyncio.Lock()
        async with self._connecting:
            if self._transport is None or self._transport.is_closing():
                transport, _ = await loop.create_unix_connection(lambda: self, str(self._path))
                self._transport = transport
            return self._transport


def _wait_ready(process: subprocess.Popen[bytes], wait_s: float) -> Any:
    """The line that the child prints when it listens."""
    assert process.stdout is not None, "stdout is a pipe"
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        if not selector.select(wait_s):
            raise CompleterTimeout(f"the engine was not ready within {wait_s} s")
    line = process.stdout.readline()
    if not line:
        code = process.wait()
        raise CompleterError(
            f"the engine did not start: it ended with exit code {code}",
            hint="its last words are on stderr",
        )
    return json.loads(line)


def _end(process: subprocess.Popen[bytes], folder: Path, *, grace_s: float) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    try:
        process.wait(grace_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    shutil.rmtree(folder, ignore_errors=True)
