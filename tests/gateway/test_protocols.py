"""Every protocol passes byte for byte, and what it spelled is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownweights.core.project import Project
from ownweights.gateway import Upstream
from ownweights.gateway.protocols import PROTOCOLS
from ownweights.teacher.kinds import Kind
from tests.gateway.harness import WAIT_S, gateway
from tests.teacher.servers import json_answer, sse_answer, talking

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["choices", "index", "text", "type", "delta", "message", "content_block",
                         "response", "usage", "content", "finish_reason", "partial_json"]),
        inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
WHOLE: dict[str, dict[str, Any]] = {
    "completions": {
        "id": "c", "object": "text_completion", "model": "m",
        "choices": [{"index": 0, "text": "a b", "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2},
    },
    "embeddings": {
        "object": "list", "model": "m", "data": [{"index": 0, "embedding": [0.5, 1e-3]}],
        "usage": {"prompt_tokens": 3, "total_tokens": 3},
    },
    "responses": {
        "id": "r", "object": "response", "status": "completed", "model": "m",
        "output": [{"type": "message", "content": [{"type": "output_text", "text": "a b"}]}],
        "usage": {"input_tokens": 3, "output_tokens": 2},
    },
    "messages": {
        "id": "m", "type": "message", "role": "assistant", "model": "m",
        "content": [{"type": "text", "text": "a b"},
                    {"type": "tool_use", "id": "t", "name": "f", "input": {"x": [1]}}],
        "stop_reason": "tool_use", "stop_sequence": None,
        "usage": {"input_tokens": 3, "output_tokens": 2},
    },
}  # fmt: skip
EVENTS: dict[str, list[dict[str, Any]]] = {
    "completions": [
        {"id": "c", "object": "text_completion", "model": "m",
         "choices": [{"index": 0, "text": "a ", "finish_reason": None}]},
        {"id": "c", "choices": [{"index": 0, "text": "b", "finish_reason": "stop"}]},
        {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}},
    ],
    "responses": [
        {"type": "response.created", "response": {"id": "r", "status": "in_progress"}},
        {"type": "response.output_text.delta", "delta": "a b"},
        {"type": "response.completed", "response": WHOLE["responses"]},
    ],
    "messages": [
        {"type": "message_start", "message": {
            "id": "m", "type": "message", "role": "assistant", "model": "m", "content": [],
            "stop_reason": None, "stop_sequence": None,
            "usage": {"input_tokens": 3, "output_tokens": 1}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a "}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "b"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1,
         "content_block": {"type": "tool_use", "id": "t", "name": "f", "input": {}}},
        {"type": "content_block_delta", "index": 1,
         "delta": {"type": "input_json_delta", "partial_json": '{"x": '}},
        {"type": "content_block_delta", "index": 1,
         "delta": {"type": "input_json_delta", "partial_json": "[1]}"}},
        {"type": "content_block_stop", "index": 1},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use", "stop_sequence": None},
         "usage": {"output_tokens": 2}},
        {"type": "message_stop"},
    ],
}  # fmt: skip
ASKED = b'{ "model":"m", "input": "hi", "max_tokens":5.0,"messages":[], "new":{"a":1e0} }'


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def settings(url: str, name: str) -> dict[str, Any]:
    kind = Kind("anthropic" if name == "messages" else "openai")
    return {"teachers": {"main": Upstream("main", f"{url}/v1", kind=kind)}}


def sse(events: list[dict[str, Any]]) -> list[bytes]:
    typed = [f"event: {e['type']}\n".encode() if "type" in e else b"" for e in events]
    data = [b"data: " + json.dumps(event).encode() + b"\n\n" for event in events]
    return [head + body for head, body in zip(typed, data, strict=True)]


@pytest.mark.parametrize("name", WHOLE)
def test_gateway_passes_every_protocol_byte_for_byte(project: Project, name: str) -> None:
    said = json.dumps(WHOLE[name], indent=1).encode()
    with (
        talking(json_answer(said)) as talk,
        gateway(project, None, default_teacher="main", **settings(talk.url, name)) as one,
    ):
        url = f"{one.base_url}/{name}"
        answer = httpx.post(url, content=ASKED, timeout=WAIT_S)
        record = one.kept.wait()
        assert (answer.status_code, answer.content) == (200, said)
        assert talk.body() == ASKED
        assert talk.requests[0].startswith(f"POST /v1/{name} ".encode())
    assert (record.protocol, record.status) == (name, "ok")
    assert record.response == WHOLE[name]
    assert record.request == json.loads(ASKED)
    assert record.usage.prompt_tokens == 3


@pytest.mark.parametrize("name", EVENTS)
def test_gateway_passes_every_stream_byte_for_byte(project: Project, name: str) -> None:
    events = sse(EVENTS[name])
    asked = ASKED.replace(b'"model"', b'"stream": true, "model"')
    with (
        talking(sse_answer(*events)) as talk,
        gateway(project, None, default_teacher="main", **settings(talk.url, name)) as one,
    ):
        answer = httpx.post(f"{one.base_url}/{name}", content=asked, timeout=WAIT_S)
        record = one.kept.wait()
    assert answer.content == b"".join(events)
    assert record.status == "ok"
    assert record.response == WHOLE[name]


@pytest.mark.parametrize("name", EVENTS)
def test_gateway_keeps_half_a_stream_as_partial(project: Project, name: str) -> None:
    events = sse(EVENTS[name][:2])
    asked = ASKED.replace(b'"model"', b'"stream": true, "model"')
    with (
        talking(sse_answer(*events, ends=False)) as talk,
        gateway(project, None, default_teacher="main", **settings(talk.url, name)) as one,
    ):
        httpx.post(f"{one.base_url}/{name}", content=asked, timeout=WAIT_S)
        assert one.kept.wait().status == "partial"


@pytest.mark.parametrize("name", EVENTS)
def test_assemble_gives_the_whole_answer(name: str) -> None:
    protocol = PROTOCOLS[f"/v1/{name}"]
    body = protocol.assemble(EVENTS[name])
    assert body == WHOLE[name]
    assert protocol.status(body) == "ok"


@pytest.mark.parametrize("path", PROTOCOLS)
@given(events=st.lists(JSON, max_size=6))
def test_protocols_take_any_json(path: str, events: list[Any]) -> None:
    protocol = PROTOCOLS[path]
    protocol.status(protocol.assemble(events))
    for event in events:
        protocol.is_answer(event)
        protocol.status(event if isinstance(event, dict) else None)


def test_gateway_gives_an_error_of_another_protocol_unchanged(project: Project) -> None:
    said = b'{"type":"error","error":{"type":"overloaded_error","message":"later"}}'
    script = json_answer(said, "529 Overloaded")
    with (
        talking(script) as talk,
        gateway(project, None, default_teacher="main", **settings(talk.url, "messages")) as one,
    ):
        answer = httpx.post(f"{one.base_url}/messages", content=ASKED, timeout=WAIT_S)
        assert (answer.status_code, answer.content) == (529, said)
        assert one.kept.wait().status == "error"
