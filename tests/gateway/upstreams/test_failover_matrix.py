"""Every way a first teacher fails × streamed or not × what the second does: one answer, one record.

A failure before the first byte of an answer is another teacher's turn; whatever the last of them
said is the caller's; and each request is recorded exactly once.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from ownweights.core.project import Project
from ownweights.gateway import Upstream
from ownweights.teacher.kinds import Kind
from ownweights.teacher.serving import bind
from tests.gateway.harness import WHOLE, Running, error_code, gateway
from tests.gateway.test_protocols import EVENTS, sse
from tests.gateway.test_protocols import WHOLE as BODIES
from tests.teacher.servers import (
    HANG,
    asked,
    completion,
    free_port,
    json_answer,
    sse_answer,
    talking,
)

FIRST_S = 0.2  # how long the first teacher may take to begin
RESET = struct.pack("ii", 1, 0)  # SO_LINGER of no time: the connection ends in a reset
STATUSES = (408, 425, 429, 500, 502, 503, 504, 529)
GOOD = json_answer(json.dumps(completion("a b")).encode())
REFUSAL = b'{"error": {"message": "not now", "type": "server_error", "param": null, "code": null}}'
CLOSED: dict[str, list[bytes]] = {
    "left at once": [],
    "left in its head": [b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Ty"],
    "slow head": [HANG],
    "half a slow head": [b"HTTP/1.1 200 OK\r\nContent-Type: appl", HANG],
    "another protocol": [b"SSH-2.0-OpenSSH_9.6\r\nConnection: close\r\n\r\n"],
    "a bad status": [b"HTTP/1.1 9999 What\r\nConnection: close\r\n\r\n"],
    "a bad header": [b"HTTP/1.1 200 OK\r\nX-\x00: 1\r\nConnection: close\r\n\r\n"],
    **{str(one): json_answer(REFUSAL, f"{one} Later", "Retry-After: 60\r\n") for one in STATUSES},
}
RESETS = {"reset before its head": b"", "reset in its head": b"HTTP/1.1 200 OK\r\nContent-"}
FAILURES: tuple[str, ...] = ("refused", *CLOSED, *RESETS)


@contextlib.contextmanager
def resetting(said: bytes) -> Iterator[str]:
    """The address of an upstream that reads a request, says this, and resets the connection."""
    listener = bind("127.0.0.1", 0)
    listener.listen(8)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                one, _ = listener.accept()
                with one:
                    one.recv(2**16)
                    one.sendall(said)
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(30)
    assert not thread.is_alive()


@contextlib.contextmanager
def failing(how: str) -> Iterator[str]:
    """The address of a teacher that fails in this way."""
    if how == "refused":
        yield f"http://127.0.0.1:{free_port()}/v1"
    elif how in RESETS:
        with resetting(RESETS[how]) as url:
            yield url
    else:
        with talking(CLOSED[how]) as talk:
            yield talk.base_url


@contextlib.contextmanager
def both(project: Project, first: str, second: str, kind: str = "openai") -> Iterator[Running]:
    stand_in = Upstream("b", second, kind=Kind(kind, max_tokens=9))
    teachers = {"a": Upstream("a", first, fallback=("b",), timeout_s=FIRST_S), "b": stand_in}
    with gateway(project, None, teachers=teachers, default_teacher="a") as one:
        yield one


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def text_of(answer: httpx.Response, *, is_stream: bool) -> str:
    """The answer's text, whole or put together from its events."""
    if not is_stream:
        return answer.json()["choices"][0]["message"]["content"]
    lines = [line[6:] for line in answer.text.splitlines() if line.startswith("data: {")]
    deltas = [choice["delta"] for line in lines for choice in json.loads(line)["choices"]]
    return "".join(delta.get("content") or "" for delta in deltas)


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("how", FAILURES)
def test_failover_of_every_failure_is_answered_and_kept_once(
    project: Project, how: str, is_stream: bool
) -> None:
    good = sse_answer(*WHOLE) if is_stream else GOOD
    with failing(how) as first, talking(good) as second:
        with both(project, first, second.base_url) as one:
            answer = one.post(asked("hello", stream=is_stream))
            assert answer.status_code == 200
            assert text_of(answer, is_stream=is_stream) == "a b"
            record = one.kept.wait()
        assert len(second.requests) == 1
        assert json.loads(second.body()) == asked("hello", stream=is_stream)
    assert [record.id for record in one.kept.records] == [answer.headers["x-own-request-id"]]
    assert (record.upstream, record.status, record.answer_text) == ("b", "ok", "a b")
    assert "error" not in (record.metadata["own"] or {})


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("how", FAILURES)
def test_failover_to_a_teacher_of_messages_is_answered_and_kept_once(
    project: Project, how: str, is_stream: bool
) -> None:
    events, whole = sse(EVENTS["messages"]), json.dumps(BODIES["messages"]).encode()
    good = sse_answer(*events) if is_stream else json_answer(whole)
    with failing(how) as first, talking(good) as second:
        with both(project, first, second.base_url, "anthropic") as one:
            answer = one.post(asked("hello", stream=is_stream), authorization="Bearer sk-mine")
            assert text_of(answer, is_stream=is_stream) == "a b"
            record = one.kept.wait()
        assert second.requests[0].startswith(b"POST /v1/messages ")
        assert "x-api-key" not in second.head()  # the caller's key is for the first teacher
        assert json.loads(second.body())["max_tokens"] == 9
    assert len(one.kept.records) == 1
    assert (record.upstream, record.protocol, record.status) == ("b", "chat", "ok")
    assert record.answer_text == "a b"


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("how", FAILURES)
def test_failover_to_a_teacher_that_fails_gives_its_error_and_is_kept_once(
    project: Project, how: str, is_stream: bool
) -> None:
    bad = json_answer(REFUSAL, "503 Later", "Retry-After: 7\r\n")
    with failing(how) as first, talking(bad) as second:
        with both(project, first, second.base_url) as one:
            answer = one.post(asked("hello", stream=is_stream))
            record = one.kept.wait()
        assert len(second.requests) == 1
    assert (answer.status_code, answer.content) == (503, REFUSAL)
    assert answer.headers["retry-after"] == "7"
    assert len(one.kept.records) == 1
    assert (record.upstream, record.status, record.response) == ("b", "error", None)
    assert record.metadata["own"]["error"] == "teacher_refused"


@pytest.mark.parametrize("how", [one for one in FAILURES if "slow" not in one])
def test_failover_with_nobody_left_says_what_the_last_one_did(project: Project, how: str) -> None:
    down = f"http://127.0.0.1:{free_port()}/v1"
    with failing(how) as last, both(project, down, last) as one:
        answer = one.post(asked("hello"), x_own_workload="w")
        record = one.kept.wait()
    if how in map(str, STATUSES):
        assert (answer.status_code, answer.content) == (int(how), REFUSAL)
    else:
        assert error_code(answer) in ("502 teacher_unreachable", "502 teacher_garbled")
    assert len(one.kept.records) == 1
    assert (record.upstream, record.workload, record.status) == ("b", "w", "error")


WRONG = (400, 401, 402, 403, 404, 405, 409, 413, 415, 422, 451)


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("status", WRONG)
def test_failover_never_for_a_status_that_will_not_pass(
    project: Project, status: int, is_stream: bool
) -> None:
    wrong = json_answer(REFUSAL, f"{status} No")
    with talking(wrong) as first, talking(GOOD) as second:
        with both(project, first.base_url, second.base_url) as one:
            answer = one.post(asked("hello", stream=is_stream))
            record = one.kept.wait()
        assert (len(first.requests), second.requests) == (1, [])
    assert (answer.status_code, answer.content) == (status, REFUSAL)
    assert (len(one.kept.records), record.upstream, record.status) == (1, "a", "error")


def test_failover_passes_over_a_teacher_that_cannot_be_asked_this(project: Project) -> None:
    busy = json_answer(REFUSAL, "429 Later", "Retry-After: 60\r\n")
    body = asked("hello", logit_bias={"5": 1})
    with talking(busy) as first, talking(GOOD) as messages, talking(GOOD) as third:
        teachers = {
            "a": Upstream("a", first.base_url, fallback=("b", "c")),
            "b": Upstream("b", messages.base_url, kind=Kind("anthropic", max_tokens=9)),
            "c": Upstream("c", third.base_url),
        }
        with gateway(project, None, teachers=teachers, default_teacher="a") as one:
            assert one.post(body).json() == completion("a b")
            assert one.kept.wait().upstream == "c"
        assert (messages.requests, len(third.requests)) == ([], 1)
        with both(project, first.base_url, messages.base_url, "anthropic") as one:
            answer = one.post(body)
            assert (answer.status_code, answer.content) == (429, REFUSAL)
            assert one.kept.wait().upstream == "a"


@pytest.mark.parametrize(
    "cut",
    [lambda: sse_answer(WHOLE[0], ends=False), lambda: [*sse_answer(WHOLE[0], ends=False), HANG]],
    ids=["cut", "stalled"],
)
def test_failover_never_after_the_first_event(
    project: Project, cut: Callable[[], list[bytes]]
) -> None:
    with talking(cut()) as first, talking(sse_answer(*WHOLE)) as second:
        teachers: dict[str, Any] = {
            "a": Upstream("a", first.base_url, fallback=("b",)),
            "b": Upstream("b", second.base_url),
        }
        named: dict[str, Any] = {"teachers": teachers, "default_teacher": "a"}
        with gateway(project, None, timeout_s=FIRST_S, **named) as one:
            content = one.post(asked("hello", stream=True)).content
            record = one.kept.wait()
        assert second.requests == []
    assert content.startswith(WHOLE[0]) and b'"error"' in content[len(WHOLE[0]) :]
    assert (len(one.kept.records), record.upstream, record.status) == (1, "a", "partial")
    assert record.answer_text == "a "
