"""Reading bodies, answering JSON and errors, without a socket."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from ownweights.core.errors import SettingsError
from ownweights.teacher.asgi import (
    DROPPED_PER_LIMIT,
    ClientGone,
    HttpError,
    Message,
    check_method,
    decode_json,
    header,
    read_body,
    run_lifespan,
    send_error,
    send_json,
)


class Wire:
    """Messages in, messages out."""

    def __init__(self, *incoming: Message) -> None:
        self.incoming = list(incoming)
        self.sent: list[Message] = []

    async def receive(self) -> Message:
        return self.incoming.pop(0)

    async def send(self, message: Message) -> None:
        self.sent.append(message)


def part(body: bytes, more: bool = False) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


def read(wire: Wire, max_bytes: int = 10) -> bytes:
    return asyncio.run(read_body(wire.receive, max_bytes))


def test_read_body_joins_parts() -> None:
    assert read(Wire(part(b"ab", more=True), part(b"cd"))) == b"abcd"


def test_read_body_at_the_limit_is_read() -> None:
    assert read(Wire(part(b"x" * 10))) == b"x" * 10


def test_read_body_over_limit_is_refused() -> None:
    with pytest.raises(HttpError, match="longer than 10 bytes") as caught:
        read(Wire(part(b"x" * 11)))
    assert (caught.value.status, caught.value.code) == (413, "request_too_large")


def test_read_body_over_limit_lets_the_client_finish_sending() -> None:
    wire = Wire(part(b"x" * 11, more=True), part(b"y", more=True), part(b"z"))
    with pytest.raises(HttpError):
        read(wire)
    assert wire.incoming == []


def test_read_body_without_end_is_not_read_to_the_end() -> None:
    endless = [part(b"x" * 10, more=True) for _ in range(100)]
    wire = Wire(*endless)
    with pytest.raises(HttpError):
        read(wire)
    assert len(wire.incoming) == 100 - DROPPED_PER_LIMIT - 1


def test_read_body_client_that_leaves_is_gone() -> None:
    with pytest.raises(ClientGone):
        read(Wire(part(b"ab", more=True), {"type": "http.disconnect"}))


def test_decode_json_reads_an_object() -> None:
    assert decode_json('{"ä": [1, null]}'.encode()) == {"ä": [1, None]}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b'{"a": NaN}', "not valid JSON"),
        (b'{"a": "\xff\xfe"}', "not valid JSON"),
        (b'{"a": "\\ud800"}', "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[]", "must be a JSON object, got list"),
        (b'"text"', "must be a JSON object, got str"),
        (b"null", "must be a JSON object, got NoneType"),
    ],
)
def test_decode_json_refuses(body: bytes, says: str) -> None:
    with pytest.raises(HttpError, match=says) as caught:
        decode_json(body)
    assert (caught.value.status, caught.value.code) == (400, "invalid_json")


def test_check_method_names_the_one_that_is_allowed() -> None:
    check_method({"method": "GET", "path": "/x"}, "GET")
    with pytest.raises(HttpError, match="/x takes GET") as caught:
        check_method({"method": "PUT", "path": "/x"}, "GET")
    assert caught.value.status == 405
    assert caught.value.headers == [(b"allow", b"GET")]


def test_send_json_counts_its_length() -> None:
    wire = Wire()
    asyncio.run(send_json(wire.send, 201, {"a": "ü"}, [(b"x-y", b"1")]))
    start, body = wire.sent
    assert start["status"] == 201
    assert dict(start["headers"]) == {
        b"content-type": b"application/json", b"x-y": b"1", b"content-length": b"10"
    }  # fmt: skip
    assert json.loads(body["body"]) == {"a": "ü"}


def test_send_error_has_openai_shape() -> None:
    wire = Wire()
    error = HttpError(400, "bad", code="c", param="messages", headers=[(b"allow", b"GET")])
    asyncio.run(send_error(wire.send, error, [(b"x-own-request-id", b"7")]))
    assert wire.sent[0]["status"] == 400
    headers: dict[bytes, bytes] = dict(wire.sent[0]["headers"])
    assert headers[b"x-own-request-id"] == b"7"
    assert headers[b"allow"] == b"GET"
    assert json.loads(wire.sent[1]["body"]) == {
        "error": {
            "message": "bad", "type": "invalid_request_error", "param": "messages", "code": "c",
        }
    }  # fmt: skip


def test_header_last_one_counts() -> None:
    scope: dict[str, Any] = {"headers": [(b"a", b"1"), (b"b", b"2"), (b"a", b"\xe9")]}
    assert header(scope, b"a") == "é"
    assert header(scope, b"c") is None


def lifespan(*, fails: bool = False) -> tuple[list[str], list[Message]]:
    """The steps that were taken, and what the server was told."""
    steps: list[str] = []

    async def start() -> None:
        steps.append("start")
        if fails:
            raise SettingsError("no key")

    async def stop() -> None:
        steps.append("stop")

    wire = Wire({"type": "lifespan.startup"}, {"type": "lifespan.shutdown"})
    try:
        asyncio.run(run_lifespan(wire.receive, wire.send, start, stop))
    except SettingsError:
        steps.append("raised")
    return steps, wire.sent


def test_run_lifespan_starts_and_stops() -> None:
    steps, sent = lifespan()
    assert steps == ["start", "stop"]
    assert [m["type"] for m in sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


def test_run_lifespan_failed_start_is_told_and_raised() -> None:
    steps, sent = lifespan(fails=True)
    assert steps == ["start", "raised"]
    assert sent == [{"type": "lifespan.startup.failed", "message": "no key"}]
