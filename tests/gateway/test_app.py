"""The gateway as a caller sees it: who answers, what is said about it, what is kept."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from ownweights.core.chat import ChatRequest, Completion
from ownweights.core.errors import ContextTooLong, Ineligible, SettingsError
from ownweights.core.project import Project
from ownweights.gateway import Upstream
from ownweights.route import active_dir, rollback
from tests.fakes import ScriptedTeacher, last_user_text
from tests.gateway.harness import Engines, Running, gateway, reason_of, sure
from tests.route.samples import STUDENT, SYSTEM, answer_of, body_of, drop_rule, follow
from tests.teacher.servers import asked, completion, free_port, idle_lifespan, replay_of, running

NAMED = {"x_own_workload": "tickets"}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
ASKED = ("hello", "sure", "unsure", "boom", "long", "odd", "json")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.fixture(scope="module")
def teacher() -> Iterator[str]:
    """A teacher that answers in capitals, and knows the system prompt too."""
    replay = replay_of({text: text.upper() for text in ASKED})
    with running(replay) as url:
        yield f"{url}/v1"


def student(request: ChatRequest) -> Completion:
    """A student that is sure, unsure, or broken, as the request says."""
    text = last_user_text(request)
    if text == "boom":
        raise ZeroDivisionError("a defect in the engine")
    if text == "long":
        raise ContextTooLong(2000, 1024)
    if text == "odd":
        raise Ineligible("x\r\ny", "not me")
    return answer_of(f"student says {text}", logprob=-2.0 if text == "unsure" else -0.1)


@pytest.fixture
def both(project: Project, teacher: str) -> Iterator[Running]:
    """A gateway with a teacher and a student that is ready."""
    follow(project)
    with gateway(project, teacher, engines=Engines(student)) as running_one:
        running_one.until("ready")
        yield running_one


def test_gateway_without_a_route_asks_the_teacher(project: Project, teacher: str) -> None:
    with gateway(project, teacher) as one:
        answer = one.post(asked("hello"))
        assert reason_of(answer) == ("teacher", "no_route")
        assert answer.json()["choices"][0]["message"]["content"] == "HELLO"
        assert one.status()["engine"] == "off"
        assert one.engines.wanted == []


def test_gateway_serves_the_student_where_it_is_sure(both: Running) -> None:
    answer = both.post(body_of("sure"), **NAMED)
    assert reason_of(answer) == ("student", "served")
    body = ChatCompletion.model_validate(answer.json())
    assert body.choices[0].message.content == "student says sure"
    assert body.model == "gpt-x"
    assert body.usage is not None
    assert (body.usage.prompt_tokens, body.usage.completion_tokens) == (5, 3)
    assert body.system_fingerprint == f"own/{STUDENT}"


def test_gateway_asks_the_teacher_below_the_threshold(both: Running) -> None:
    answer = both.post(body_of("unsure"), **NAMED)
    assert reason_of(answer) == ("teacher", "below_threshold")
    assert answer.json()["choices"][0]["message"]["content"] == "UNSURE"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("boom", "student_error"),
        ("long", "ineligible:context"),
        ("odd", "ineligible:student"),
    ],
)
def test_gateway_student_error_falls_back_to_the_teacher(
    both: Running, text: str, reason: str
) -> None:
    answer = both.post(body_of(text), **NAMED)
    assert reason_of(answer) == ("teacher", reason)
    assert answer.json()["choices"][0]["message"]["content"] == text.upper()


def test_gateway_student_time_out_falls_back_to_the_teacher(project: Project, teacher: str) -> None:
    follow(project, timeout_s=0.05)
    engines = Engines(ScriptedTeacher("never", is_stuck=True))
    with gateway(project, teacher, engines=engines) as one:
        one.until("ready")
        answer = one.post(body_of("hello"), **NAMED)
        assert reason_of(answer) == ("teacher", "student_timeout")
        assert one.kept.wait().metadata["own"]["error"] == "student_timeout"


@pytest.mark.parametrize("value", ["1", "true", "YES"])
def test_gateway_force_teacher_header(both: Running, value: str) -> None:
    answer = both.post(body_of("sure"), **NAMED, x_own_force_teacher=value)
    assert reason_of(answer) == ("teacher", "forced")


def test_ready_tells_strangers_only_whether_it_is(project: Project, teacher: str) -> None:
    with gateway(project, teacher, host="0.0.0.0") as one:
        assert one.status() == {"status": "ready"}
    with gateway(project, teacher) as one:
        assert {"engine", "records", "judge_faults", "record_fault"} <= set(one.status())


def test_gateway_force_teacher_that_says_no_changes_nothing(both: Running) -> None:
    answer = both.post(body_of("sure"), **NAMED, x_own_force_teacher="0")
    assert reason_of(answer) == ("student", "served")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"temperature": 0.7}, "ineligible:temperature"),
        ({"tools": [TOOL]}, "ineligible:tools"),
        ({"logprobs": True}, "ineligible:logprobs"),
        ({"some_new_thing": {"a": 1}}, "ineligible:some_new_thing"),
    ],
)
def test_gateway_ineligible_request_passes_with_the_field_named(
    project: Project, fields: dict[str, Any], reason: str
) -> None:
    follow(project)

    async def echo(scope: Any, receive: Any, send: Any) -> None:
        await Echo()(scope, receive, send)

    with running(echo) as url, gateway(project, f"{url}/v1", engines=Engines(student)) as one:
        one.until("ready")
        sent = json.dumps(body_of("sure", **fields)).encode()
        answer = one.post(sent, **NAMED)
        assert reason_of(answer) == ("teacher", reason)
        assert json.loads(answer.json()["choices"][0]["message"]["content"]) == json.loads(sent)


class Echo:
    """A teacher that answers with the request it got."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        from ownweights.teacher.asgi import read_body, send_json

        if scope["type"] == "lifespan":
            await idle_lifespan(receive, send)
            return
        raw = await read_body(receive, 2**26)
        await send_json(send, 200, completion(raw.decode()))


def test_gateway_hostile_field_name_stays_out_of_headers(both: Running) -> None:
    body = body_of("sure")
    body["x\r\nset-cookie: owned=1"] = True
    answer = both.post(body, **NAMED)
    assert reason_of(answer) == ("teacher", "ineligible:unknown")
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (body_of("sure"), {"x_own_workload": "tickets"}),
        (body_of("sure", metadata={"workload": "tickets"}), {}),
    ],
)
def test_gateway_workload_by_header_or_metadata(
    both: Running, body: dict[str, Any], headers: dict[str, str]
) -> None:
    assert reason_of(both.post(body, **headers)) == ("student", "served")
    assert both.kept.wait().workload == "tickets"


def test_gateway_workload_header_goes_before_metadata(both: Running) -> None:
    body = body_of("hello", metadata={"workload": "tickets"})
    assert reason_of(both.post(body, x_own_workload="mail")) == ("teacher", "no_route")
    assert both.kept.wait().workload == "mail"


def test_gateway_workload_by_prompt_hash(project: Project, teacher: str) -> None:
    from ownweights.traffic import workload_hash

    follow(project, prompt_hashes=(workload_hash(body_of("any")),))
    with gateway(project, teacher, engines=Engines(student)) as one:
        one.until("ready")
        assert reason_of(one.post(body_of("sure"))) == ("student", "served")
        assert one.kept.wait().workload == "tickets"
        other = body_of(messages=[SYSTEM, {"role": "user", "content": "sure"}])
        assert one.post(other).headers["x-own-reason"] == "no_route"
        assert one.kept.wait(2).workload.startswith("auto-")


def test_gateway_route_without_prompts_takes_only_named_requests(both: Running) -> None:
    assert reason_of(both.post(asked("hello"))) == ("teacher", "no_route")


def test_gateway_student_sees_pruned_messages_and_certified_decoding(
    project: Project, teacher: str
) -> None:
    follow(project, prune=drop_rule(), decoding={"max_tokens": 40})
    fake = ScriptedTeacher(sure("yes"))
    with gateway(project, teacher, engines=Engines(fake)) as one:
        one.until("ready")
        messages = [SYSTEM, {"role": "user", "content": [{"type": "text", "text": "hi"}]}]
        for limit in (None, 7, 900):
            one.post(body_of(messages=messages, max_tokens=limit, temperature=1), **NAMED)
    assert [dict(request.body) for request in fake.asked] == [
        {
            "model": STUDENT, "temperature": 0, "max_tokens": limit,
            "messages": [{"role": "user", "content": "hi"}],
        }
        for limit in (40, 7, 40)
    ]  # fmt: skip


def test_gateway_prompt_over_the_limit_is_ineligible(project: Project, teacher: str) -> None:
    follow(project, max_prompt_tokens=4)  # the fake's answers say that they read 5
    with gateway(project, teacher, engines=Engines(student)) as one:
        one.until("ready")
        answer = one.post(body_of("hello"), **NAMED)
        assert reason_of(answer) == ("teacher", "ineligible:context")


@pytest.mark.parametrize(
    ("text", "who"),
    [
        ('{"a": 1}', "student"),
        ("[1]", "teacher"),
        ("{", "teacher"),
        pytest.param("[" * 200_000, "teacher", id="deep"),
    ],
)
def test_gateway_json_that_was_asked_for_is_json(project: Project, text: str, who: str) -> None:
    follow(project)
    with running(Echo()) as url, gateway(project, f"{url}/v1", engines=Engines(sure(text))) as one:
        one.until("ready")
        body = body_of("json", response_format={"type": "json_object"})
        assert one.post(body, **NAMED).headers["x-own-served-by"] == who


def test_gateway_streamed_equals_unstreamed(both: Running) -> None:
    for text, who in (("sure", "student"), ("unsure", "teacher")):
        whole = both.post(body_of(text), **NAMED).json()["choices"][0]
        answer = both.post(body_of(text, stream=True), **NAMED)
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["x-own-served-by"] == who
        events = [line[6:] for line in answer.text.split("\n\n") if line]
        assert events[-1] == "[DONE]"
        chunks = [ChatCompletionChunk.model_validate_json(event) for event in events[:-1]]
        said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        assert said == whole["message"]["content"]
        assert chunks[-1].choices[0].finish_reason == whole["finish_reason"]


def test_gateway_student_stream_ends_with_usage_where_asked(both: Running) -> None:
    with both.client() as client:
        stream = client.chat.completions.create(
            **body_of("sure"), stream=True, stream_options={"include_usage": True},
            extra_headers={"x-own-workload": "tickets"},
        )  # fmt: skip
        last = list(stream)[-1]
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.total_tokens == 8


def test_gateway_serves_the_official_client(both: Running) -> None:
    headers = {"x-own-workload": "tickets"}
    with both.client() as client:
        raw = client.chat.completions.with_raw_response.create(
            **body_of("sure"), extra_headers=headers
        )
        assert raw.headers["x-own-served-by"] == "student"
        assert raw.parse().choices[0].message.content == "student says sure"
        plain = client.chat.completions.create(**asked("hello"))
        assert plain.choices[0].message.content == "HELLO"
        assert [model.id for model in client.models.list()] == ["rented-1"]
        with pytest.raises(openai.NotFoundError) as caught:
            client.chat.completions.create(**asked("never recorded"))
        assert caught.value.code == "not_recorded"


def test_gateway_serves_fifty_at_once(both: Running) -> None:
    async def ask(client: openai.AsyncOpenAI, index: int) -> tuple[str, str | None]:
        text = ("sure", "unsure")[index % 2]
        raw = await client.chat.completions.with_raw_response.create(
            **body_of(text), extra_headers={"x-own-workload": "tickets"}
        )
        return raw.headers["x-own-served-by"], raw.parse().choices[0].message.content

    async def ask_all() -> list[tuple[str, str | None]]:
        async with openai.AsyncOpenAI(base_url=both.base_url, api_key="k") as client:
            return list(await asyncio.gather(*(ask(client, n) for n in range(50))))

    found = asyncio.run(ask_all())
    assert found == [("student", "student says sure"), ("teacher", "UNSURE")] * 25
    both.kept.wait(50)
    assert len({record.id for record in both.kept.records}) == 50


def test_gateway_holds_a_request_back_where_storing_falls_behind(
    project: Project, teacher: str
) -> None:
    with gateway(project, teacher) as one:
        one.kept.pace = 0.05
        assert float(one.post(asked("hello")).headers["x-own-overhead-ms"]) >= 50


def test_gateway_tells_the_recorder_how_large_a_record_is(project: Project, teacher: str) -> None:
    text = "hello " * 1000
    with gateway(project, teacher) as one:
        for is_stream in (False, True):
            answer = one.post(asked(text, stream=is_stream))
            one.kept.wait(1 + is_stream)
            assert one.kept.num_bytes[-1] > len(text) + len(answer.content)


def test_gateway_headers_say_who_why_and_by_what_proof(both: Running) -> None:
    ids: set[str] = set()
    for text in ("sure", "unsure"):
        headers = both.post(body_of(text), **NAMED).headers
        ids.add(headers["x-own-request-id"])
        assert headers["x-own-certificate"] == "fedcbafedcba"
        assert float(headers["x-own-overhead-ms"]) >= 0
    both.kept.wait(2)
    assert ids == {record.id for record in both.kept.records}
    assert "x-own-certificate" not in both.post(asked("hello")).headers


def test_gateway_records_the_students_answer_with_its_score(both: Running) -> None:
    body = body_of("sure", metadata={"task_id": "7"})
    both.post(body, **NAMED, x_own_session="s1")
    record = both.kept.wait()
    assert (record.role, record.status, record.session) == ("student", "ok", "s1")
    assert record.model == f"own/{STUDENT}"
    assert record.request == body
    assert record.answer_text == "student says sure"
    assert record.metadata["task_id"] == "7"
    own = record.metadata["own"]
    assert (own["served_by"], own["reason"], own["http_status"]) == ("student", "served", 200)
    assert own["score"] == pytest.approx(-0.1)
    assert own["threshold"] == -0.5


def test_gateway_records_the_teachers_answer_with_the_score_that_lost(both: Running) -> None:
    both.post(body_of("unsure"), **NAMED)
    record = both.kept.wait()
    assert (record.role, record.status, record.model) == ("teacher", "ok", "rented-1")
    assert record.answer_text == "UNSURE"
    assert record.metadata["own"]["score"] == pytest.approx(-2.0)
    assert record.metadata["own"]["reason"] == "below_threshold"


def test_gateway_records_streams_as_whole_answers(both: Running) -> None:
    for count, text in enumerate(("sure", "unsure"), 1):
        both.post(body_of(text, stream=True), **NAMED)
        record = both.kept.wait(count)
        assert record.status == "ok"
        assert record.answer_text in ("student says sure", "UNSURE")
        assert record.request["stream"] is True


def test_gateway_session_from_metadata(both: Running) -> None:
    both.post(body_of("sure", metadata={"session": "m1"}), **NAMED)
    assert both.kept.wait().session == "m1"


def test_gateway_no_store_keeps_nothing(both: Running) -> None:
    both.post(body_of("sure"), **NAMED, x_own_no_store="1")
    both.post(body_of("unsure"), **NAMED)
    assert both.kept.wait().answer_text == "UNSURE"
    assert len(both.kept.records) == 1


def test_gateway_ten_megabytes_pass(project: Project) -> None:
    text = "ä" * 5_000_000
    with running(Echo()) as url, gateway(project, f"{url}/v1") as one:
        answer = one.post(body_of(text))
        assert answer.status_code == 200
        echoed = json.loads(answer.json()["choices"][0]["message"]["content"])
        assert echoed == body_of(text)
        assert one.kept.wait().request == body_of(text)


def test_gateway_route_may_name_its_own_teacher(project: Project, teacher: str) -> None:
    other = f"http://127.0.0.1:{free_port()}/v1"
    follow(project, teacher=teacher)
    follow(project, workload="mail", teacher="second")
    teachers = {"first": Upstream("first", other), "second": Upstream("second", teacher)}
    with gateway(project, None, teachers=teachers, default_teacher="first") as one:
        for workload in ("tickets", "mail"):
            answer = one.post(asked("hello"), x_own_workload=workload, x_own_force_teacher="1")
            assert answer.status_code == 200
        assert one.post(asked("hello")).status_code == 502


def test_gateway_follows_a_swap_while_serving(project: Project, teacher: str) -> None:
    with gateway(project, teacher, engines=Engines(student)) as one:
        assert reason_of(one.post(body_of("hello"), **NAMED)) == ("teacher", "no_route")
        route = follow(project)
        assert one.status()["routes"] == {"tickets": route.id}
        one.until("ready")
        assert reason_of(one.post(body_of("sure"), **NAMED)) == ("student", "served")
        follow(project, threshold=0.0)
        assert reason_of(one.post(body_of("sure"), **NAMED)) == ("teacher", "below_threshold")
        rollback(project, "tickets")
        assert reason_of(one.post(body_of("sure"), **NAMED)) == ("teacher", "no_route")


def test_gateway_route_that_cannot_be_read_leaves_the_teacher(
    project: Project, teacher: str
) -> None:
    route = follow(project)
    assert route.path is not None
    route.path.write_text("threshold = 'low'")
    with gateway(project, teacher) as one:
        assert reason_of(one.post(body_of("hello"), **NAMED)) == ("teacher", "no_route")
        assert "tickets" in one.status()["route_faults"]


def test_gateway_unreadable_pointer_is_no_route_and_harms_no_other(
    project: Project, teacher: str
) -> None:
    follow(project)
    follow(project, workload="mail")
    (active_dir(project) / "mail").write_bytes(b"\xff\xfe")
    with gateway(project, teacher, engines=Engines(student)) as one:
        status = one.until("ready")
        assert "cannot be read" in status["route_faults"]["mail"]
        mail = one.post(body_of("hello"), x_own_workload="mail")
        assert reason_of(mail) == ("teacher", "no_route")
        assert reason_of(one.post(body_of("sure"), **NAMED)) == ("student", "served")
        rollback(project, "mail")
        assert one.status()["route_faults"] == {}


def test_gateway_engine_that_dies_falls_back_and_comes_again(
    project: Project, teacher: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ownweights.gateway.students.BACKOFF_S", (0.01,))
    follow(project)
    with gateway(project, teacher, engines=Engines(student)) as one:
        one.until("ready")
        one.engines.started[0].kill()
        assert reason_of(one.post(body_of("sure"), **NAMED)) == ("teacher", "student_error")
        while len(one.engines.started) < 2:
            one.status()
        one.until("ready")
        assert reason_of(one.post(body_of("sure"), **NAMED)) == ("student", "served")
    assert [engine.num_stops for engine in one.engines.started] == [1, 1]


def test_gateway_answers_while_the_engine_cannot_start(project: Project, teacher: str) -> None:
    follow(project)
    engines = Engines(fails=[SettingsError("no such student")] * 99)
    with gateway(project, teacher, engines=engines) as one:
        assert one.until("down")["engine_fault"] == "no such student"
        assert reason_of(one.post(body_of("hello"), **NAMED)) == ("teacher", "student_error")


def test_gateway_health_and_ready(both: Running) -> None:
    assert httpx.get(f"{both.url}/health").json() == {"status": "ok"}
    status = both.status()
    assert (status["status"], status["engine"], status["engine_fault"]) == ("ready", "ready", None)
    assert list(status["routes"]) == ["tickets"]


def test_gateway_student_that_could_not_be_loaded_is_told(project: Project, teacher: str) -> None:
    follow(project)
    engines = Engines(student)
    engines.failures = {STUDENT: "adapter is damaged"}
    with gateway(project, teacher, engines=engines) as one:
        assert "adapter is damaged" in one.until("ready")["engine_fault"]
