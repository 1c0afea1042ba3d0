"""Callers and upstreams that speak different protocols, through a running gateway."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest

from ownweights.core.project import Project
from ownweights.gateway import Upstream
from ownweights.teacher.kinds import Kind
from tests.gateway.harness import DONE, WAIT_S, chunk, error_code, gateway
from tests.gateway.test_protocols import EVENTS, WHOLE, sse
from tests.teacher.servers import asked, completion, json_answer, sse_answer, talking

MESSAGE = json.dumps(WHOLE["messages"]).encode()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def behind(url: str, kind: str, **fields: Any) -> dict[str, Any]:
    upstream = Upstream("main", f"{url}/v1", kind=Kind(kind, max_tokens=99), **fields)
    return {"teachers": {"main": upstream}, "default_teacher": "main"}


def test_chat_caller_is_answered_by_messages(project: Project) -> None:
    with talking(json_answer(MESSAGE)) as talk:
        with gateway(project, None, **behind(talk.url, "anthropic")) as one, one.client() as client:
            answer = client.chat.completions.create(**asked("hello"))
            record = one.kept.wait()
        sent = json.loads(talk.body())
    assert talk.requests[0].startswith(b"POST /v1/messages ")
    assert (sent["max_tokens"], sent["messages"]) == (99, [{"role": "user", "content": "hello"}])
    assert talk.head()["x-api-key"] == "k"
    assert "authorization" not in talk.head()
    (choice,) = answer.choices
    assert (choice.message.content, choice.finish_reason) == ("a b", "tool_calls")
    assert (record.protocol, record.status, record.upstream) == ("chat", "ok", "main")
    assert record.answer_text == "a b"


def test_messages_caller_is_answered_by_chat(project: Project) -> None:
    with (
        talking(json_answer(json.dumps(completion("fine")).encode())) as talk,
        gateway(project, None, **behind(talk.url, "openai")) as one,
    ):
        client = anthropic.Anthropic(base_url=one.url, api_key="sk-mine", max_retries=0)
        answer = client.messages.create(
            model="m", max_tokens=5, messages=[{"role": "user", "content": "hello"}]
        )
        record = one.kept.wait()
    assert talk.requests[0].startswith(b"POST /v1/chat/completions ")
    assert talk.head()["authorization"] == "Bearer sk-mine"
    assert [block.text for block in answer.content if block.type == "text"] == ["fine"]
    assert (record.protocol, record.status) == ("messages", "ok")


def test_translated_stream_leaves_as_it_comes(project: Project) -> None:
    with (
        talking(sse_answer(*sse(EVENTS["messages"]))) as talk,
        gateway(project, None, **behind(talk.url, "anthropic")) as one,
        one.client() as client,
    ):
        stream = client.chat.completions.create(
            **asked("hello"), stream=True, stream_options={"include_usage": True}
        )
        chunks = list(stream)
        record = one.kept.wait()
    texts = [c.choices[0].delta.content or "" for c in chunks if c.choices]
    assert "".join(texts) == "a b"
    assert chunks[-1].usage is not None
    assert (record.status, record.answer_text) == ("ok", "a b")
    events = [chunk("a "), chunk("b"), chunk("", "stop"), DONE]
    with (
        talking(sse_answer(*events)) as talk,
        gateway(project, None, **behind(talk.url, "openai")) as one,
    ):
        client = anthropic.Anthropic(base_url=one.url, api_key="k", max_retries=0)
        with client.messages.stream(
            model="m", max_tokens=5, messages=[{"role": "user", "content": "hello"}]
        ) as told:
            assert "".join(told.text_stream) == "a b"
        assert one.kept.wait().status == "ok"


@pytest.mark.parametrize("kind", ["anthropic", "openai"])
def test_translated_stream_that_breaks_off_is_partial(project: Project, kind: str) -> None:
    is_chat = kind == "anthropic"
    events = sse(EVENTS["messages"][:4]) if is_chat else [chunk("a ")]
    with (
        talking(sse_answer(*events)) as talk,
        gateway(project, None, **behind(talk.url, kind)) as one,
    ):
        path = "chat/completions" if is_chat else "messages"
        body = {**asked("hello"), "max_tokens": 5, "stream": True}
        told = httpx.post(f"{one.base_url}/{path}", json=body, timeout=WAIT_S)
        record = one.kept.wait()
    assert told.status_code == 200
    assert b"broke off" in told.content
    assert record.status == "partial"


@pytest.mark.parametrize(("field", "value"), [("n", 2), ("logprobs", True), ("seed", 1)])
def test_translated_refuses_by_the_field(project: Project, field: str, value: Any) -> None:
    with talking(json_answer(MESSAGE)) as talk:
        with gateway(project, None, **behind(talk.url, "anthropic")) as one:
            answer = one.post({**asked("hello"), field: value})
            assert error_code(answer) == "400 unsupported_field"
            assert answer.json()["error"]["param"] == field
        assert talk.requests == []


def test_translated_errors_keep_status_and_words(project: Project) -> None:
    said = {"type": "error", "error": {"type": "rate_limit_error", "message": "slow down"}}
    script = json_answer(json.dumps(said).encode(), "429 Busy", "Retry-After: 7\r\n")
    with (
        talking(script) as talk,
        gateway(project, None, **behind(talk.url, "anthropic")) as one,
        one.client() as client,
    ):
        with pytest.raises(openai.RateLimitError, match="slow down") as caught:
            client.chat.completions.create(**asked("hello"))
        assert caught.value.response.headers["retry-after"] == "7"
        assert one.kept.wait().status == "error"


@pytest.mark.parametrize("body", [b"{}", b"[]", b"<html>", b"\xff"])
def test_translated_garbage_is_502(project: Project, body: bytes) -> None:
    with (
        talking(json_answer(body)) as talk,
        gateway(project, None, **behind(talk.url, "anthropic")) as one,
    ):
        assert error_code(one.post(asked("hello"))) == "502 teacher_garbled"


def test_failover_translates_for_the_next_teacher(project: Project) -> None:
    busy = json_answer(b"{}", "503 No")
    with talking(busy) as first, talking(json_answer(MESSAGE)) as second:
        teachers = {
            "a": Upstream("a", first.base_url, fallback=("b",)),
            "b": Upstream("b", second.base_url, "claude", kind=Kind("anthropic", max_tokens=9)),
        }
        with gateway(project, None, teachers=teachers, default_teacher="a") as one:
            assert one.post(asked("hello")).json()["choices"][0]["message"]["content"] == "a b"
            assert one.kept.wait().upstream == "b"
        assert json.loads(second.body())["model"] == "claude"


def test_other_protocols_are_not_translated(project: Project) -> None:
    with (
        talking(json_answer(MESSAGE)) as talk,
        gateway(project, None, **behind(talk.url, "anthropic")) as one,
    ):
        answer = httpx.post(f"{one.base_url}/embeddings", json={"input": "x"}, timeout=WAIT_S)
        assert error_code(answer) == "400 unsupported_protocol"
