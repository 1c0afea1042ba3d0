"""JSON that is read one way and must be passed on another: byte for byte, in every protocol."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from ownweights.core.project import Project
from ownweights.gateway import Upstream
from ownweights.gateway.protocols import PROTOCOLS
from ownweights.teacher.kinds import Kind
from tests.gateway.harness import WAIT_S, gateway
from tests.gateway.test_protocols import EVENTS
from tests.gateway.test_protocols import WHOLE as BODIES
from tests.teacher.servers import completion, json_answer, sse_answer, talking

NAMES = [one.name for one in PROTOCOLS.values()]
WHOLE: dict[str, Any] = {**BODIES, "chat": completion("a b")}
CHUNKS: list[dict[str, Any]] = [
    {"model": "m", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": end}]}
    for text, end in (("a ", None), ("b", "stop"))
]
STREAMS: dict[str, list[dict[str, Any]]] = {**EVENTS, "chat": CHUNKS}
ODD = {
    "floats that are whole": b'"x": [1e0, 1.0, -0, -0.0, 1E+2, 10e-1, 0.10]',
    "escapes": rb'"x": "\u00e4\u0041\/\ud83d\ude42\b\f\n\r\t\"\\"',
    "characters": '"ключ": "Zürich 東京 🙂 \u2028\u007f"'.encode(),
    "unknown fields": b'"x_new": {"deep": [[[{"a": null}]]]}, "": 1, "__proto__": {"a": 1}',
    "duplicate names": b'"x": 1, "x": 2, "x": {"y": 1, "y": 2}',
    "white space": b'"x"\t:\r\n[ 1 ,\n 2\t]',
    "large numbers": b'"x": [9007199254740993, 123456789012345678901234567890, 1e308, 5e-324]',
    "digits": b'"x": 0.1000000000000000055511151231257827021181583404541015625',
    "empty things": b'"a": {}, "b": [], "c": "", "d": [{}], "e": null',
    "a long text": b'"x": "' + b"ab c" * 300_000 + b'"',
}


def odd_request(name: str, odd: bytes, *, is_stream: bool = False) -> bytes:
    asked = b'"messages": [{"role": "user", "content": "hi"}], "input": "hi", "prompt": "hi"'
    stream = b'"stream": true,' if is_stream else b""
    return b'{ "model" : "m", "max_tokens": 5, ' + stream + asked + b" , " + odd + b" }"


def with_odd(body: dict[str, Any], odd: bytes) -> bytes:
    """A body's JSON with odd members before its own."""
    return b"{" + odd + b", " + json.dumps(body).encode()[1:]


def behind(url: str, name: str) -> dict[str, Any]:
    kind = Kind("anthropic" if name == "messages" else "openai")
    upstream = Upstream("main", f"{url}/v1", kind=kind)
    return {"teachers": {"main": upstream}, "default_teacher": "main"}


def ask(base_url: str, name: str, content: bytes) -> httpx.Response:
    path = next(path for path, one in PROTOCOLS.items() if one.name == name)
    url = base_url.removesuffix("/v1") + path
    return httpx.post(url, content=content, timeout=WAIT_S)


@pytest.mark.parametrize("how", ODD)
@pytest.mark.parametrize("name", NAMES)
def test_odd_json_passes_byte_for_byte(tmp_path: Path, name: str, how: str) -> None:
    asked, said = odd_request(name, ODD[how]), with_odd(WHOLE[name], ODD[how])
    with (
        talking(json_answer(said)) as talk,
        gateway(Project(tmp_path), None, **behind(talk.url, name)) as one,
    ):
        answer = ask(one.base_url, name, asked)
        record = one.kept.wait()
    assert talk.body() == asked
    assert (answer.status_code, answer.content) == (200, said)
    assert len(one.kept.records) == len(talk.requests) == 1
    assert (record.protocol, record.status) == (name, "ok")
    assert record.request == json.loads(asked)
    assert record.response == json.loads(said)


@pytest.mark.parametrize("how", [one for one, odd in ODD.items() if b"\n" not in odd])
@pytest.mark.parametrize("name", STREAMS)
def test_odd_events_pass_byte_for_byte(tmp_path: Path, name: str, how: str) -> None:
    events = [b"data: " + with_odd(event, ODD[how]) + b"\n\n" for event in STREAMS[name]]
    asked = odd_request(name, ODD[how], is_stream=True)
    with (
        talking(sse_answer(*events)) as talk,
        gateway(Project(tmp_path), None, **behind(talk.url, name)) as one,
    ):
        answer = ask(one.base_url, name, asked)
        record = one.kept.wait()
    assert talk.body() == asked
    assert answer.content == b"".join(events)
    assert (len(one.kept.records), record.protocol, record.status) == (1, name, "ok")


@pytest.mark.parametrize("name", NAMES)
def test_odd_errors_pass_byte_for_byte(tmp_path: Path, name: str) -> None:
    for odd in ODD.values():
        said = b'{"error": {"message": "no", ' + odd + b"}}"
        with (
            talking(json_answer(said, "422 Odd")) as talk,
            gateway(Project(tmp_path), None, **behind(talk.url, name)) as one,
        ):
            answer = ask(one.base_url, name, odd_request(name, odd))
            assert (answer.status_code, answer.content) == (422, said)
            assert one.kept.wait().status == "error"


BROKEN = [
    b"", b" ", b"{", b'{"a": 1,}', b"{'a': 1}", b"[]", b"null", b'"text"', b"{}{}",
    b"\xef\xbb\xbf{}",
    b'{"a": NaN}', b'{"a": 01}', b'{"a": "\xff"}', b'{"a": "\n"}', b"[" * 100_000,
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_json_object_is_refused_and_asked_nowhere(tmp_path: Path, name: str) -> None:
    with (
        talking(json_answer(b"{}")) as talk,
        gateway(Project(tmp_path), None, **behind(talk.url, name)) as one,
    ):
        for content in BROKEN:
            answer = ask(one.base_url, name, content)
            assert answer.status_code == 400, content[:20]
            assert answer.json()["error"]["type"] == "invalid_request_error"
    assert (talk.requests, one.kept.records) == ([], [])
