"""Mutated requests to a gateway whose teacher answers with mutated bytes.

Whatever is sent: the process lives, every answer is well-formed HTTP in OpenAI's error shape or the
teacher's own, the next good request is answered, nothing is left open, and what was answered is
recorded exactly once. Case k is made from seed k alone, so that a failure can be had again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import h11
import httpx
import psutil
import pytest

from ownweights.core.project import Project
from ownweights.gateway import Gateway, GatewaySettings, Upstream
from ownweights.teacher.asgi import Receive, Scope, Send
from ownweights.teacher.inlet import Limits
from tests.gateway.harness import WAIT_S, WHOLE, Engines, KeptRecords
from tests.teacher.servers import asked, completion, json_answer, running, sse_answer, talking

PATIENCE_S = 0.4  # of a fuzzing caller; then it leaves
MAX_FDS_MORE = 16  # connections that are kept for a next request

TOKENS = [
    b"\r\n", b"\r\n\r\n", b"\n", b"\x00", b"\xff\xfe", b" ", b":", b"{", b"}", b'"', b"[" * 600,
    b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Content-Encoding: gzip\r\n",
    b"Connection: close\r\n", b"Upgrade: h2c\r\nConnection: Upgrade\r\n", b"HTTP/1.0", b"HEAD ",
    b"Expect: 100-continue\r\n", b"Origin: null\r\n", b"Host: a\r\n", b"?api_key=x", b"NaN",
    b"1e999", b"\\ud800", b'"stream": true,', b'"stream": false,', b'"n": 2,', b"0\r\n\r\n",
    b'"__proto__": 1,', b"data: ", b"data: [DONE]\n\n", b"../", b"%00", b"x" * 70_000,
    b"'; DROP TABLE record; --", b'"messages": [],', b'"user": {"a": 1},',
    b'"metadata": {"workload": "a\\r\\nb"},',
]  # fmt: skip


def request_of(path: str, body: object) -> bytes:
    raw = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(raw)}\r\n\r\n".encode() + raw


def chunked(path: str, body: object) -> bytes:
    raw = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head.encode() + b"%x\r\n%b\r\n0\r\n\r\n" % (len(raw), raw)


CHAT = "/v1/chat/completions"
CLOSING = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
REQUESTS = [
    request_of(CHAT, asked("hello")),
    request_of(CHAT, asked("hello", stream=True, stream_options={"include_usage": True})),
    request_of(CHAT, asked("hello", metadata={"workload": "a", "session": "s"}, user="u")),
    chunked(CHAT, asked("hello", stream=True)),
    request_of("/v1/completions", {"model": "m", "prompt": "x"}),
    request_of("/v1/embeddings", {"model": "m", "input": ["x", "y"]}),
    request_of("/v1/responses", {"model": "m", "input": "x", "stream": True}),
    request_of("/v1/messages", {"model": "m", "max_tokens": 5, "messages": asked("x")["messages"]}),
    b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer x\r\n\r\n",
    b"GET /ready HTTP/1.1\r\nHost: localhost\r\n\r\n",
]  # fmt: skip
ANSWERS = [
    json_answer(json.dumps(completion()).encode()),
    sse_answer(*WHOLE),
    json_answer(b'{"error": {"message": "no"}}', "429 Too Many Requests", "Retry-After: 0\r\n"),
]


def mutated(rng: random.Random, data: bytes) -> bytes:
    """Bytes with a few of the changes that parsers stumble over."""
    for _ in range(rng.choice((0, 1, 1, 2, 3, 5))):
        at, size = rng.randrange(len(data) + 1), rng.choice((1, 1, 2, 8, 40))
        match rng.randrange(6):
            case 0:
                data = data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
            case 1:
                data = data[:at] + data[at + size :]
            case 2:
                data = data[:at] + data[at : at + size] * 2 + data[at + size :]
            case 3:
                data = data[: at if rng.random() < 0.3 else len(data)]
            case 4:
                line = data.find(b"\r\n", at) + 2
                data = data[:line] + rng.choice(TOKENS) + data[line:]
            case _:
                data = data[:at] + rng.choice(TOKENS) + data[at:]
    return data


@dataclass
class Watched:
    """An app, and how many of its requests are not over."""

    app: Gateway
    num_open: int = 0
    loops: list[asyncio.AbstractEventLoop] = field(default_factory=list[asyncio.AbstractEventLoop])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            self.loops.append(asyncio.get_running_loop())
            await self.app(scope, receive, send)
            return
        self.num_open += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.num_open -= 1


def answers_to(address: tuple[str, int], rng: random.Random, request: bytes) -> tuple[bytes, bool]:
    """What came back, and whether the other side closed; the request is sent in pieces."""
    answer = b""
    cuts = sorted(rng.randrange(len(request) + 1) for _ in range(rng.choice((0, 0, 1, 3))))
    with socket.create_connection(address) as caller:
        caller.settimeout(PATIENCE_S)
        try:
            for start, end in zip([0, *cuts], [*cuts, len(request)], strict=True):
                caller.sendall(request[start:end])
            while part := caller.recv(2**16):
                answer += part
        except TimeoutError:
            return answer, False
        except ConnectionError:  # it closed while we were sending
            return answer, False
    return answer, True


def check_answers(raw: bytes, *, is_whole: bool) -> list[str]:
    """The ids of the requests that were answered; fails for what is no HTTP or no proper error."""
    ids: list[str] = []
    while raw:
        parser = h11.Connection(h11.CLIENT)
        parser.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
        parser.send(h11.EndOfMessage())
        parser.receive_data(raw)
        if is_whole:
            parser.receive_data(b"")
        head, body = None, b""
        while not isinstance(event := parser.next_event(), h11.EndOfMessage):
            if event in (h11.NEED_DATA, h11.PAUSED):
                assert not is_whole
                return ids
            if isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
        assert isinstance(head, h11.Response)
        ids += check_answer(head.status_code, dict(head.headers), body)
        raw = parser.trailing_data[0]
    return ids


def check_answer(status: int, headers: dict[bytes, bytes], body: bytes) -> list[str]:
    if b"x-own-request-id" in headers:
        assert headers[b"x-own-served-by"] == b"teacher"
        return [headers[b"x-own-request-id"].decode()]
    if status >= 400 and headers.get(b"content-type") == b"application/json" and b"own" in body:
        error = json.loads(body)["error"]
        assert set(error) == {"message", "type", "param", "code"} and error["code"] != "internal"
    return []


@contextlib.contextmanager
def watched(project: Project) -> Iterator[tuple[Watched, KeptRecords, str]]:
    """A gateway whose teacher answers request k with an answer mutated by seed k."""

    def script(index: int) -> list[bytes]:
        rng = random.Random(f"answer {index}")
        pieces = rng.choice(ANSWERS)
        return [mutated(rng, piece) for piece in pieces] if rng.random() < 0.7 else pieces

    with talking(script) as talk:
        settings = GatewaySettings(
            teachers={"main": Upstream("main", talk.base_url)}, default_teacher="main",
            timeout_s=0.2, max_body_bytes=100_000,
        )  # fmt: skip
        kept = KeptRecords()
        app = Watched(Gateway(project, settings, start_engine=Engines(), recorder=kept))
        with running(app, Limits(head_s=2.0, body_s=2.0, linger_s=1.0)) as url:
            yield app, kept, url


def fuzz(project: Project, seeds: range) -> int:
    """Send a case a seed; how many requests were answered."""
    ids: list[str] = []
    with watched(project) as (app, kept, url):
        parts = urlsplit(url)
        assert parts.hostname is not None and parts.port is not None
        httpx.get(f"{url}/health")
        num_fds = psutil.Process().num_fds()
        for seed in seeds:
            rng = random.Random(seed)
            request = mutated(rng, rng.choice(REQUESTS))
            answer, is_whole = answers_to((parts.hostname, parts.port), rng, request + CLOSING)
            try:
                if b"HEAD" not in request:
                    ids += check_answers(answer, is_whole=is_whole)
            except (AssertionError, h11.RemoteProtocolError, ValueError) as error:
                pytest.fail(f"seed {seed}: {error!r}\n{request!r}\n-> {answer!r}")
            if seed % 50 == 0:
                assert httpx.get(f"{url}/health", timeout=WAIT_S).status_code == 200
        give_up_s = time.monotonic() + WAIT_S
        while (num_more := psutil.Process().num_fds() - num_fds) > MAX_FDS_MORE or app.num_open:
            assert time.monotonic() < give_up_s, f"{num_more} files, {app.num_open} requests open"
        names = {str(task.get_coro()) for task in asyncio.all_tasks(app.loops[0])}
        assert len(names) < 12, names
        assert httpx.get(f"{url}/ready", timeout=WAIT_S).status_code == 200
    recorded = [record.id for record in kept.records]
    assert len(set(recorded)) == len(recorded)
    assert set(ids) <= set(recorded)
    return len(ids)


def test_gateway_survives_mutated_requests_and_answers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    assert fuzz(Project(tmp_path), range(120)) >= 15
    assert not caplog.messages


@pytest.mark.slow
def test_gateway_survives_many_mutated_requests_and_answers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    assert fuzz(Project(tmp_path), range(1000, 9000)) >= 1000
    assert not caplog.messages
