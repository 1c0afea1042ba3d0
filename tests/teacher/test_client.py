"""The teacher client: the Completer contract over HTTP, and everything an endpoint can do wrong."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ownweights.core.chat import ChatRequest, Completion, CompletionChunk, Usage
from ownweights.core.errors import (
    CompleterError,
    CompleterGarbled,
    CompleterRefused,
    CompleterTimeout,
    SettingsError,
)
from ownweights.teacher import TeacherClient
from ownweights.teacher.client import MAX_WAIT_S
from ownweights.teacher.wire import sse_event
from tests.core.completer_contract import CompleterCase, CompleterContract, collect
from tests.teacher.servers import (
    HANG,
    Script,
    Talk,
    asked,
    completion,
    free_port,
    json_answer,
    replay_of,
    running,
    sse_answer,
    talking,
)

HELLO = ChatRequest(asked("hello"))
GOOD = json_answer(json.dumps(completion("fine")).encode())
KEY = "sk-very-secret"
DONE = b"data: [DONE]\n\n"


def chunk(text: str | None = None, reason: str | None = None, **fields: Any) -> bytes:
    delta = {} if text is None else {"content": text}
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return sse_event({"object": "chat.completion.chunk", "choices": [choice], **fields})


@pytest.fixture(scope="module")
def replay_url() -> Iterator[str]:
    with running(replay_of({"hello": "Good day to you!"})) as url:
        yield f"{url}/v1"


class TestTeacherClient(CompleterContract):
    """The client passes the contract of every Completer."""

    @pytest.fixture
    def case(self, replay_url: str) -> CompleterCase:
        return CompleterCase(
            make=lambda: TeacherClient(replay_url), request=HELLO, expected="Good day to you!"
        )


class Pauses:
    """Notes how long the client would have waited, and waits not at all."""

    def __init__(self) -> None:
        self.waits_s: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.waits_s.append(seconds)


def complete(script: Script, **options: Any) -> tuple[Completion, Talk]:
    """The answer of an upstream that talks by script."""
    options.setdefault("max_retries", 0)

    async def use(url: str) -> Completion:
        async with TeacherClient(url, **options) as client:
            return await client.complete(HELLO)

    with talking(script) as talk:
        return asyncio.run(use(talk.base_url)), talk


def stream(script: Script, **options: Any) -> list[CompletionChunk]:
    """The chunks of an upstream that talks by script."""
    options.setdefault("max_retries", 0)

    async def use(url: str) -> list[CompletionChunk]:
        async with TeacherClient(url, **options) as client:
            return await collect(client.stream(HELLO))

    with talking(script) as talk:
        return asyncio.run(use(talk.base_url))


def test_complete_sends_what_the_endpoint_expects() -> None:
    _, talk = complete(GOOD, api_key=KEY)
    assert talk.requests[0].startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
    assert talk.head()["authorization"] == f"Bearer {KEY}"
    assert talk.head()["content-type"] == "application/json"
    assert json.loads(talk.body()) == {**asked("hello"), "stream": False}


def test_complete_without_a_key_sends_none() -> None:
    _, talk = complete(GOOD)
    assert "authorization" not in talk.head()


def test_complete_asks_for_the_model_it_is_set_to() -> None:
    _, talk = complete(GOOD, model="gpt-y")
    assert json.loads(talk.body())["model"] == "gpt-y"


def test_complete_returns_the_whole_body() -> None:
    found, _ = complete(GOOD)
    assert (found.text, found.model, found.body) == ("fine", "rented-1", completion("fine"))


@pytest.mark.parametrize(
    "body",
    [
        b"<html>hello</html>",
        b'{"choices": [{"mess',
        b"\xff\xfe",
        b"null",
        b'{"choices": []}',
        b'{"choices": [{"message": {"content": 7}}]}',
        b"[" * 200_000,
    ],
)
def test_client_garbage_is_garbled(body: bytes) -> None:
    with pytest.raises(CompleterGarbled):
        complete(json_answer(body))


@pytest.mark.parametrize(
    "said",
    [
        b"SSH-2.0-OpenSSH_9.6\r\nConnection: close\r\n\r\n",
        b"Connection: close",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 500\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd",
    ],
    ids=["not http", "half a line", "half a body", "not gzip"],
)
def test_client_broken_http_is_garbled(said: bytes) -> None:
    with pytest.raises(CompleterGarbled, match="broke off or is not HTTP"):
        complete([said])


def test_complete_keeps_the_headers_of_an_answer() -> None:
    body = json.dumps(completion("fine")).encode()
    found, _ = complete(json_answer(body, extra="X-Model-Version: 7\r\n"))
    assert found.headers["x-model-version"] == "7"
    assert found.headers["content-type"] == "application/json"


def test_client_nobody_there_is_an_error_with_a_hint() -> None:
    async def use() -> None:
        async with TeacherClient(f"http://127.0.0.1:{free_port()}/v1", max_retries=0) as client:
            await client.complete(HELLO)

    with pytest.raises(CompleterError, match="cannot be reached: ConnectError") as caught:
        asyncio.run(use())
    assert "is base_url right?" in str(caught.value)


@pytest.mark.parametrize("url", ["http://[::bad/v1", "ftp://127.0.0.1/v1", "nonsense"])
def test_client_impossible_address_is_an_error(url: str) -> None:
    async def use() -> None:
        async with TeacherClient(url, max_retries=0) as client:
            await client.complete(HELLO)

    with pytest.raises(CompleterError):
        asyncio.run(use())


@pytest.mark.parametrize(
    "script",
    [
        [HANG],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{", HANG],
        [*sse_answer(chunk("a"), ends=False), HANG],
    ],
    ids=["no answer", "half a body", "half a stream"],
)
def test_client_slow_teacher_is_a_time_out(script: list[bytes]) -> None:
    for ask in (complete, stream):
        with pytest.raises(CompleterTimeout, match="in time"):
            ask(script, timeout_s=0.2)


def test_client_refusal_carries_status_and_message() -> None:
    body = json.dumps({"error": {"message": "no such model"}}).encode()
    with pytest.raises(CompleterRefused, match="answered 404: no such model") as caught:
        complete(json_answer(body, "404 Not Found"))
    assert (caught.value.status, caught.value.body) == (404, body)


def test_client_refusal_that_is_not_json_is_still_a_refusal() -> None:
    with pytest.raises(CompleterRefused, match=r"answered 403$"):
        complete(json_answer(b"<h1>no</h1>", "403 Forbidden"))


def test_client_error_hides_the_key() -> None:
    body = json.dumps({"error": {"message": f"Incorrect API key {KEY}"}}).encode()
    with pytest.raises(CompleterRefused, match=r"key \*\*\*") as caught:
        complete(json_answer(body, "401 Unauthorized"), api_key=KEY)
    assert KEY not in str(caught.value)
    assert KEY not in repr(TeacherClient("http://x/v1", api_key=KEY))


@pytest.mark.parametrize("status", ["429 Too Many", "500 Oops", "503 Busy", "408 Slow"])
def test_client_tries_again_what_may_pass(status: str) -> None:
    pauses = Pauses()
    found, talk = complete(
        lambda k: GOOD if k == 2 else json_answer(b"{}", status), max_retries=2, pause=pauses
    )
    assert found.text == "fine"
    assert len(talk.requests) == 3
    assert 0.3 < pauses.waits_s[0] < pauses.waits_s[1] * 0.9


@pytest.mark.parametrize("status", ["400 Bad", "401 Who", "404 None", "422 Odd"])
def test_client_does_not_try_again_what_will_not_pass(status: str) -> None:
    pauses = Pauses()
    with pytest.raises(CompleterRefused):
        complete(json_answer(b"{}", status), max_retries=5, pause=pauses)
    assert pauses.waits_s == []


def test_client_gives_up_after_max_retries() -> None:
    pauses = Pauses()
    with pytest.raises(CompleterRefused) as caught:
        complete(json_answer(b"{}", "503 Busy"), max_retries=3, pause=pauses)
    assert caught.value.status == 503
    assert len(pauses.waits_s) == 3


@pytest.mark.parametrize(("told", "wait_s"), [("7", 7.0), ("0", 0.0), ("9999", MAX_WAIT_S)])
def test_client_waits_as_told(told: str, wait_s: float) -> None:
    pauses = Pauses()
    busy = json_answer(b"{}", "429 Too Many", f"Retry-After: {told}\r\n")
    complete(lambda k: GOOD if k else busy, max_retries=1, pause=pauses)
    assert pauses.waits_s == [wait_s]


@pytest.mark.parametrize("told", ["-1", "nan", "inf", "Wed, 21 Oct 2026 07:28:00 GMT"])
def test_client_waits_its_own_time_when_told_nonsense(told: str) -> None:
    pauses = Pauses()
    busy = json_answer(b"{}", "429 Too Many", f"Retry-After: {told}\r\n")
    complete(lambda k: GOOD if k else busy, max_retries=1, pause=pauses)
    assert 0.3 < pauses.waits_s[0] < 0.7


def test_client_does_not_wait_beyond_the_time_allowed() -> None:
    pauses = Pauses()
    busy = json_answer(b"{}", "429 Too Many", "Retry-After: 20\r\n")
    with pytest.raises(CompleterRefused):
        complete(busy, max_retries=5, pause=pauses, timeout_s=10)
    assert pauses.waits_s == []


def test_client_tries_again_after_a_dropped_connection() -> None:
    def script(k: int) -> list[bytes]:
        return GOOD if k else [b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 9\r\n\r\n"]

    # the head came whole, so that answer is broken and not asked for again
    with pytest.raises(CompleterGarbled):
        complete(script, max_retries=1, pause=Pauses())
    found, talk = complete(lambda k: GOOD if k else [b"Connection: close"], max_retries=1,
                           pause=Pauses())  # fmt: skip
    assert found.text == "fine"
    assert len(talk.requests) == 2


def test_stream_yields_text_then_the_end_with_usage() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    found = stream(
        sse_answer(
            chunk(""), chunk("a"), chunk("b "), chunk(None, "stop"),
            sse_event({"choices": [], "usage": usage}), DONE,
        )
    )  # fmt: skip
    assert [one.text for one in found] == ["", "a", "b ", ""]
    assert found[-1].finish_reason == "stop"
    assert found[-1].usage == Usage(3, 2)
    assert found[1].raw == chunk("a")


def test_stream_asks_for_a_stream() -> None:
    async def use(url: str) -> None:
        async with TeacherClient(url) as client:
            request = HELLO.with_fields(stream_options={"include_usage": True})
            await collect(client.stream(request))
            await client.complete(request)

    with talking(lambda k: GOOD if k else sse_answer(chunk("a", "stop"), DONE)) as talk:
        asyncio.run(use(talk.base_url))
    first, second = json.loads(talk.body(0)), json.loads(talk.body(1))
    assert (first["stream"], first["stream_options"]) == (True, {"include_usage": True})
    assert (second["stream"], "stream_options" in second) == (False, False)


def test_stream_passes_over_comments_and_other_choices() -> None:
    other = sse_event({"choices": [{"index": 1, "delta": {"content": "no"}}]})
    found = stream(sse_answer(b": keep-alive\n\n", other, chunk("a"), chunk(None, "stop"), DONE))
    assert "".join(one.text for one in found) == "a"


def test_stream_without_done_is_whole_when_it_was_finished() -> None:
    assert stream(sse_answer(chunk("a"), chunk(None, "length")))[-1].finish_reason == "length"


@pytest.mark.parametrize(
    ("events", "says"),
    [
        ([], "connection's end without a finish_reason"),
        ([chunk("a")], "connection's end without a finish_reason"),
        ([chunk("a"), DONE], r"\[DONE\] without a finish_reason"),
        ([b"data: {half\n\n"], "not JSON"),
        ([b"data: []\n\n"], "not a JSON object"),
        ([b'data: {"object": "x"}\n\n'], "has no 'choices'"),
    ],
)
def test_stream_garbage_is_garbled(events: list[bytes], says: str) -> None:
    with pytest.raises(CompleterGarbled, match=says):
        stream(sse_answer(*events))


def test_stream_cut_off_is_garbled() -> None:
    with pytest.raises(CompleterGarbled, match="broke off"):
        stream(sse_answer(chunk("a"), ends=False))


def test_stream_error_event_is_a_refusal() -> None:
    event = sse_event({"error": {"message": "overloaded"}})
    with pytest.raises(CompleterRefused, match="ended the stream: overloaded"):
        stream(sse_answer(chunk("a"), event))


def test_stream_is_not_tried_again_after_its_first_piece() -> None:
    pauses = Pauses()
    with pytest.raises(CompleterGarbled):
        stream(sse_answer(chunk("a"), ends=False), max_retries=5, pause=pauses)
    assert pauses.waits_s == []


def models(script: Script) -> list[str]:
    async def use(url: str) -> list[str]:
        async with TeacherClient(url, max_retries=0) as client:
            return await client.models()

    with talking(script) as talk:
        found = asyncio.run(use(talk.base_url))
        assert talk.requests[0].startswith(b"GET /v1/models HTTP/1.1\r\n")
        return found


def test_models_lists_ids() -> None:
    assert models(json_answer(b'{"data": [{"id": "a"}, {"id": "b"}, 3]}')) == ["a", "b"]


@pytest.mark.parametrize("body", [b"{}", b"[]", b'{"data": 3}', b"nonsense"])
def test_models_garbage_is_garbled(body: bytes) -> None:
    with pytest.raises(CompleterGarbled):
        models(json_answer(body))


def test_from_env_takes_the_key_from_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", KEY)

    async def use(url: str) -> None:
        async with TeacherClient.from_env(url, key_env="SOME_KEY") as client:
            await client.complete(HELLO)

    with talking(GOOD) as talk:
        asyncio.run(use(talk.base_url))
        assert talk.head()["authorization"] == f"Bearer {KEY}"


def test_from_env_without_the_key_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOME_KEY", raising=False)
    with pytest.raises(SettingsError, match="SOME_KEY, which is not set"):
        TeacherClient.from_env("http://x/v1", key_env="SOME_KEY")


@pytest.mark.parametrize("value", ["gëheim", "ge\nheim"])
def test_from_env_refuses_what_is_no_key(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("SOME_KEY", value)
    with pytest.raises(SettingsError, match="variable SOME_KEY holds what cannot") as caught:
        TeacherClient.from_env("http://x/v1", key_env="SOME_KEY")
    assert "heim" not in str(caught.value)


def test_answer_without_end_is_cut_at_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ownweights.teacher.client.MAX_ANSWER_BYTES", 1000)
    ask: Callable[..., Any]
    for ask in (complete, stream):
        with pytest.raises(CompleterGarbled, match="longer than 1000"):
            ask(json_answer(b"x" * 2000))
