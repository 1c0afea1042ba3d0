"""Passing through: what the teacher gets, what the caller gets back, and every way it can fail."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from ownweights.core.project import Project
from ownweights.gateway import Upstream
from tests.gateway.harness import WAIT_S, WHOLE, chunk, error_code, gateway
from tests.teacher.servers import (
    HANG,
    PAUSE,
    Talk,
    asked,
    completion,
    free_port,
    json_answer,
    running,
    sse_answer,
    talking,
)

GOOD_BODY = b' {"choices":[{"message": {"content":"fine"},"finish_reason":"stop"}],\n "new": 1e0 }'
GOOD = json_answer(GOOD_BODY)
DRIPS = [piece for _ in range(2000) for piece in (PAUSE, b"a")]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_forward_is_byte_exact(project: Project) -> None:
    sent = b'{ "model":"m",  "messages":[{"role":"user","content":"\\u00e4"}],"n":1.0,"new":{} }'
    with talking(GOOD) as talk, gateway(project, talk.base_url) as one:
        answer = one.post(sent)
        assert talk.body() == sent
        assert answer.content == GOOD_BODY


def test_forward_passes_headers_but_its_own_and_the_hops(project: Project) -> None:
    with talking(GOOD) as talk, gateway(project, talk.base_url) as one:
        one.post(
            asked("a"), authorization="Bearer sk-1", openai_organization="org", te="trailers",
            x_own_workload="w", x_own_session="s", proxy_authorization="p", cookie="c=1",
        )  # fmt: skip
        head = talk.head()
    assert head["authorization"] == "Bearer sk-1"
    assert (head["openai-organization"], head["cookie"]) == ("org", "c=1")
    assert head["host"] == talk.url.removeprefix("http://")
    assert not {"te", "proxy-authorization"} & set(head)
    assert [name for name in head if name.startswith("x-own")] == []


def test_forward_returns_headers_but_the_hops(project: Project) -> None:
    extra = (
        "x-ratelimit-remaining: 7\r\nset-cookie: a=1\r\nset-cookie: b=2\r\nkeep-alive: 5\r\n"
        "x-own-reason: forged\r\nx-own-teacher: replay\r\n"
    )
    script = json_answer(GOOD_BODY, extra=extra)
    with talking(script) as talk, gateway(project, talk.base_url) as one:
        headers = one.post(asked("a")).headers
    assert headers["x-ratelimit-remaining"] == "7"
    assert headers.get_list("set-cookie") == ["a=1", "b=2"]
    assert headers.get_list("x-own-reason") == ["no_route"]
    assert headers["x-own-teacher"] == "replay"
    assert "keep-alive" not in headers


def test_forward_keeps_the_query(project: Project) -> None:
    with talking(GOOD) as talk, gateway(project, talk.base_url + "/") as one:
        httpx.post(f"{one.chat_url}?api-version=2&a=%20b", json=asked("a"))
        assert talk.requests[0].startswith(
            b"POST /v1/chat/completions?api-version=2&a=%20b HTTP/1.1\r\n"
        )


def test_forward_operators_key_replaces_the_callers(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RENT_KEY", "sk-operator")
    with talking(GOOD) as talk:
        teachers = {"main": Upstream("main", talk.base_url, key_env="RENT_KEY")}
        with gateway(project, None, teachers=teachers, default_teacher="main") as one:
            one.post(asked("a"), authorization="Bearer sk-caller")
            assert b"sk-caller" not in talk.requests[0]
            assert talk.head()["authorization"] == "Bearer sk-operator"
            stored = json.dumps(one.kept.wait().metadata) + json.dumps(one.kept.wait().request)
            assert "sk-" not in stored


def test_forward_names_the_model_that_is_set(project: Project) -> None:
    with talking(GOOD) as talk:
        teachers = {"main": Upstream("main", talk.base_url, model="rented-2")}
        with gateway(project, None, teachers=teachers, default_teacher="main") as one:
            one.post(asked("a", new_field=[1]))
            assert json.loads(talk.body()) == {**asked("a", new_field=[1]), "model": "rented-2"}
            same = json.dumps({**asked("a"), "model": "rented-2"}, indent=3).encode()
            one.post(same)
            assert talk.body(1) == same
            assert one.kept.wait(2).request["model"] == "rented-2"


@pytest.mark.parametrize(
    ("coding", "pack"),
    [("gzip", gzip.compress), ("deflate", zlib.compress)],
)
def test_forward_compressed_answer_stays_compressed(
    project: Project, coding: str, pack: Any
) -> None:
    packed = pack(json.dumps(completion("fine")).encode())
    script = json_answer(packed, extra=f"Content-Encoding: {coding}\r\n")
    with talking(script) as talk, gateway(project, talk.base_url) as one:
        answer = one.post(asked("a"), accept_encoding=f"br, {coding}, zstd")
        assert talk.head()["accept-encoding"].strip() == coding
        assert answer.headers["content-encoding"] == coding
        assert answer.json() == completion("fine")
        assert one.kept.wait().answer_text == "fine"


def test_forward_bomb_is_not_unpacked(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ownweights.gateway.upstreams.answer.MAX_ANSWER_BYTES", 10_000)
    packed = gzip.compress(b" " * 1_000_000)
    script = json_answer(packed, extra="Content-Encoding: gzip\r\n")
    with talking(script) as talk, gateway(project, talk.base_url) as one:
        assert error_code(one.post(asked("a"))) == "502 teacher_garbled"


def test_forward_streams_are_asked_for_uncompressed(project: Project) -> None:
    with talking(sse_answer(*WHOLE)) as talk, gateway(project, talk.base_url) as one:
        one.post(asked("a", stream=True), accept_encoding="gzip")
        assert talk.head()["accept-encoding"] == "identity"


@pytest.mark.parametrize("status", ["400 Bad", "401 Who", "429 Busy", "500 Oops", "302 There"])
@pytest.mark.parametrize("body", [b'{"error": {"message": "no"}}', b"<h1>no</h1>", b""])
def test_forward_teachers_own_errors_pass_unchanged(
    project: Project, status: str, body: bytes
) -> None:
    script = json_answer(body, status, "Retry-After: 3\r\nLocation: http://elsewhere\r\n")
    with talking(script) as talk, gateway(project, talk.base_url) as one:
        for is_stream in (False, True):
            answer = one.post(asked("a", stream=is_stream))
            assert answer.status_code == int(status.split(maxsplit=1)[0])
            assert answer.content == body
            assert answer.headers["retry-after"] == "3"
        record = one.kept.wait(2)
    assert (record.status, record.response) == ("error", None)
    assert record.metadata["own"]["error"] == "teacher_refused"
    assert len(talk.requests) == 2


def test_forward_teacher_down_is_502(project: Project) -> None:
    with gateway(project, f"http://127.0.0.1:{free_port()}/v1") as one:
        for is_stream in (False, True):
            answer = one.post(asked("a", stream=is_stream))
            assert error_code(answer) == "502 teacher_unreachable"
            assert answer.headers["x-own-reason"] == "no_route"
        record = one.kept.wait(2)
        assert (record.status, record.response) == ("error", None)
        assert record.metadata["own"]["error"] == "teacher_unreachable"
        assert record.metadata["own"]["http_status"] == 502
        assert error_code(httpx.get(f"{one.base_url}/models")) == "502 teacher_unreachable"


def test_forward_impossible_address_is_502(project: Project) -> None:
    with gateway(project, "http://[::bad/v1") as one:
        assert error_code(one.post(asked("a"))) == "502 teacher_unreachable"


@pytest.mark.parametrize(
    "script",
    [
        [HANG],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{", HANG],
        [b"HTTP/1.1 200 OK\r\nX-A: ", *DRIPS],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n", *DRIPS],
    ],
    ids=["no answer", "half a body", "dripping head", "dripping body"],
)
def test_forward_slow_teacher_is_504(project: Project, script: list[bytes]) -> None:
    with talking(script) as talk, gateway(project, talk.base_url, timeout_s=0.1) as one:
        assert error_code(one.post(asked("a"))) == "504 teacher_timeout"
        assert one.kept.wait().metadata["own"]["error"] == "teacher_timeout"


@pytest.mark.parametrize(
    "script",
    [
        [b"SSH-2.0-OpenSSH_9.6\r\nConnection: close\r\n\r\n"],
        [b"Connection: close"],
        [b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 500\r\n\r\n{"],
        json_answer(b"<html>login</html>"),
        json_answer(b'{"choices": [{"messa'),
        json_answer(b"\xff\xfe"),
        json_answer(b"[]"),
        json_answer(b"[" * 200_000),
        json_answer(b'{"object": "list"}'),
        json_answer(b"{}", extra="Content-Encoding: gzip\r\n"),
        json_answer(GOOD_BODY, extra="Content-Encoding: br\r\n"),
    ],
    ids=[
        "not http", "half a line", "half a body", "html", "half json", "not text", "list", "deep",
        "no choices", "not gzip", "unasked coding",
    ],
)  # fmt: skip
def test_forward_garbage_is_502(project: Project, script: list[bytes]) -> None:
    with talking(script) as talk, gateway(project, talk.base_url) as one:
        assert error_code(one.post(asked("a"))) == "502 teacher_garbled"
        record = one.kept.wait()
        assert (record.status, record.response) == ("error", None)


def test_forward_endless_answer_is_cut(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ownweights.gateway.upstreams.answer.MAX_ANSWER_BYTES", 10_000)
    with talking(json_answer(b" " * 20_000)) as talk, gateway(project, talk.base_url) as one:
        assert error_code(one.post(asked("a"))) == "502 teacher_garbled"


def test_forward_truncated_answer_is_partial(project: Project) -> None:
    body = completion("cut")
    body["choices"][0]["finish_reason"] = "length"
    script = json_answer(json.dumps(body).encode())
    with talking(script) as talk, gateway(project, talk.base_url) as one:
        one.post(asked("a"))
        assert one.kept.wait().status == "partial"


def leave_early(talk: Talk, url: str, body: dict[str, Any], *, after_first: bool) -> None:
    """Ask, and close the connection before the answer is whole."""
    client = httpx.Client(timeout=WAIT_S)
    with client, client.stream("POST", url, json=body) as answer:
        if after_first:
            next(answer.iter_raw())


def test_forward_client_that_leaves_stops_the_teacher(project: Project) -> None:
    script = [*sse_answer(chunk("a "), ends=False), HANG]
    with talking(script) as talk, gateway(project, talk.base_url) as one:
        leave_early(talk, one.chat_url, asked("a", stream=True), after_first=True)
        record = one.kept.wait()
        assert (record.status, record.answer_text) == ("partial", "a ")
        assert record.metadata["own"]["error"] == "client_gone"
    assert talk.num_gone == 1


def test_forward_client_that_leaves_before_the_answer_is_partial(project: Project) -> None:
    with talking([HANG]) as talk, gateway(project, talk.base_url) as one:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(one.chat_url, json=asked("a"), timeout=httpx.Timeout(WAIT_S, read=0.05))
        record = one.kept.wait()
        assert (record.status, record.response) == ("partial", None)


@pytest.fixture(scope="module")
def replayed() -> Iterator[str]:
    from tests.teacher.servers import replay_of

    with running(replay_of({"hello": "HELLO"})) as url:
        yield f"{url}/v1"


def test_fetch_models_is_byte_exact(project: Project, replayed: str) -> None:
    with gateway(project, replayed) as one:
        ours, theirs = httpx.get(f"{one.base_url}/models"), httpx.get(f"{replayed}/models")
        assert (ours.status_code, ours.content) == (theirs.status_code, theirs.content)


def test_forward_client_that_leaves_after_the_end_got_it_all(
    project: Project, replayed: str
) -> None:
    with gateway(project, replayed) as one, one.client() as client:
        for count in range(1, 6):
            stream = client.chat.completions.create(**asked("hello"), stream=True)
            assert "".join(c.choices[0].delta.content or "" for c in stream) == "HELLO"
            stream.close()
            assert one.kept.wait(count).status == "ok"


def test_forward_many_streams_at_once(project: Project, replayed: str) -> None:
    import asyncio

    async def ask(client: openai.AsyncOpenAI) -> str:
        stream = await client.chat.completions.create(**asked("hello"), stream=True)
        return "".join([c.choices[0].delta.content or "" async for c in stream])

    async def ask_all(url: str) -> set[str]:
        async with openai.AsyncOpenAI(base_url=url, api_key="k") as client:
            return set(await asyncio.gather(*(ask(client) for _ in range(50))))

    with gateway(project, replayed) as one:
        assert asyncio.run(ask_all(one.base_url)) == {"HELLO"}
        one.kept.wait(50)
    assert {record.status for record in one.kept.records} == {"ok"}


def test_gateway_drains_what_a_caller_left(project: Project) -> None:
    script = [*sse_answer(WHOLE[0], ends=False), *[PAUSE] * 20, *sse_answer(*WHOLE[1:])[1:]]
    with (
        talking(script) as talk,
        gateway(project, talk.base_url, on_client_gone="drain") as one,
    ):
        leave_early(talk, one.chat_url, asked("a", stream=True), after_first=True)
        record = one.kept.wait()
    assert (record.status, record.answer_text) == ("ok", "a b")
    assert record.metadata["own"]["client_gone"] is True
    assert talk.num_gone == 0


def test_gateway_blocks_while_records_have_no_room(project: Project) -> None:
    with (
        talking(GOOD) as talk,
        gateway(project, talk.base_url, on_full="block", timeout_s=0.2) as one,
    ):
        one.kept.room = False
        assert error_code(one.post(asked("a"))) == "503 recorder_full"
        assert one.post(asked("a"), x_own_no_store="1").status_code == 200
        one.kept.room = True
        assert one.post(asked("a")).status_code == 200
    with talking(GOOD) as talk, gateway(project, talk.base_url) as one:
        one.kept.room = False
        assert one.post(asked("a")).status_code == 200


def test_forward_after_a_half_read_answer_uses_a_new_connection(project: Project) -> None:
    busy = json_answer(b"x" * 100_000, "503 No")

    def script(index: int) -> list[bytes]:
        return busy if index == 0 else GOOD

    with talking(script) as talk, gateway(project, talk.base_url, max_retries=1) as one:
        assert one.post(asked("a")).content == GOOD_BODY
        assert len(talk.requests) == 2
