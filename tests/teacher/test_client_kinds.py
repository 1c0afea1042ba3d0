"""The teacher client before Azure's API and Anthropic's: the contract, and what each does wrong."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from ownweights.core.chat import ChatRequest, Completion, CompletionChunk, Usage
from ownweights.core.errors import (
    CompleterGarbled,
    CompleterRefused,
    CompleterTimeout,
    InputError,
)
from ownweights.teacher import TeacherClient
from ownweights.teacher.kinds import Kind
from tests.core.completer_contract import CompleterCase, CompleterContract, collect
from tests.teacher.servers import (
    HANG,
    Script,
    Talk,
    asked,
    completion,
    json_answer,
    sse_answer,
    talking,
)

HELLO = ChatRequest(asked("hello"))
KEY = "sk-very-secret"
AZURE = Kind("azure", "2024-10-21")
ANTHROPIC = Kind("anthropic", max_tokens=77)
CHAT = json_answer(json.dumps(completion("Good day!")).encode())
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}


def message(*blocks: dict[str, Any], stop: str = "end_turn", **fields: Any) -> list[bytes]:
    """An HTTP answer of Messages; without blocks, a text."""
    body = {
        "id": "m1", "type": "message", "role": "assistant", "model": "rented-1",
        "content": list(blocks) or [{"type": "text", "text": "Good day!"}], "stop_reason": stop,
        "stop_sequence": None, "usage": {"input_tokens": 5, "output_tokens": 3}, **fields,
    }  # fmt: skip
    return json_answer(json.dumps(body).encode())


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


def complete(
    script: Script, request: ChatRequest = HELLO, **options: Any
) -> tuple[Completion, Talk]:
    """The answer of an upstream that talks by script."""
    options = {"max_retries": 0, "kind": ANTHROPIC, "api_key": KEY, **options}

    async def use(url: str) -> Completion:
        async with TeacherClient(url, **options) as client:
            return await client.complete(request)

    with talking(script) as talk:
        return asyncio.run(use(talk.base_url)), talk


def stream(script: Script, request: ChatRequest = HELLO, **options: Any) -> list[CompletionChunk]:
    """The pieces of an upstream's answer that talks by script."""
    options = {"max_retries": 0, "kind": ANTHROPIC, **options}

    async def use(url: str) -> list[CompletionChunk]:
        async with TeacherClient(url, **options) as client:
            return await collect(client.stream(request))

    with talking(script) as talk:
        return asyncio.run(use(talk.base_url))


class TestAnthropicClient(CompleterContract):
    """A client of Messages passes the contract of every Completer."""

    @pytest.fixture
    def case(self) -> Iterator[CompleterCase]:
        with talking(message()) as talk, talking([HANG]) as stuck:
            yield CompleterCase(
                make=lambda: TeacherClient(talk.base_url, kind=ANTHROPIC, max_retries=0),
                make_stuck=lambda: TeacherClient(stuck.base_url, kind=ANTHROPIC, max_retries=0),
                request=HELLO, expected="Good day!",
            )  # fmt: skip


class TestAzureClient(CompleterContract):
    """A client of Azure's API passes the contract of every Completer."""

    @pytest.fixture
    def case(self) -> Iterator[CompleterCase]:
        def script(index: int) -> list[bytes]:
            is_stream = json.loads(talk.body(index)).get("stream")
            return sse_answer(*PIECES) if is_stream else CHAT

        with talking(script) as talk:
            yield CompleterCase(
                make=lambda: TeacherClient(talk.url, kind=AZURE, model="dep", max_retries=0),
                request=HELLO, expected="Good day!",
            )  # fmt: skip


def _piece(said: str, reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": said}, "finish_reason": reason}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


PIECES = (_piece("Good "), _piece("day!"), _piece("", "stop"), b"data: [DONE]\n\n")


def test_anthropic_is_asked_as_it_expects() -> None:
    _, talk = complete(message(), model="rented-9")
    assert talk.requests[0].startswith(b"POST /v1/messages HTTP/1.1\r\n")
    assert talk.head()["x-api-key"] == KEY
    assert talk.head()["anthropic-version"] == "2023-06-01"
    assert "authorization" not in talk.head() and "api-key" not in talk.head()
    assert json.loads(talk.body()) == {
        "model": "rented-9", "max_tokens": 77, "messages": [{"role": "user", "content": "hello"}],
    }  # fmt: skip


@pytest.mark.parametrize("model", ["dep", "a b", "a/b?c#d", "größer", "...", "%2f", "%2e%2e"])
def test_azure_names_the_deployment_in_its_path(model: str) -> None:
    from urllib.parse import unquote, urlsplit

    _, talk = complete(CHAT, kind=AZURE, model=model)
    target = talk.requests[0].split(b" ")[1].decode()
    _, *parts = urlsplit(target).path.split("/")
    assert [unquote(one) for one in parts] == [
        "v1", "openai", "deployments", model, "chat", "completions",
    ]  # fmt: skip
    assert urlsplit(target).query == "api-version=2024-10-21"
    assert talk.head()["api-key"] == KEY and "authorization" not in talk.head()


@pytest.mark.parametrize("model", [".", ".."])
def test_azure_deployment_is_no_step_within_the_path(model: str) -> None:
    with pytest.raises(InputError, match="names no Azure deployment"):
        complete(CHAT, kind=AZURE, model=model)


def test_azure_without_a_version_is_asked_as_its_newer_api() -> None:
    _, talk = complete(CHAT, kind=Kind("azure"), model="dep")
    assert talk.requests[0].startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
    assert talk.head()["api-key"] == KEY


def test_azure_takes_the_requests_own_model_for_its_deployment() -> None:
    _, talk = complete(CHAT, kind=AZURE)
    assert b"/deployments/any/chat/completions" in talk.requests[0]


@pytest.mark.parametrize(
    ("fields", "most"),
    [({}, 77), ({"max_tokens": 5}, 5), ({"max_completion_tokens": 6}, 6)],
)
def test_anthropic_limit_is_the_requests_own_before_the_teachers(
    fields: dict[str, Any], most: int
) -> None:
    _, talk = complete(message(), ChatRequest(asked("hello", **fields)))
    assert json.loads(talk.body())["max_tokens"] == most


def test_anthropic_without_any_limit_is_refused_before_it_is_asked() -> None:
    with talking(message()) as talk:

        async def use() -> None:
            async with TeacherClient(talk.base_url, kind=Kind("anthropic")) as client:
                await client.complete(HELLO)

        with pytest.raises(InputError, match="without a limit"):
            asyncio.run(use())
        assert talk.requests == []


@pytest.mark.parametrize(
    "field", [{"n": 2}, {"logprobs": True}, {"logit_bias": {"5": 1}}, {"brand_new": 1}]
)
def test_anthropic_refuses_what_messages_cannot_say(field: dict[str, Any]) -> None:
    for ask in (complete, stream):
        with pytest.raises(InputError, match=next(iter(field))):
            ask(message(), ChatRequest(asked("hello", **field)))


def test_anthropic_answer_is_a_completion_with_its_usage() -> None:
    done, _ = complete(message(text("Good "), text("day!"), id="m9"))
    assert (done.text, done.finish_reason, done.model) == ("Good day!", "stop", "rented-1")
    assert done.usage == Usage(5, 3)
    assert done.body is not None and done.body["id"] == "m9"
    assert done.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("stop", "finish"),
    [("end_turn", "stop"), ("stop_sequence", "stop"), ("max_tokens", "length"),
     ("refusal", "content_filter")],
)  # fmt: skip
def test_anthropic_end_is_said_in_chats_words(stop: str, finish: str) -> None:
    script = message(stop=stop)
    assert complete(script)[0].finish_reason == finish
    assert stream(script)[-1].finish_reason == finish


def test_anthropic_tool_calls_are_asked_and_answered_in_chats_form() -> None:
    use = {"type": "tool_use", "id": "t1", "name": "look", "input": {"x": [1, "ä"]}}
    done, talk = complete(
        message(use, stop="tool_use"), ChatRequest(asked("hello", tools=[TOOL]))
    )  # fmt: skip
    (tool,) = json.loads(talk.body())["tools"]
    assert (tool["name"], tool["input_schema"]) == ("look", {"type": "object"})
    (call,) = done.message["tool_calls"]
    assert (done.text, done.finish_reason) == (None, "tool_calls")
    assert (call["id"], call["function"]["name"]) == ("t1", "look")
    assert json.loads(call["function"]["arguments"]) == {"x": [1, "ä"]}


def test_anthropic_tool_results_go_back_as_its_own_turns() -> None:
    call = {"id": "t1", "type": "function", "function": {"name": "look", "arguments": '{"x": 1}'}}
    turns = [
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "t1", "content": "seen"},
    ]  # fmt: skip
    _, talk = complete(message(), ChatRequest({"model": "m", "messages": turns, "tools": [TOOL]}))
    sent = json.loads(talk.body())
    assert "Be brief." in json.dumps(sent["system"])
    assert [turn["role"] for turn in sent["messages"]] == ["user", "assistant", "user"]
    (used,) = sent["messages"][1]["content"]
    assert (used["type"], used["id"], used["input"]) == ("tool_use", "t1", {"x": 1})
    (result,) = sent["messages"][2]["content"]
    assert (result["type"], result["tool_use_id"]) == ("tool_result", "t1")


def test_anthropic_stream_is_its_answer_in_one_piece() -> None:
    (piece,) = stream(message())
    assert (piece.text, piece.finish_reason, piece.usage) == ("Good day!", "stop", Usage(5, 3))


@pytest.mark.parametrize(
    "script",
    [
        json_answer(b"{}"), json_answer(b"[]"), json_answer(b"no"), json_answer(b"\xff"),
        json_answer(b'{"content": "text"}'), CHAT, message({"type": "tool_use"}),
        message({"type": "text", "text": 3}), message({"text": "untyped"}),
        message(stop="brand_new"), json_answer(b"[" * 100_000),
    ],
    ids=["empty", "list", "no json", "no text", "content", "chat", "half a call", "number",
         "untyped", "stop", "deep"],
)  # fmt: skip
def test_anthropic_garbage_is_garbled(script: list[bytes]) -> None:
    for ask in (complete, stream):
        with pytest.raises(CompleterGarbled):
            ask(script)


@pytest.mark.parametrize("kind", [ANTHROPIC, AZURE], ids=lambda kind: kind.name)
@pytest.mark.parametrize("status", ["400 Bad", "401 Who", "404 None", "413 Long", "422 Odd"])
def test_kinds_refusals_carry_status_and_message_but_no_key(kind: Kind, status: str) -> None:
    said = {"type": "error", "error": {"type": "invalid_request_error", "message": f"bad {KEY}"}}
    script = json_answer(json.dumps(said).encode(), status)
    with pytest.raises(CompleterRefused) as caught:
        complete(script, kind=kind, max_retries=3)
    assert caught.value.status == int(status[:3])
    assert "bad ***" in str(caught.value) and KEY not in str(caught.value)


@pytest.mark.parametrize("kind", [ANTHROPIC, AZURE], ids=lambda kind: kind.name)
@pytest.mark.parametrize("status", ["408 Slow", "429 Busy", "500 Oops", "503 No", "529 Overloaded"])
def test_kinds_try_again_what_may_pass(kind: Kind, status: str) -> None:
    waits_s: list[float] = []

    async def pause(seconds: float) -> None:
        waits_s.append(seconds)

    good = message() if kind.speaks_messages else CHAT
    busy = json_answer(b"{}", status, "Retry-After: 3\r\n")
    done, talk = complete(
        lambda index: good if index else busy, kind=kind, max_retries=1, pause=pause
    )
    assert (done.text, waits_s, len(talk.requests)) == ("Good day!", [3.0], 2)
    assert talk.body(0) == talk.body(1) and talk.head(0) == talk.head(1)


def test_anthropic_broken_connections_are_ours() -> None:
    with pytest.raises(CompleterGarbled):
        complete([b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 500\r\n\r\n{"])
    with pytest.raises(CompleterTimeout):
        complete([b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{", HANG], timeout_s=0.1)


@pytest.mark.parametrize(
    ("kind", "target"),
    [(Kind(), b"/v1/models"), (ANTHROPIC, b"/v1/models"), (Kind("azure"), b"/v1/models"),
     (AZURE, b"/v1/openai/models?api-version=2024-10-21")],
    ids=["openai", "anthropic", "azure", "azure dated"],
)  # fmt: skip
def test_models_are_listed_by_every_kind(kind: Kind, target: bytes) -> None:
    async def use(url: str) -> list[str]:
        async with TeacherClient(url, kind=kind, api_key=KEY, model="m") as client:
            return await client.models()

    listed = {"data": [{"type": "model", "id": "m1"}, {"id": "m2"}, {"other": 1}], "has_more": True}
    with talking(json_answer(json.dumps(listed).encode())) as talk:
        assert asyncio.run(use(talk.base_url)) == ["m1", "m2"]
    assert talk.requests[0].startswith(b"GET " + target + b" HTTP/1.1\r\n")
    name, value = kind.key_header(KEY)
    assert talk.head()[name] == value
    assert ("anthropic-version" in talk.head()) == kind.speaks_messages
