"""Tries in turn: who is asked next, and how soon the one that failed is asked again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownweights.core.project import Project
from ownweights.gateway import Upstream
from ownweights.gateway.upstreams.again import Rests, RetryBudget, Tries
from ownweights.gateway.upstreams.client import Call, Client, Unreachable, as_http_errors
from ownweights.teacher.asgi import HttpError
from ownweights.teacher.kinds import Kind
from tests.gateway.harness import WHOLE, Running, error_code, gateway
from tests.teacher.servers import HANG, asked, free_port, json_answer, sse_answer, talking

GOOD = json_answer(
    b'{"model":"b","choices":[{"message":{"content":"fine"},"finish_reason":"stop"}]}'
)
BUSY = json_answer(b'{"error": {"message": "busy"}}', "429 Busy", "Retry-After: 60\r\n")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def two(first: str, second: str, **fields: object) -> dict[str, object]:
    teachers = {
        "a": Upstream("a", first, fallback=("b",), timeout_s=0.2),
        "b": Upstream("b", second, model="other", key_env="B_KEY"),
    }
    return {"teachers": teachers, "default_teacher": "a", **fields}


def served_by(one: Running, count: int = 1) -> tuple[str, str]:
    record = one.kept.wait(count)
    return record.upstream, record.status


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("B_KEY", "operators-key")


@pytest.mark.parametrize(
    "script",
    [BUSY, json_answer(b"no", "503 No"), [b"Connection: close"], [HANG]],
    ids=["429", "503", "not http", "silent"],
)
@pytest.mark.parametrize("is_stream", [False, True])
def test_failover_asks_the_next_teacher(
    project: Project, script: list[bytes], is_stream: bool
) -> None:
    good = sse_answer(*WHOLE) if is_stream else GOOD
    with talking(script) as bad, talking(good) as talk:
        with gateway(project, None, **two(bad.base_url, talk.base_url)) as one:
            answer = one.post(asked("hello", stream=is_stream), authorization="Bearer mine")
            assert answer.status_code == 200
            assert served_by(one) == ("b", "ok")
        assert bad.head()["authorization"] == "Bearer mine"
        assert talk.head()["authorization"] == "Bearer operators-key"
        assert b'"model":"other"' in talk.body()


def test_failover_keeps_the_callers_key_from_other_hosts(project: Project) -> None:
    with talking(BUSY) as first, talking(GOOD) as second:
        teachers = {
            "a": Upstream("a", first.base_url, fallback=("b",)),
            "b": Upstream("b", second.base_url),
        }
        with gateway(project, None, teachers=teachers, default_teacher="a") as one:
            answer = one.post(asked("hello"), authorization="Bearer mine", x_api_key="mine")
            assert answer.status_code == 200
        assert first.head()["authorization"] == "Bearer mine"
        assert not {"authorization", "x-api-key"} & set(second.head())
        assert b"mine" not in second.requests[0]


def test_failover_of_a_teacher_that_is_down(project: Project) -> None:
    down = f"http://127.0.0.1:{free_port()}/v1"
    with talking(GOOD) as talk, gateway(project, None, **two(down, talk.base_url)) as one:
        assert one.post(asked("hello")).status_code == 200
        assert served_by(one) == ("b", "ok")


def test_failover_gives_the_last_error_when_all_fail(project: Project) -> None:
    down = f"http://127.0.0.1:{free_port()}/v1"
    with talking(BUSY) as talk, gateway(project, None, **two(down, talk.base_url)) as one:
        answer = one.post(asked("hello"))
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "60")
    with gateway(project, None, **two(down, down)) as one:
        assert error_code(one.post(asked("hello"))) == "502 teacher_unreachable"


def test_failover_never_for_what_the_caller_did_wrong(project: Project) -> None:
    wrong = json_answer(b'{"error": {"message": "bad"}}', "400 Bad")
    with talking(wrong) as first, talking(GOOD) as second:
        with gateway(project, None, **two(first.base_url, second.base_url)) as one:
            assert one.post(asked("hello")).status_code == 400
        assert second.requests == []


def test_failover_never_after_the_first_byte(project: Project) -> None:
    half = sse_answer(WHOLE[0], ends=False)
    with talking(half) as first, talking(sse_answer(*WHOLE)) as second:
        with gateway(project, None, **two(first.base_url, second.base_url)) as one:
            answer = one.post(asked("hello", stream=True)).content
            assert answer.startswith(WHOLE[0])
            assert served_by(one) == ("a", "partial")
        assert second.requests == []


def test_rests_follow_retry_after(project: Project) -> None:
    with talking(BUSY) as first, talking(GOOD) as second:
        with gateway(project, None, **two(first.base_url, second.base_url)) as one:
            for _ in range(3):
                assert one.post(asked("hello")).status_code == 200
        assert (len(first.requests), len(second.requests)) == (1, 3)


def test_repeat_at_the_only_teacher_waits_as_it_asks(project: Project) -> None:
    busy = json_answer(b"{}", "429 Busy", "Retry-After: 0\r\n")
    with talking(busy) as talk, gateway(project, talk.base_url, max_retries=2) as one:
        assert one.post(asked("hello")).status_code == 429
        assert len(talk.requests) == 3
    with talking(BUSY) as talk, gateway(project, talk.base_url, max_retries=2) as one:
        answer = one.post(asked("hello"))  # a minute is longer than a caller would wait here
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "60")
        assert len(talk.requests) == 1


def test_client_says_what_could_not_be_reached() -> None:
    async def ask() -> None:
        client = Client(connect_timeout_s=5)
        try:
            await client.send(Call(f"http://127.0.0.1:{free_port()}/", []))
        finally:
            await client.close()

    with pytest.raises(Unreachable, match="cannot be reached"):
        asyncio.run(ask())


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (aiohttp.ConnectionTimeoutError(), "teacher_unreachable"),  # never connected: never asked
        (aiohttp.SocketTimeoutError(), "teacher_timeout"),
        (TimeoutError(), "teacher_timeout"),
        (aiohttp.ServerDisconnectedError(), "teacher_garbled"),
        (aiohttp.ClientPayloadError(), "teacher_garbled"),
        (ConnectionRefusedError(), "teacher_unreachable"),
    ],
)
def test_client_tells_apart_what_went_wrong(error: Exception, code: str) -> None:
    with pytest.raises(HttpError) as caught, as_http_errors:
        raise error
    assert caught.value.code == code
    assert isinstance(caught.value, Unreachable) >= (code == "teacher_unreachable")


def test_order_asks_the_only_teacher_even_if_it_rests() -> None:
    rests, one = Rests(clock=lambda: 5.0), Upstream("a", "http://x")
    rests.failed("a", 60.0)
    assert rests.order([one]) == [one]


def test_rests_grow_and_end() -> None:
    now = [0.0]
    rests = Rests(clock=lambda: now[0])
    found: list[float] = []
    for _ in range(8):
        rests.failed("a")
        found.append(rests.left_s("a"))
    assert found == [1, 2, 4, 8, 16, 30, 30, 30]
    now[0] += 30
    assert rests.left_s("a") == 0
    rests.failed("a", 7.0)
    assert rests.left_s("a") == 7
    rests.worked("a")
    assert rests.left_s("a") == 0


@given(frac=st.floats(0, 1), steps=st.lists(st.booleans(), max_size=300))
def test_retry_budget_always_holds(frac: float, steps: list[bool]) -> None:
    budget, asked_for, taken = RetryBudget(frac), 0, 0
    for is_request in steps:
        if is_request:
            asked_for += 1
            budget.asked()
        else:
            taken += budget.take()
        assert taken <= 10 + frac * asked_for + 1e-9
    if frac == 0:
        assert taken == 0


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ("Retry-After: 3\r\n", 3.0),
        ("retry-after-ms: 250\r\nRetry-After: 3\r\n", 0.25),
        ("Retry-After: Wed, 21 Oct 2015 07:28:10 GMT\r\n", 10.0),
        ("Retry-After: nan\r\n", None),
        ("Retry-After: -5\r\n", 0.0),
        ("Retry-After: 1e300\r\n", 3600.0),
        ("Retry-After: soon\r\n", None),
        ("", None),
    ],
)
def test_retry_after_is_read_as_it_is_meant(headers: str, expected: float | None) -> None:
    from ownweights.gateway.upstreams.again import retry_after_s

    async def ask(url: str) -> float | None:
        client = Client(connect_timeout_s=5)
        reply = await client.send(Call(url, []))
        found = retry_after_s(reply, now_s=1445412480.0)
        reply.close()
        await client.close()
        return found

    with talking(json_answer(b"{}", "429 Busy", headers)) as talk:
        assert asyncio.run(ask(talk.url)) == expected


def test_tries_count_repeats_and_stand_ins() -> None:
    tries = Tries()
    for turns in (["a"], ["a", "a"], ["a", "b"], ["b"], ["b", "a", "a"]):  # a's requests
        before = ""
        for name in turns:
            tries.note(name, before=before, first="a")
            before = name
    assert tries.retries == {"a": 2}
    assert tries.failovers == {"b": 3, "a": 1}


def test_azure_and_anthropic_are_asked_in_their_way(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    with talking(GOOD) as talk:
        azure = Upstream("a", talk.url, "gpt x", "B_KEY", kind=Kind("azure", "2024-10-21"))
        with gateway(project, None, teachers={"a": azure}, default_teacher="a") as one:
            assert one.post(asked("hello"), authorization="Bearer mine").status_code == 200
        line = talk.requests[0].split(b"\r\n")[0]
        assert line == (
            b"POST /openai/deployments/gpt%20x/chat/completions?api-version=2024-10-21 HTTP/1.1"
        )
        assert talk.head()["api-key"] == "operators-key"
        assert "authorization" not in talk.head()
    with talking(json_answer(b"{}")) as talk:
        upstream = Upstream("a", talk.base_url, key_env="B_KEY", kind=Kind("anthropic"))
        with gateway(project, None, teachers={"a": upstream}, default_teacher="a") as one:
            httpx.post(f"{one.base_url}/messages", content=b"{}", headers={"x-api-key": "mine"})
        assert talk.head()["x-api-key"] == "operators-key"
        assert talk.head()["anthropic-version"] == "2023-06-01"
