"""A teacher's streams: what passes, in which pieces, and every way they can go wrong."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from ownweights.core.project import Project
from ownweights.teacher.asgi import SSE_HEADERS, read_body
from ownweights.teacher.wire import sse_event
from tests.gateway.harness import DONE, WAIT_S, WHOLE, chunk, error_code, gateway
from tests.teacher.servers import (
    HANG,
    PAUSE,
    asked,
    completion,
    idle_lifespan,
    json_answer,
    running,
    sse_answer,
    talking,
)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


class InStep:
    """A teacher that says the next chunk only when it is told to."""

    def __init__(self) -> None:
        self.go = [threading.Event() for _ in WHOLE]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await idle_lifespan(receive, send)
            return
        await read_body(receive, 2**20)
        await send({"type": "http.response.start", "status": 200, "headers": SSE_HEADERS})
        for event, gate in zip(WHOLE, self.go, strict=True):
            assert await asyncio.to_thread(gate.wait, WAIT_S)
            await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def test_forward_streams_chunk_by_chunk(project: Project) -> None:
    teacher = InStep()
    with running(teacher) as url, gateway(project, f"{url}/v1") as one:
        teacher.go[0].set()
        body = asked("a", stream=True)
        with httpx.stream("POST", one.chat_url, json=body, timeout=WAIT_S) as answer:
            pieces: list[bytes] = []
            for piece in answer.iter_raw():
                pieces.append(piece)
                if len(pieces) < len(WHOLE):
                    teacher.go[len(pieces)].set()  # the next one comes only after this arrived
        assert b"".join(pieces) == b"".join(WHOLE)
        record = one.kept.wait()
        assert (record.status, record.answer_text, record.model) == ("ok", "a b", "rented-1")


@pytest.mark.parametrize("cut", [1, 30, 100])
def test_forward_stream_is_byte_exact_however_it_is_cut(project: Project, cut: int) -> None:
    raw = b": hi\n\n" + b"".join(WHOLE).replace(b"\n\n", b"\r\n\r\n") + b"data: tail"
    pieces = [raw[start : start + cut] for start in range(0, len(raw), cut)]
    with talking(sse_answer(*pieces)) as talk, gateway(project, talk.base_url) as one:
        assert one.post(asked("a", stream=True)).content == raw
        assert one.kept.wait().answer_text == "a b"


def test_forward_half_stream_ends_in_an_error_event(project: Project) -> None:
    whole, half = chunk("a "), chunk("b")[:20]
    script = sse_answer(whole, half, ends=False)
    with talking(script) as talk, gateway(project, talk.base_url) as one:
        answer = one.post(asked("a", stream=True))
        events = answer.content.split(b"\n\n")
        assert events[0] + b"\n\n" == whole
        assert json.loads(events[1][6:])["error"]["code"] == "teacher_garbled"
        record = one.kept.wait()
    assert (record.status, record.answer_text) == ("partial", "a ")
    assert record.metadata["own"]["error"] == "teacher_garbled"


def test_forward_half_stream_is_an_error_to_the_official_client(project: Project) -> None:
    script = sse_answer(chunk("a "), ends=False)
    with (
        talking(script) as talk,
        gateway(project, talk.base_url) as one,
        one.client() as client,
    ):
        stream = client.chat.completions.create(**asked("a"), stream=True)
        assert next(stream).choices[0].delta.content == "a "
        with pytest.raises(openai.APIError, match="broke off"):
            next(stream)


def test_forward_stream_that_stops_talking_ends_in_an_error_event(project: Project) -> None:
    script = [*sse_answer(chunk("a "), ends=False), HANG]
    with talking(script) as talk, gateway(project, talk.base_url, timeout_s=0.2) as one:
        answer = one.post(asked("a", stream=True))
        assert b"teacher_timeout" in answer.content
        assert one.kept.wait().status == "partial"


def test_forward_stream_without_a_finish_is_partial(project: Project) -> None:
    with talking(sse_answer(chunk("a "))) as talk, gateway(project, talk.base_url) as one:
        assert one.post(asked("a", stream=True)).content == chunk("a ")
        assert one.kept.wait().status == "partial"


@pytest.mark.parametrize(
    "script",
    [
        json_answer(b"<html>\n\n<body>login</body>\n\n</html>"),
        json_answer(b'{"foo": 1}'),
        json_answer(b""),
        json_answer(b"[" * 200_000),
        json_answer(b"not gzip", extra="Content-Encoding: gzip\r\n"),
        json_answer(b"{}", extra="Content-Encoding: br\r\n"),
        [b"HTTP/1.1 204 No Content\r\n\r\n"],
        sse_answer(),
        sse_answer(DONE),
        sse_answer(b"data: {nope\n\n", DONE),
        sse_answer(b"data: " + b"[" * 200_000 + b"\n\n", DONE),
        sse_answer(b"data: 5\n\n", ends=False),
        sse_answer(b"\xff\xfe\n\n" * 10),
        sse_answer(b"event: ping\n\n", chunk("a ")[:20]),
    ],
    ids=[
        "html", "no choices", "empty", "deep", "not gzip", "unasked coding", "no content",
        "no event", "done at once", "not json", "deep event", "a number", "not text", "cut at once",
    ],
)  # fmt: skip
def test_forward_garbage_streamed_is_502(project: Project, script: list[bytes]) -> None:
    with talking(script) as talk, gateway(project, talk.base_url) as one:
        assert error_code(one.post(asked("a", stream=True))) == "502 teacher_garbled"
        record = one.kept.wait()
        assert (record.status, record.response) == ("error", None)
        assert record.metadata["own"]["error"] == "teacher_garbled"


@pytest.mark.parametrize(
    "half",
    [chunk("b")[:20], chunk("b")[:-10], b"dat"],
)
def test_forward_stream_cut_inside_an_event_ends_in_an_error_event(
    project: Project, half: bytes
) -> None:
    with talking(sse_answer(chunk("a "), half)) as talk, gateway(project, talk.base_url) as one:
        answer = one.post(asked("a", stream=True))
        assert answer.content.startswith(chunk("a ") + b"data: ")
        assert half not in answer.content[len(chunk("a ")) + 1 :]
        error = json.loads(answer.content.removeprefix(chunk("a "))[6:])["error"]
        assert (error["code"], "inside an event" in error["message"]) == ("teacher_garbled", True)
        record = one.kept.wait()
    assert (record.status, record.answer_text) == ("partial", "a ")


@pytest.mark.parametrize(
    "raw",
    [
        b"".join(WHOLE).removesuffix(b"\n\n"),
        b"".join(WHOLE).removesuffix(b"\n"),
        b"".join(WHOLE[:3]).removesuffix(b"\n\n"),
        chunk("a b", "stop").removesuffix(b"\n\n"),
        b": hi\n\nretry: 3\n\n" + b"".join(WHOLE) + b"\n\n",
        b'data: {"new": 1}\n\n' + b"".join(WHOLE),
    ],
    ids=["no end", "half an end", "no done", "one event", "comments", "unknown event"],
)
def test_forward_sloppy_stream_is_byte_exact(project: Project, raw: bytes) -> None:
    with talking(sse_answer(raw)) as talk, gateway(project, talk.base_url) as one:
        assert one.post(asked("a", stream=True)).content == raw
        record = one.kept.wait()
        assert (record.status, record.answer_text) == ("ok", "a b")


def test_forward_comment_does_not_wait_for_the_first_event(project: Project) -> None:
    script = [*sse_answer(b": thinking\n\n", ends=False), HANG]
    with talking(script) as talk, gateway(project, talk.base_url, timeout_s=0.5) as one:
        answer = one.post(asked("a", stream=True))
        assert answer.content.startswith(b": thinking\n\ndata: ")
        assert b"teacher_timeout" in answer.content


def test_forward_packed_stream_passes_whole(project: Project) -> None:
    raw = gzip.compress(b"".join(WHOLE))
    script = json_answer(raw, extra="Content-Encoding: gzip\r\n")
    with talking(script) as talk, gateway(project, talk.base_url) as one:
        assert one.post(asked("a", stream=True)).content == b"".join(WHOLE)
        assert one.kept.wait().answer_text == "a b"


@pytest.mark.parametrize("is_open", [False, True])
def test_forward_stream_that_drips_is_given_up(project: Project, is_open: bool) -> None:
    head = [chunk("a ")] if is_open else []
    script = [*sse_answer(*head, ends=False), *[PAUSE, b"1\r\na\r\n"] * 2000]
    with talking(script) as talk, gateway(project, talk.base_url, timeout_s=0.2) as one:
        answer = one.post(asked("a", stream=True))
        assert answer.status_code == (200 if is_open else 504)
        assert b"teacher_timeout" in answer.content


def test_forward_stream_has_a_longest_time(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ownweights.gateway.upstreams.stream.MAX_TIMEOUTS", 0.001)
    script = [*sse_answer(chunk("a "), ends=False), *[PAUSE, *sse_answer(chunk("b"))[1:-1]] * 200]
    with talking(script) as talk, gateway(project, talk.base_url, timeout_s=200.0) as one:
        assert b"teacher_timeout" in one.post(asked("a", stream=True)).content


def test_forward_stream_has_a_largest_size(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ownweights.gateway.upstreams.stream.MAX_STREAM_BYTES", 1000)
    head, first, *rest = sse_answer(chunk("a "), *[chunk("b")] * 50)
    script = [head, first, PAUSE, *rest]
    with talking(script) as talk, gateway(project, talk.base_url) as one:
        answer = one.post(asked("a", stream=True)).content
        assert answer.startswith(chunk("a "))
        assert b"over 1000 bytes" in answer
        assert one.kept.wait().status == "partial"


def test_forward_odd_tool_call_in_a_stream_is_recorded(project: Project) -> None:
    call = {"index": 0, "id": "c", "function": {"name": 5, "arguments": {"a": 1}}}
    odd = {"choices": [{"index": 0, "delta": {"tool_calls": [call, 5, None]}}]}
    script = sse_answer(sse_event(odd), *WHOLE)
    with talking(script) as talk, gateway(project, talk.base_url) as one:
        assert one.post(asked("a", stream=True)).content == sse_event(odd) + b"".join(WHOLE)
        assert one.kept.wait().answer_text == "a b"


def test_forward_whole_answer_to_a_stream_passes(project: Project) -> None:
    script = json_answer(json.dumps(completion("fine")).encode())
    with talking(script) as talk, gateway(project, talk.base_url) as one:
        assert one.post(asked("a", stream=True)).json() == completion("fine")
        assert one.kept.wait().answer_text == "fine"


def test_forward_odd_choice_of_a_whole_answer_to_a_stream_is_recorded(project: Project) -> None:
    body = completion("fine")
    body["choices"] += [5]
    script = json_answer(json.dumps(body).encode())
    with talking(script) as talk, gateway(project, talk.base_url) as one:
        assert one.post(asked("a", stream=True)).json() == body
        record = one.kept.wait()
        assert (record.status, record.response) == ("partial", body)
