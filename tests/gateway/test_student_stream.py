"""A student's answer that leaves while it is written, by a gate that decides before."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from ownweights.core.chat import ChatRequest, Completion, CompletionChunk, Usage
from ownweights.core.errors import CompleterError, CompleterTimeout, ContextTooLong, Ineligible
from ownweights.core.project import Project
from ownweights.route import active_id
from ownweights.route.audits import AuditLog
from tests.fakes import ScriptedTeacher, last_user_text
from tests.gateway.harness import (
    WAIT_S,
    Engines,
    Running,
    audits_when,
    followed,
    gateway,
    reason_of,
)
from tests.route.samples import GATE, STUDENT, answer_of, body_of, follow, read_of
from tests.teacher.servers import replay_of, running

NAMED = {"x_own_workload": "tickets"}
TEXTS = ("sure", "unsure", "boom", "long", "odd", "late", "breaks", "slow", "json", "endless")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.fixture(scope="module")
def teacher() -> Iterator[str]:
    told = {text: text.upper() for text in TEXTS}
    with running(replay_of({**told, "same": "student says same", "cut": "student "})) as url:
        yield f"{url}/v1"


class Telling(ScriptedTeacher):
    """A student that says what it read before it answers, and fails as the request says."""

    def __init__(self) -> None:
        super().__init__(lambda request: answer_of(f"student says {last_user_text(request)}"))
        self.may_go_on = threading.Event()
        self.num_closed = 0

    async def stream(
        self, request: ChatRequest, *, timeout_s: float | None = None
    ) -> AsyncIterator[CompletionChunk]:
        text = last_user_text(request)
        before = {"boom": ZeroDivisionError("a defect"), "long": ContextTooLong(9, 8),
                  "odd": Ineligible("x", "not me"), "late": CompleterTimeout("late")}  # fmt: skip
        if text in before:
            raise before[text]
        try:
            state = 0.0 if text == "unsure" else 1.0
            yield CompletionChunk("", None, Usage(5, 0), features=read_of(state))
            yield CompletionChunk("student ")
            if text == "slow":
                await asyncio.to_thread(self.may_go_on.wait, WAIT_S)
            if text == "breaks":
                raise CompleterError("gone")
            if text == "cut":
                yield CompletionChunk("", "length", Usage(5, 1))
            yield CompletionChunk(f"says {text}")
            if text != "endless":
                yield CompletionChunk("", "stop", Usage(5, 3))
        finally:
            self.num_closed += 1


@pytest.fixture
def student() -> Telling:
    return Telling()


@pytest.fixture
def both(project: Project, teacher: str, student: Telling) -> Iterator[Running]:
    follow(project, confidence=GATE, threshold=0.5)
    with gateway(project, teacher, engines=Engines(student)) as one:
        one.until("ready")
        yield one


def events_of(answer: httpx.Response) -> list[Any]:
    lines = [line for line in answer.text.split("\n\n") if line]
    assert all(line.startswith("data: ") for line in lines)
    return [json.loads(line[6:]) if line != "data: [DONE]" else None for line in lines]


def said(events: list[Any]) -> str:
    return "".join(
        choice["delta"].get("content") or ""
        for event in events if event and "choices" in event for choice in event["choices"]
    )  # fmt: skip


def stream(one: Running, text: str, **fields: Any) -> httpx.Response:
    return one.post(body_of(text, stream=True, **fields), **NAMED)


def test_stream_is_the_students_answer(both: Running) -> None:
    answer = stream(both, "sure")
    assert reason_of(answer) == ("student", "served")
    events = events_of(answer)
    assert said(events) == "student says sure"
    assert events[-1] is None
    assert events[-2]["choices"][0] == {"index": 0, "delta": {}, "finish_reason": "stop"}
    assert {event["model"] for event in events[:-1]} == {"gpt-x"}
    assert {event["object"] for event in events[:-1]} == {"chat.completion.chunk"}
    assert {event["system_fingerprint"] for event in events[:-1]} == {f"own/{STUDENT}"}
    assert len({event["id"] for event in events[:-1]}) == 1
    assert not any("usage" in event for event in events[:-1])


def test_stream_pieces_leave_before_the_answer_is_whole(both: Running, student: Telling) -> None:
    """The student waits for the caller to have read its first word."""
    body = body_of("slow", stream=True)
    headers = {"x-own-workload": "tickets"}
    with httpx.stream("POST", both.chat_url, json=body, headers=headers, timeout=WAIT_S) as answer:
        text = ""
        for part in answer.iter_text():
            text += part
            if "student " in text:
                student.may_go_on.set()
    assert "says slow" in text
    assert text.endswith("data: [DONE]\n\n")


def test_stream_is_read_by_the_official_client(both: Running) -> None:
    chunks = both.client().chat.completions.create(
        model="gpt-x", messages=[{"role": "user", "content": "sure"}], stream=True,
        stream_options={"include_usage": True}, extra_headers={"x-own-workload": "tickets"},
    )  # fmt: skip
    texts, usage = [], None
    for chunk in chunks:
        texts += [choice.delta.content or "" for choice in chunk.choices]
        usage = chunk.usage or usage
    assert "".join(texts) == "student says sure"
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (5, 3)


def test_stream_below_the_threshold_is_the_teachers(both: Running, student: Telling) -> None:
    answer = stream(both, "unsure")
    assert reason_of(answer) == ("teacher", "below_threshold")
    assert "UNSURE" in answer.text
    assert student.num_closed == 1  # the student was stopped


@pytest.mark.parametrize(
    ("text", "reason"),
    [("boom", "student_error"), ("long", "ineligible:context"), ("odd", "ineligible:student"),
     ("late", "student_timeout")],
)  # fmt: skip
def test_stream_that_does_not_begin_is_the_teachers(both: Running, text: str, reason: str) -> None:
    answer = stream(both, text)
    assert reason_of(answer) == ("teacher", reason)
    assert text.upper() in answer.text


@pytest.mark.parametrize("text", ["breaks", "endless"])
def test_stream_that_breaks_ends_in_an_error_event(both: Running, text: str) -> None:
    answer = stream(both, text)
    assert reason_of(answer) == ("student", "served")
    *before, last = events_of(answer)
    assert said(before).startswith("student ")
    assert last["error"]["code"] == "student_error"
    assert set(last["error"]) == {"message", "type", "param", "code"}
    record = both.kept.wait()
    assert record.status == "partial"
    assert record.metadata["own"]["error"] == "student_error"


def test_stream_too_long_a_prompt_is_the_teachers(
    project: Project, teacher: str, student: Telling
) -> None:
    follow(project, confidence=GATE, threshold=0.5, max_prompt_tokens=4)
    with gateway(project, teacher, engines=Engines(student)) as one:
        one.until("ready")
        assert reason_of(stream(one, "sure")) == ("teacher", "ineligible:context")


def test_stream_of_a_json_object_is_looked_at_first(both: Running, student: Telling) -> None:
    answer = stream(both, "json", response_format={"type": "json_object"})
    assert reason_of(answer) == ("teacher", "student_error")
    assert student.num_closed == 0  # nothing was streamed


def test_stream_is_recorded_as_it_was_sent(both: Running) -> None:
    stream(both, "sure")
    record = both.kept.wait()
    assert (record.status, record.role, record.model) == ("ok", "student", f"own/{STUDENT}")
    assert record.response is not None
    assert record.response["choices"][0]["message"]["content"] == "student says sure"
    assert record.response["usage"]["completion_tokens"] == 3
    assert record.metadata["own"]["score"] == pytest.approx(1.0)


def test_stream_and_whole_answers_are_decided_alike(both: Running, student: Telling) -> None:
    """A caller who does not stream is served by the same score, from the whole answer."""

    def whole(request: ChatRequest) -> Completion:
        text = last_user_text(request)
        told = read_of(0.0 if text == "unsure" else 1.0)
        return Completion(f"student says {text}", "stop", usage=Usage(5, 3), features=told)

    student.script = whole
    for text, reason in (("sure", "served"), ("unsure", "below_threshold")):
        assert reason_of(both.post(body_of(text), **NAMED))[1] == reason
        assert reason_of(stream(both, text))[1] == reason


def test_gateway_audits_a_true_stream(project: Project, teacher: str, student: Telling) -> None:
    """Also one cut off at its limit: the gate lets it go, and the caller has got it."""
    route = followed(project, "served", confidence=GATE, threshold=0.5, near=10.0)
    harm_of = {"sure": 1.0, "same": 0.0, "cut": 0.0}
    with gateway(project, teacher, engines=Engines(student)) as one:
        one.until("ready")
        ids = {stream(one, text).headers["x-own-request-id"]: text for text in harm_of}
        found = audits_when(project, route, lambda found: len(found) == len(harm_of))
    assert {ids[audit.request_id]: audit.harm for audit in found} == harm_of
    assert {(audit.kind, audit.chance) for audit in found} == {("audit", 1.0)}


@pytest.mark.parametrize("text", ["breaks", "endless"])
def test_gateway_counts_a_broken_stream_as_harm(
    project: Project, teacher: str, student: Telling, text: str
) -> None:
    route = followed(project, "served", confidence=GATE, threshold=0.5)
    with gateway(project, teacher, engines=Engines(student)) as one:
        one.until("ready")
        stream(one, text)
        (found,) = audits_when(project, route, lambda found: len(found) == 1)
        assert (found.kind, found.harm, found.chance) == ("failure", 1.0, 1.0)
        assert active_id(project, "tickets") == route.id  # one is not an alarm


def test_gateway_blames_no_student_for_a_caller_who_leaves(
    project: Project, teacher: str, student: Telling
) -> None:
    route = followed(project, "served", confidence=GATE, threshold=0.5, near=10.0)
    with gateway(project, teacher, engines=Engines(student)) as one:
        one.until("ready")
        body, headers = body_of("slow", stream=True), {"x-own-workload": "tickets"}
        with httpx.stream("POST", one.chat_url, json=body, headers=headers) as answer:
            next(answer.iter_bytes())
        record = one.kept.wait()
        student.may_go_on.set()
        assert record.metadata["own"]["error"] == "client_gone"
    assert AuditLog(project, route.id).since()[0] == []
