"""Servers for tests, each on a loopback port of its own, in a thread of its own.

`running(app)` serves an ASGI app with the server that we ship. `talking(script)` is an upstream
that says exactly the bytes it is told to, so that it can be slow, half, or nonsense.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ownweights.teacher.asgi import run_lifespan
from ownweights.teacher.inlet import DEFAULT_LIMITS, Limits
from ownweights.teacher.replay import RecordedAnswer, ReplayTeacher
from ownweights.teacher.serving import bind, serve_async

START_S = 30.0
PAUSE = b"(pause)"  # in a script: wait for a moment before the next piece
PAUSE_S = 0.01
HANG = b"(hang)"  # in a script: say nothing more and keep the connection open


@contextlib.contextmanager
def running(app: Any, limits: Limits = DEFAULT_LIMITS) -> Iterator[str]:
    """The address of an ASGI app that is being served."""
    listener = bind("127.0.0.1", 0)
    told: queue.Queue[str | BaseException] = queue.Queue()
    stopping: dict[str, Any] = {}

    async def serve() -> None:
        stopping["loop"], stopping["stop"] = asyncio.get_running_loop(), asyncio.Event()
        await serve_async(app, listener, on_ready=told.put, stop=stopping["stop"], limits=limits)

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            told.put(error)

    thread = threading.Thread(target=run, name="test-server")
    thread.start()
    try:
        url = told.get(timeout=START_S)
        if isinstance(url, BaseException):
            raise url
        yield url
    finally:
        with contextlib.suppress(RuntimeError):
            stopping["loop"].call_soon_threadsafe(stopping["stop"].set)
        thread.join(START_S)
        listener.close()
    assert not thread.is_alive(), "the test server did not stop"


async def idle_lifespan(receive: Any, send: Any) -> None:
    """The lifespan of an app that has nothing to start or stop."""

    async def nothing() -> None:
        return

    await run_lifespan(receive, send, nothing, nothing)


@dataclass
class Talk:
    """An upstream that talks by script: its address, and the requests it was sent."""

    url: str = ""
    requests: list[bytes] = field(default_factory=list[bytes])
    num_gone: int = 0  # connections that the other side closed while it was to hang

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"

    def head(self, index: int = 0) -> dict[str, str]:
        """The headers of a request, lower case."""
        lines = self.requests[index].split(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]
        return {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}

    def body(self, index: int = 0) -> bytes:
        """The body of a request."""
        return self.requests[index].split(b"\r\n\r\n", 1)[1]


Script = list[bytes] | Callable[[int], list[bytes]]


@contextlib.contextmanager
def talking(script: Script) -> Iterator[Talk]:
    """An upstream that answers each request by the script, or by what it gives for request k."""
    talk = Talk()
    listener = bind("127.0.0.1", 0)
    listener.listen(64)
    talk.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    loop = asyncio.new_event_loop()
    is_up = threading.Event()
    tasks: set[asyncio.Task[None]] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            while request := await _read_request(reader):
                talk.requests.append(request)
                index = len(talk.requests) - 1
                pieces = script(index) if callable(script) else script
                if not await _say(pieces, reader, writer, talk):
                    return
        except (ConnectionError, asyncio.CancelledError):
            return
        finally:
            writer.close()
            tasks.discard(task)

    async def serve() -> None:
        server = await asyncio.start_server(answer, sock=listener, limit=2**26)
        is_up.set()
        with contextlib.suppress(asyncio.CancelledError):
            await server.serve_forever()

    async def stop(serving: asyncio.Task[None]) -> None:
        serving.cancel()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(serving, *tasks, return_exceptions=True)

    serving = loop.create_task(serve())
    thread = threading.Thread(target=loop.run_forever, name="test-upstream")
    thread.start()
    try:
        assert is_up.wait(START_S)
        yield talk
    finally:
        asyncio.run_coroutine_threadsafe(stop(serving), loop).result(START_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(START_S)
        loop.close()
        listener.close()


async def _read_request(reader: asyncio.StreamReader) -> bytes:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""
    lengths = [
        int(line.split(b":")[1])
        for line in head.lower().split(b"\r\n")
        if line.startswith(b"content-length:")
    ]
    return head + (await reader.readexactly(lengths[0]) if lengths else b"")


async def _say(
    pieces: list[bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter, talk: Talk
) -> bool:
    """Say the pieces one by one; whether the connection is to be kept."""
    for piece in pieces:
        if piece == HANG:
            if not await reader.read(1):
                talk.num_gone += 1
            return False
        if piece == PAUSE:
            await asyncio.sleep(PAUSE_S)
            continue
        writer.write(piece)
        await writer.drain()
    return b"connection: close" not in pieces[0].lower() if pieces else False


def json_answer(body: bytes, status: str = "200 OK", extra: str = "") -> list[bytes]:
    """A whole HTTP answer with a JSON body."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{extra}"
    return [f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body]


def sse_answer(*events: bytes, ends: bool = True) -> list[bytes]:
    """A streamed HTTP answer, one chunk an event; without its end the connection just closes."""
    head = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
        b"Connection: close\r\n\r\n"
    )
    chunks = [b"%x\r\n%b\r\n" % (len(event), event) for event in events]
    return [head, *chunks, *([b"0\r\n\r\n"] if ends else [])]


def completion(text: str = "fine", **fields: Any) -> dict[str, Any]:
    """A plain completion body."""
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return {
        "id": "c1", "object": "chat.completion", "created": 7, "model": "rented-1",
        "choices": [choice], **fields,
    }  # fmt: skip


def asked(text: str, **fields: Any) -> dict[str, Any]:
    """A plain request body."""
    return {"model": "any", "messages": [{"role": "user", "content": text}], **fields}


def replay_of(
    answers: Mapping[str, str], *, seed: int = 0, usage: Mapping[str, int] | None = None
) -> ReplayTeacher:
    """A replay teacher that knows one answer to each user text."""
    return ReplayTeacher(
        (
            (asked(text), RecordedAnswer("rented-1", {"content": answer}, "stop", usage))
            for text, answer in answers.items()
        ),
        seed=seed,
    )


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
