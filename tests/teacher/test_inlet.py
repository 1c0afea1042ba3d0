"""Callers that send too much, too slowly, or what is no HTTP."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest

from ownweights.teacher.asgi import (
    ClientGone,
    Headers,
    HttpError,
    Receive,
    Scope,
    Send,
    read_body,
    run_lifespan,
    send_error,
    send_json,
)
from ownweights.teacher.inlet import Limits
from tests.teacher.servers import running

WAIT_S = 30.0
MAX_BODY = 1_000
POST = b"POST /a HTTP/1.1\r\nHost: x\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
GET = b"GET /b HTTP/1.1\r\nHost: x\r\n\r\n"


@dataclass
class Echo:
    """An app that says what it was sent; it answers /big with much, /early before it reads."""

    seen: list[tuple[str, bytes]] = field(default_factory=list[tuple[str, bytes]])
    scopes: list[Scope] = field(default_factory=list[Scope])
    num_gone: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await run_lifespan(receive, send, self._nothing, self._nothing)
            return
        self.scopes.append(scope)
        try:
            body = b"" if scope["path"] == "/early" else await read_body(receive, MAX_BODY)
        except ClientGone:
            self.num_gone += 1
            return
        except HttpError as error:
            await send_error(send, error)
            return
        self.seen.append((scope["path"], body))
        headers: Headers = [
            (name, value) for name, value in scope["headers"] if name == b"authorization"
        ]
        size = 2**25 if scope["path"] == "/big" else 0
        told = {"body": body.decode("latin-1"), "pad": "x" * size, "client": scope["client"][0]}
        await send_json(send, 200, told, headers)

    async def _nothing(self) -> None:
        pass


@contextlib.contextmanager
def serving(**limits: float) -> Iterator[tuple[Echo, tuple[str, int]]]:
    """An echo, and where it listens."""
    echo = Echo()
    with running(echo, Limits(**limits)) as url:  # type: ignore[arg-type]
        parts = urlsplit(url)
        assert parts.hostname is not None and parts.port is not None
        yield echo, (parts.hostname, parts.port)


@pytest.fixture(scope="module")
def door() -> Iterator[tuple[Echo, tuple[str, int]]]:
    with serving() as one:
        yield one


def talk(address: tuple[str, int], *pieces: bytes, ends: bool = False) -> bytes:
    """All that is answered until the other side closes."""
    with socket.create_connection(address, WAIT_S) as caller:
        for piece in pieces:
            caller.sendall(piece)
        if ends:
            caller.shutdown(socket.SHUT_WR)
        return read_all(caller)


def read_all(caller: socket.socket) -> bytes:
    answer = b""
    while part := caller.recv(2**16):
        answer += part
    return answer


def status_and_code(answer: bytes) -> str:
    """Of an error answer in OpenAI's shape, which says that the connection ends."""
    head, body = answer.split(b"\r\n\r\n", 1)
    assert b"connection: close" in head
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return f"{head.split()[1].decode()} {error['code']}"


def closing(request: bytes) -> bytes:
    return request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")


HUGE = [
    POST + b"X-Big: " + b"x" * 70_000 + b"\r\n\r\n",
    POST + b"X-Big: " + b"x" * 70_000,
    b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /" + b"x" * 70_000,
    POST + b"".join(b"X-%d: 1\r\n" % k for k in range(300)) + b"\r\n",
    POST + CHUNKED + b"1\r\na\r\n0\r\n" + b"X-Trailer: yyyyyyyyy\r\n" * 40_000,
    POST + CHUNKED + b"1;" + b"x" * 900_000,
]  # fmt: skip


@pytest.mark.parametrize("request_", HUGE, ids=range(len(HUGE)))
def test_inlet_huge_head_is_431(door: tuple[Echo, tuple[str, int]], request_: bytes) -> None:
    assert status_and_code(talk(door[1], request_)) == "431 headers_too_large"


def test_inlet_head_below_the_limits_passes(door: tuple[Echo, tuple[str, int]]) -> None:
    headers = b"".join(b"X-%d: %b\r\n" % (k, b"x" * 300) for k in range(200))
    answer = talk(door[1], closing(POST + headers + b"Content-Length: 2\r\n\r\n") + b"hi")
    assert b'"body":"hi"' in answer


NOT_HTTP = [
    b"\x16\x03\x01\x02\x00\x01\x00",  # a TLS hello
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET /\r\n\r\n",
    b"BREW /pot HTTP/1.1\r\nHost: x\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET /a\x00b HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nA\x00: b\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nA: b\x00\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nA : b\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n",
]


@pytest.mark.parametrize("request_", NOT_HTTP, ids=range(len(NOT_HTTP)))
def test_inlet_what_is_no_http_is_400(door: tuple[Echo, tuple[str, int]], request_: bytes) -> None:
    assert status_and_code(talk(door[1], request_)) == "400 invalid_http"


AMBIGUOUS = [
    b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
    b"Content-Length: 3, 3\r\n\r\nabc",
    b"Content-Length: +3\r\n\r\nabc",
    b"Content-Length: -1\r\n\r\nabc",
    b"Content-Length: 0x3\r\n\r\nabc",
    b"Content-Length: 99999999999999999999999\r\n\r\nabc",
    b"Transfer-Encoding: chunked, identity\r\n\r\nabc",
    b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n\r\n-1\r\nabc\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
]


@pytest.mark.parametrize("rest", AMBIGUOUS, ids=range(len(AMBIGUOUS)))
def test_inlet_ambiguous_length_is_refused(door: tuple[Echo, tuple[str, int]], rest: bytes) -> None:
    """And nothing behind it is taken for a request."""
    echo, address = door
    before = len(echo.seen)
    assert status_and_code(talk(address, POST + rest + GET)) == "400 invalid_http"
    assert len(echo.seen) == before


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket", b"TLS/1.0"])
@pytest.mark.parametrize("is_split", [True, False])
def test_inlet_upgrade_keeps_its_body(protocol: bytes, is_split: bool) -> None:
    """A request that asks for another protocol is answered in this one; its body is no request."""
    head = POST + b"Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQ\r\n"
    head += b"Upgrade: " + protocol + b"\r\nContent-Length: %d\r\n\r\n" % len(GET)
    pieces = [head, GET] if is_split else [head + GET]
    with serving() as (echo, address):
        answer = talk(address, *pieces, closing(GET))
    assert answer.count(b"HTTP/1.1 200") == 2
    assert echo.seen == [("/a", GET), ("/b", b"")]


def test_inlet_upgrade_of_a_chunked_body_is_read(door: tuple[Echo, tuple[str, int]]) -> None:
    head = POST + b"Connection: Upgrade\r\nUpgrade: h2c\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = talk(door[1], head, b"2\r\nhi\r\n0\r\n\r\n", closing(GET))
    assert b'"body":"hi"' in answer and answer.count(b"HTTP/1.1 200") == 2


@pytest.mark.parametrize(
    "line",
    [b"GET http://elsewhere/v1 HTTP/1.1", b"CONNECT elsewhere:443 HTTP/1.1", b"CONNECT / HTTP/1.1"],
)
def test_inlet_is_no_proxy(door: tuple[Echo, tuple[str, int]], line: bytes) -> None:
    answer = talk(door[1], line + b"\r\nHost: elsewhere\r\n\r\n")
    assert status_and_code(answer) == "400 not_a_proxy"


def test_inlet_trailers_are_dropped() -> None:
    body = b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nAuthorization: Bearer x\r\n\r\n"
    with serving() as (echo, address):
        answer = talk(address, POST + body, closing(GET))
    assert b"Bearer x" not in answer
    assert all(name != b"authorization" for scope in echo.scopes for name, _ in scope["headers"])


def test_inlet_dripped_head_is_408() -> None:
    with serving(head_s=0.0) as (echo, address):
        assert status_and_code(talk(address, POST)) == "408 request_timeout"
        assert status_and_code(talk(address, b"\r\n\r\n")) == "408 request_timeout"
    assert not echo.scopes


def test_inlet_caller_that_says_nothing_is_sent_away() -> None:
    with serving(head_s=0.0) as (_, address):
        assert talk(address) == b""


def test_inlet_dripped_body_is_408() -> None:
    with serving(body_s=0.0, body_bytes_per_s=100.0) as (echo, address):
        answer = talk(address, POST + b"Content-Length: 9\r\n\r\nabc")
        assert status_and_code(answer) == "408 request_timeout"
        answer = talk(address, POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        assert status_and_code(answer) == "408 request_timeout"
    assert echo.num_gone == 2


def test_inlet_body_after_its_answer_has_little_time() -> None:
    with serving(body_s=0.0, linger_s=0.0) as (_, address):
        early = b"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc"
        assert talk(address, early).startswith(b"HTTP/1.1 200")


def test_inlet_caller_that_never_reads_is_cut_off() -> None:
    with serving(unread_s=0.0) as (_, address), socket.create_connection(address) as caller:
        caller.settimeout(WAIT_S)
        caller.sendall(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
        with pytest.raises(ConnectionError):  # it reads nothing, but still sends
            send_until_cut_off(caller)


def send_until_cut_off(caller: socket.socket) -> None:
    while True:
        caller.sendall(b"\r\n")


def test_inlet_garbage_after_a_request_lets_its_answer_pass(
    door: tuple[Echo, tuple[str, int]],
) -> None:
    answer = talk(door[1], GET + b"\x00garbage")
    assert answer.count(b"HTTP/1.1") == 1 and b"200" in answer.split(b"\r\n")[0]


def test_inlet_pipelined_requests_are_answered_in_turn(
    door: tuple[Echo, tuple[str, int]],
) -> None:
    requests = [POST + b"Content-Length: 1\r\n\r\n%d" % k for k in range(5)]
    answer = talk(door[1], b"".join(requests), closing(GET))
    assert re.findall(rb'"body":"(.*?)"', answer) == [b"0", b"1", b"2", b"3", b"4", b""]


def test_inlet_body_of_a_length_that_lies() -> None:
    """Too short ends with the caller; too long is the beginning of a next request, and none."""
    with serving() as (echo, address):
        assert talk(address, POST + b"Content-Length: 9\r\n\r\nabc", ends=True) == b""
        answer = talk(address, POST + b"Content-Length: 1\r\n\r\nabc")
    assert answer.count(b"HTTP/1.1") == 1 and b'"body":"a"' in answer
    assert echo.num_gone == 1


@pytest.mark.parametrize("framing", [b"Content-Length: 5000", b"Transfer-Encoding: chunked"])
def test_inlet_huge_body_is_413_with_or_without_a_length(
    door: tuple[Echo, tuple[str, int]], framing: bytes
) -> None:
    body = b"x" * 5000
    if b"chunked" in framing:
        body = b"1388\r\n" + body + b"\r\n0\r\n\r\n"
    head = closing(POST + framing + b"\r\n\r\n")
    answer = talk(door[1], head, body)
    assert status_and_code(answer) == "413 request_too_large"


def test_inlet_expect_100_continue_is_told_to_go_on(door: tuple[Echo, tuple[str, int]]) -> None:
    with socket.create_connection(door[1], WAIT_S) as caller:
        caller.sendall(closing(POST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n"))
        assert caller.recv(2**16) == b"HTTP/1.1 100 Continue\r\n\r\n"
        caller.sendall(b"hi")
        assert b'"body":"hi"' in read_all(caller)


def test_inlet_http_1_0_is_answered_and_closed(door: tuple[Echo, tuple[str, int]]) -> None:
    answer = talk(door[1], b"GET /a HTTP/1.0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200") and b"connection: close" in answer


def test_inlet_head_request_has_no_body(door: tuple[Echo, tuple[str, int]]) -> None:
    answer = talk(door[1], b"HEAD /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer.endswith(b"\r\n\r\n") and answer.startswith(b"HTTP/1.1 200")


def test_serve_trusts_no_forwarded_header(door: tuple[Echo, tuple[str, int]]) -> None:
    forged = b"X-Forwarded-For: 203.0.113.9\r\nForwarded: for=203.0.113.9\r\nX-Real-Ip: 9.9.9.9\r\n"
    answer = talk(door[1], closing(POST + forged + b"Content-Length: 0\r\n\r\n"))
    assert b'"client":"127.0.0.1"' in answer


def test_inlet_logs_nothing_of_what_it_refuses(
    door: tuple[Echo, tuple[str, int]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    talk(door[1], b"GET / HTTP/1.1\r\nHost: x\r\nsecret\x00: sk-1\r\n\r\n")
    talk(door[1], POST + b"X-Secret: " + b"sk-2" * 20_000)
    assert "sk-" not in caplog.text and "secret" not in caplog.text
