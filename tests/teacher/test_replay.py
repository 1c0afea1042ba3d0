"""The replay teacher: what it knows, what it says it is, and how it answers."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from ownweights.core.errors import InputError, PortInUse, UsageError
from ownweights.teacher import ReplayTeacher, serve_replay
from ownweights.teacher.asgi import HttpError
from ownweights.teacher.replay import RecordedAnswer, read_exchange, request_key
from ownweights.teacher.serving import bind
from ownweights.teacher.sse import decode_events, event_data
from ownweights.teacher.wire import assemble
from tests.teacher.servers import asked, completion, replay_of, running

CALL = {"id": "a", "type": "function", "function": {"name": "look", "arguments": "{}"}}


def line_of(text: str, answer: str, **fields: Any) -> dict[str, Any]:
    return {"request": asked(text, **fields), "response": completion(answer)}


def write(path: Path, *lines: Any) -> Path:
    rows = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    data = b"\n".join(rows) + b"\n"
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    teacher = replay_of({"hello": "Good day, dear user!", "empty": ""})
    teacher.add(
        asked("call"),
        RecordedAnswer("rented-1", {"content": None, "tool_calls": [CALL]}, "tool_calls", None),
    )
    with running(teacher) as address:
        yield f"{address}/v1"


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.gz"])
def test_load_reads_plain_and_gzip(name: str, tmp_path: Path) -> None:
    teacher = ReplayTeacher.load([write(tmp_path / name, line_of("a", "1"), line_of("b", "2"))])
    assert teacher.num_requests == 2
    assert teacher.answer(asked("b"))["choices"][0]["message"]["content"] == "2"


def test_load_reads_fine_tuning_lines(tmp_path: Path) -> None:
    messages = [*asked("a")["messages"], {"role": "assistant", "content": "1"}]
    teacher = ReplayTeacher.load([write(tmp_path / "t.jsonl", {"messages": messages})])
    assert teacher.answer(asked("a"))["choices"][0]["message"]["content"] == "1"


def answer_as(**message: Any) -> dict[str, Any]:
    body = completion()
    body["choices"][0]["message"] = {"role": "assistant", **message}
    return {"request": asked("a"), "response": body}


def test_load_joins_the_text_parts_of_an_answer(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "Good "}, {"type": "text", "text": "day"}]
    tuned = [*asked("b")["messages"], {"role": "assistant", "content": parts}]
    path = write(tmp_path / "t.jsonl", answer_as(content=parts), {"messages": tuned})
    teacher = ReplayTeacher.load([path])
    with running(teacher) as url:
        for text in ("a", "b"):
            told = httpx.post(f"{url}/v1/chat/completions", json=asked(text, stream=True))
            events, _ = decode_events(event_data(told.content))
            again = assemble(events)
            assert again is not None
            whole = teacher.answer(asked(text))["choices"][0]["message"]["content"]
            assert again["choices"][0]["message"]["content"] == whole == "Good day"


@pytest.mark.parametrize(
    "message",
    [
        {"content": 5},
        {"content": {"type": "text", "text": "x"}},
        {"content": [{"type": "image_url", "image_url": {"url": "x"}}]},
        {"content": [None]},
        {"content": None, "tool_calls": 7},
        {"content": None, "tool_calls": [5]},
    ],
)
def test_read_exchange_answer_in_no_known_shape_is_refused(message: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="the answer's"):
        read_exchange(answer_as(**message))


def test_load_counts_what_holds_no_answer(tmp_path: Path) -> None:
    path = write(
        tmp_path / "t.jsonl", line_of("a", "1"), b"{half", b"[]", {"request": asked("b")},
        {"response": completion()}, {"messages": asked("c")["messages"]}, {"messages": []},
        {"request": asked("d"), "response": {"choices": []}}, {"request": 3, "response": 4},
    )  # fmt: skip
    teacher = ReplayTeacher.load([path])
    assert teacher.num_requests == 1
    assert teacher.skipped == Counter({"no_answer": 6, "broken_json": 1, "not_object": 1})


def test_load_broken_gzip_keeps_what_came_before(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl.gz", *(line_of(str(n), str(n)) for n in range(5000)))
    path.write_bytes(path.read_bytes()[:-2000])
    teacher = ReplayTeacher.load([path])
    assert 0 < teacher.num_requests < 5000
    assert teacher.skipped["broken_gzip"] == 1


def test_load_without_an_answer_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no recorded answer \(1 not_object\)") as caught:
        ReplayTeacher.load([write(tmp_path / "t.jsonl", b"7")])
    assert '{"request": {"messages"' in str(caught.value)


def test_load_missing_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        ReplayTeacher.load([tmp_path / "none.jsonl"])


def test_fingerprint_is_the_files_own(tmp_path: Path) -> None:
    one, two = (write(tmp_path / f"{n}.jsonl", line_of("a", n)) for n in ("1", "2"))
    marks = [ReplayTeacher.load(paths).fingerprint for paths in ([one], [one], [two], [one, two])]
    assert marks[0] == marks[1]
    assert len(set(marks)) == 3
    assert all(mark.startswith("replay-") for mark in marks)


def test_request_key_ignores_model_and_sampling() -> None:
    plain = request_key(asked("a"))
    assert plain == request_key(asked("a", temperature=1, stream=True, metadata={"x": "y"}))
    assert plain == request_key({**asked("a"), "model": "another"})


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": "a", "name": None},
        {"content": "a", "role": "user"},
        {"role": "user", "content": [{"type": "text", "text": "a"}]},
    ],
)
def test_request_key_knows_other_spellings(message: dict[str, Any]) -> None:
    assert request_key({"messages": [message]}) == request_key(asked("a"))


@pytest.mark.parametrize(
    "body",
    [
        asked("b"),
        asked("a", tools=[{"type": "function"}]),
        asked("a", response_format={"type": "json_object"}),
        {"messages": [{"role": "system", "content": "a"}]},
        {"messages": [{"role": "user", "content": "a", "name": "bob"}]},
        {"messages": [*asked("a")["messages"], *asked("a")["messages"]]},
    ],
)
def test_request_key_tells_requests_apart(body: dict[str, Any]) -> None:
    assert request_key(body) != request_key(asked("a"))


def several(seed: int) -> list[str]:
    """What five askings of one request with three answers give."""
    teacher = ReplayTeacher(
        (
            (asked("a"), RecordedAnswer("m", {"content": text}, "stop", None))
            for text in ("1", "2", "3")
        ),
        seed=seed,
    )
    return [teacher.answer(asked("a"))["choices"][0]["message"]["content"] for _ in range(5)]


def test_replay_cycles_answers_by_seed() -> None:
    found = several(1)
    assert sorted(found[:3]) == ["1", "2", "3"]
    assert found[3:] == found[:2]
    assert several(1) == found
    assert len({several(seed)[0] for seed in range(30)}) == 3


def test_answer_to_another_request_is_not_recorded() -> None:
    with pytest.raises(HttpError, match="no recorded answer") as caught:
        replay_of({"a": "1"}).answer(asked("b"))
    assert (caught.value.status, caught.value.code) == (404, "not_recorded")


@pytest.mark.parametrize("messages", [None, "text", 7])
def test_answer_without_messages_is_refused(messages: Any) -> None:
    with pytest.raises(HttpError, match="'messages' must be a list") as caught:
        replay_of({"a": "1"}).answer({"messages": messages})
    assert caught.value.status == 400


def test_answer_in_several_choices_is_refused() -> None:
    with pytest.raises(HttpError, match="one choice") as caught:
        replay_of({"a": "1"}).answer(asked("a", n=2))
    assert caught.value.param == "n"


def test_answer_keeps_recorded_model_usage_and_finish() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
    teacher = ReplayTeacher(
        [(asked("a"), RecordedAnswer("gpt-x", {"content": "1"}, "length", usage))]
    )
    body = teacher.answer(asked("a"))
    assert (body["model"], body["usage"]) == ("gpt-x", usage)
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["system_fingerprint"] == "replay-scripted"


@pytest.mark.parametrize("value", [{}, {"request": {}}, {"request": asked("a"), "response": None}])
def test_read_exchange_without_both_halves_is_refused(value: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="no "):
        read_exchange(value)


def test_replay_answers_the_official_client(url: str) -> None:
    with openai.OpenAI(base_url=url, api_key="k") as client:
        answer = client.chat.completions.create(**asked("hello"))
        assert answer.choices[0].message.content == "Good day, dear user!"
        call = client.chat.completions.create(**asked("call")).choices[0]
        assert call.finish_reason == "tool_calls"
        assert call.message.tool_calls is not None
        assert [model.id for model in client.models.list()] == ["rented-1"]


@pytest.mark.parametrize("text", ["hello", "empty"])
def test_replay_streamed_equals_unstreamed(url: str, text: str) -> None:
    with openai.OpenAI(base_url=url, api_key="k") as client:
        whole = client.chat.completions.create(**asked(text)).choices[0]
        chunks = list(client.chat.completions.create(**asked(text), stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == whole.message.content
    assert chunks[-1].choices[0].finish_reason == whole.finish_reason
    assert {chunk.model for chunk in chunks} == {"rented-1"}


def test_replay_streams_by_words(url: str) -> None:
    with openai.OpenAI(base_url=url, api_key="k") as client:
        chunks = client.chat.completions.create(**asked("hello"), stream=True)
        pieces = [chunk.choices[0].delta.content for chunk in chunks]
    assert [piece for piece in pieces if piece] == ["Good ", "day, ", "dear ", "user!"]


def test_replay_streams_usage_only_where_asked(url: str) -> None:
    options = {"include_usage": True}
    with openai.OpenAI(base_url=url, api_key="k") as client:
        plain = list(client.chat.completions.create(**asked("hello"), stream=True))
        body = asked("hello", stream=True, stream_options=options)
        told = list(client.chat.completions.create(**body))
    assert all(chunk.choices for chunk in plain)
    assert told[-1].choices == []


@pytest.mark.parametrize("path", ["/", "/health"])
def test_replay_says_what_it_is(url: str, path: str) -> None:
    answer = httpx.get(url.removesuffix("/v1") + path)
    assert answer.headers["x-own-teacher"] == "replay"
    about = answer.json()
    assert about["teacher"] == "replay"
    assert "recorded answers only" in about["about"]
    assert about["requests"] == 3


@pytest.mark.parametrize(
    ("request_line", "content", "error"),
    [
        ("GET /v1/nowhere", b"", "404 unknown_url"),
        ("GET /v1/chat/completions", b"", "405 method_not_allowed"),
        ("POST /v1/models", b"", "405 method_not_allowed"),
        ("POST /v1/chat/completions", b"{", "400 invalid_json"),
        ("POST /v1/chat/completions", b"{}", "400 invalid_messages"),
        ("POST /v1/chat/completions", json.dumps(asked("?")).encode(), "404 not_recorded"),
    ],
)
def test_replay_errors_have_openai_shape(
    url: str, request_line: str, content: bytes, error: str
) -> None:
    method, path = request_line.split()
    answer = httpx.request(method, url.removesuffix("/v1") + path, content=content)
    assert f"{answer.status_code} {answer.json()['error']['code']}" == error
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert answer.headers["x-own-teacher"] == "replay"


def test_replay_answers_many_at_once(url: str) -> None:
    async def ask_all() -> list[str | None]:
        async with openai.AsyncOpenAI(base_url=url, api_key="k") as client:
            calls = [client.chat.completions.create(**asked("hello")) for _ in range(50)]
            return [answer.choices[0].message.content for answer in await asyncio.gather(*calls)]

    assert set(asyncio.run(ask_all())) == {"Good day, dear user!"}


def test_serve_replay_without_files_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="at least one file"):
        serve_replay([])


def test_serve_replay_taken_port_is_told_before_reading(tmp_path: Path) -> None:
    with bind("127.0.0.1", 0) as taken:
        taken.listen()
        with pytest.raises(PortInUse):
            serve_replay([tmp_path / "not read.jsonl"], port=taken.getsockname()[1])


def test_replay_answers_every_recorded_request(test_data: Path) -> None:
    path = test_data / "traffic" / "describe.jsonl.gz"
    teacher = ReplayTeacher.load([path])
    assert teacher.skipped == Counter()
    with gzip.open(path) as file:
        rows = [json.loads(line) for line in file]
    known: dict[bytes, set[str]] = {}
    for row in rows:
        content = row["response"]["choices"][0]["message"]["content"]
        known.setdefault(request_key(row["request"]), set()).add(content)
    assert teacher.num_requests == len(known)
    for row in rows:
        said = teacher.answer(row["request"])["choices"][0]["message"]["content"]
        assert said in known[request_key(row["request"])]
