"""What the gateway refuses, to whom, and how it says so."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ownweights.core.chat import ChatRequest, Completion
from ownweights.core.errors import SettingsError
from ownweights.core.project import Project
from ownweights.gateway import Gateway, GatewaySettings, Upstream
from ownweights.traffic import Recorder
from tests.fakes import last_user_text
from tests.gateway.harness import Engines, Running, gateway, reason_of
from tests.route.samples import answer_of, body_of, follow
from tests.teacher.servers import asked, replay_of, running

NAMED = {"x_own_workload": "tickets"}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.fixture(scope="module")
def teacher() -> Iterator[str]:
    """A teacher that answers in capitals."""
    replay = replay_of({text: text.upper() for text in ("hello", "sure", "unsure", "boom")})
    with running(replay) as url:
        yield f"{url}/v1"


def student(request: ChatRequest) -> Completion:
    """A student that is sure, unsure, or broken, as the request says."""
    text = last_user_text(request)
    if text == "boom":
        raise ZeroDivisionError("a defect in the engine")
    return answer_of(f"student says {text}", logprob=-2.0 if text == "unsure" else -0.1)


ERRORS = [
    ("GET /v1/nowhere", b"", "404 unknown_url"),
    ("GET /", b"", "404 unknown_url"),
    ("POST /v1/chat/completions/", b"{}", "404 unknown_url"),
    ("POST /v1/../v1/chat/completionz", b"{}", "404 unknown_url"),
    ("GET /v1/chat/completions", b"", "405 method_not_allowed"),
    ("DELETE /v1/chat/completions", b"", "405 method_not_allowed"),
    ("OPTIONS /v1/chat/completions", b"", "405 method_not_allowed"),
    ("POST /v1/models", b"", "405 method_not_allowed"),
    ("POST /health", b"", "405 method_not_allowed"),
    ("POST /v1/chat/completions", b"", "400 invalid_json"),
    ("POST /v1/chat/completions", b"{", "400 invalid_json"),
    ("POST /v1/chat/completions", b'{"a": "\xff"}', "400 invalid_json"),
    ("POST /v1/chat/completions", b"[" * 200_000, "400 invalid_json"),
    ("POST /v1/chat/completions", b"[]", "400 invalid_json"),
    ("POST /v1/chat/completions", b"{}", "400 invalid_messages"),
    ("POST /v1/chat/completions", b'{"messages": "hi"}', "400 invalid_messages"),
    ("POST /v1/chat/completions", b'{"messages": ["hi"]}', "400 invalid_messages"),
    ("POST /v1/chat/completions", b"x" * 300_000, "413 request_too_large"),
    ("POST /v1/chat/completions", json.dumps(asked("?")).encode(), "404 not_recorded"),
]


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory, teacher: str) -> Iterator[Running]:
    """A gateway that takes small bodies only."""
    project = Project(tmp_path_factory.mktemp("strict"))
    with gateway(project, teacher, max_body_bytes=250_000) as one:
        yield one


@pytest.mark.parametrize(("request_line", "content", "error"), ERRORS)
def test_gateway_every_error_has_openai_shape(
    strict: Running, request_line: str, content: bytes, error: str
) -> None:
    method, path = request_line.split()
    answer = httpx.request(method, strict.url + path, content=content)
    assert f"{answer.status_code} {answer.json()['error']['code']}" == error
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"x_own_workload": "../up"}, "invalid_workload"),
        ({"x_own_workload": ""}, "invalid_workload"),
        ({"x_own_workload": "a" * 65}, "invalid_workload"),
        ({"x_own_session": "s" * 201}, "invalid_session"),
        ({"x_own_no_store": "perhaps"}, "invalid_header"),
        ({"x_own_force_teacher": "maybe"}, "invalid_header"),
    ],
)
def test_gateway_own_headers_are_checked(
    strict: Running, headers: dict[str, str], code: str
) -> None:
    answer = strict.post(asked("hello"), **headers)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == code
    assert answer.json()["error"]["param"].replace("-", "_") == next(iter(headers))


def test_gateway_metadata_workload_is_checked(strict: Running) -> None:
    answer = strict.post(asked("hello", metadata={"workload": "a b"}))
    assert answer.json()["error"]["param"] == "metadata.workload"


def test_gateway_without_a_teacher_names_what_is_missing(project: Project) -> None:
    with gateway(project, None) as one:
        answer = one.post(asked("hello"))
        assert answer.status_code == 502
        assert answer.json()["error"]["code"] == "no_teacher"
        assert "[teacher.NAME]" in answer.json()["error"]["message"]
        assert httpx.get(f"{one.base_url}/models").json()["error"]["code"] == "no_teacher"
        assert one.kept.wait().status == "error"


def test_gateway_without_a_teacher_names_the_field_it_cannot_honour(project: Project) -> None:
    follow(project)
    with gateway(project, None, engines=Engines(student)) as one:
        one.until("ready")
        assert reason_of(one.post(body_of("sure"), **NAMED)) == ("student", "served")
        answer = one.post(body_of("sure", temperature=0.7), **NAMED)
        assert answer.status_code == 400
        error = answer.json()["error"]
        assert (error["code"], error["param"]) == ("ineligible", "temperature")


def test_gateway_key_opens_students_beyond_loopback(
    project: Project, teacher: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOOR_KEY", "open sesame")
    follow(project)
    with gateway(project, teacher, engines=Engines(student), key_env="DOOR_KEY") as one:
        one.until("ready")
        wrong = one.post(body_of("sure"), **NAMED, authorization="Bearer open")
        assert reason_of(wrong) == ("teacher", "ineligible:key")
        assert reason_of(one.post(body_of("sure"), **NAMED)) == ("teacher", "ineligible:key")
        right = one.post(body_of("sure"), **NAMED, authorization="Bearer open sesame")
        assert reason_of(right) == ("student", "served")


def test_gateway_open_to_others_without_a_key_serves_no_student(
    project: Project, teacher: str
) -> None:
    follow(project)
    with gateway(project, teacher, engines=Engines(student), host="0.0.0.0") as one:
        assert reason_of(one.post(body_of("sure"), **NAMED)) == ("teacher", "ineligible:key")


def test_gateway_operators_key_is_spent_only_by_who_may(
    project: Project, teacher: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RENT_KEY", "sk-rent")
    monkeypatch.setenv("DOOR_KEY", "open")
    teachers = {"main": Upstream("main", teacher, key_env="RENT_KEY")}
    with gateway(
        project, None, teachers=teachers, default_teacher="main", key_env="DOOR_KEY"
    ) as one:
        for path, body in (("/chat/completions", asked("hello")), ("/models", None)):
            method = "POST" if body else "GET"
            refused = httpx.request(method, one.base_url + path, json=body)
            assert refused.status_code == 401
            assert refused.json()["error"]["code"] == "invalid_api_key"
            shown = {"authorization": "Bearer open"}
            let_in = httpx.request(method, one.base_url + path, json=body, headers=shown)
            assert let_in.status_code == 200


@pytest.mark.parametrize(
    "settings",
    [
        GatewaySettings(teachers={"m": Upstream("m", "http://x/v1", key_env="NOT_SET")}),
        GatewaySettings(key_env="NOT_SET"),
    ],
)
def test_gateway_key_that_is_not_set_stops_the_start(
    project: Project, settings: GatewaySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NOT_SET", raising=False)

    async def start() -> None:
        await Gateway(project, settings, start_engine=Engines()).start()

    with pytest.raises(SettingsError, match="NOT_SET, which is not set"):
        asyncio.run(start())
    monkeypatch.setenv("NOT_SET", "gëheim")
    with pytest.raises(SettingsError, match="variable NOT_SET holds what cannot be an API key"):
        asyncio.run(start())


def test_gateway_logs_no_content(
    project: Project, teacher: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    follow(project)
    with gateway(project, teacher, engines=Engines(student)) as one:
        one.until("ready")
        for text in ("sure", "unsure", "boom"):
            body = body_of(text, metadata={"note": "private-note"})
            one.post(body, **NAMED, authorization="Bearer sk-private-key")
    ours = "\n".join(
        record.getMessage() for record in caplog.records if record.name.startswith("ownweights")
    )
    assert ours.count("student") >= 2
    assert "ZeroDivisionError" in ours
    for private in ("says sure", "UNSURE", "private", "sk-", "a defect in the engine"):
        assert private not in caplog.text


def test_gateway_logs_a_line_a_request(
    project: Project, teacher: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ownweights")
    follow(project)
    with gateway(project, teacher, engines=Engines(student)) as one:
        one.until("ready")
        for text in ("sure", "unsure"):
            one.post(body_of(text), **NAMED)
        one.post(body_of("never recorded"), **NAMED, x_own_force_teacher="1")
        one.post(b"{")
        httpx.get(f"{one.base_url}/models")
        one.status()
        one.kept.wait(3)
        ids = [record.id for record in one.kept.records]
    lines = [re.sub(r"\d+ ms", "N ms", line) for line in caplog.messages]
    assert lines == [
        f"{ids[0]} tickets 200 student served N ms",
        f"{ids[1]} tickets 200 teacher below_threshold N ms",
        f"{ids[2]} tickets 404 teacher forced N ms teacher_refused",
        "refused 400 invalid_json",
        "models 200",
    ]


def test_gateway_several_teachers_list_models_by_workload(project: Project, teacher: str) -> None:
    teachers = {"a": Upstream("a", "http://127.0.0.1:9/v1"), "b": Upstream("b", teacher)}
    with gateway(project, None, teachers=teachers, teacher_of={"mail": "b"}) as one:
        url = f"{one.base_url}/models"
        answer = httpx.get(url)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (400, "workload_needed")
        assert error["param"] == "x-own-workload"
        listed = httpx.get(url, headers={"x-own-workload": "mail"}).json()
        assert [row["id"] for row in listed["data"]] == ["rented-1"]
        for other in (
            httpx.get(url, headers={"x-own-workload": "tickets"}),
            one.post(asked("hello"), **NAMED),
        ):
            error = other.json()["error"]
            assert (other.status_code, error["code"]) == (502, "no_teacher")
            assert '[workload.tickets] teacher = "NAME"' in error["message"]


def test_gateway_says_that_it_cannot_record_and_answers(
    project: Project, teacher: str, caplog: pytest.LogCaptureFixture
) -> None:
    project.database_path.mkdir(parents=True)
    recorder = Recorder(project, retry_s=0.01)
    upstreams = {"main": Upstream("main", teacher)}
    settings = GatewaySettings(teachers=upstreams, default_teacher="main")
    app = Gateway(project, settings, start_engine=Engines(), recorder=recorder)
    with running(app) as url:
        first = httpx.get(f"{url}/ready").json()
        assert (first["records"]["lost"], first["record_fault"]) == (0, None)
        answer = httpx.post(f"{url}/v1/chat/completions", json=asked("hello"))
        assert answer.status_code == 200
        while not (status := httpx.get(f"{url}/ready").json())["record_fault"]:
            continue
        assert "own.db" in status["record_fault"]
        assert status["records"] == {"stored": 0, "waiting": 1, "lost": 0}
        recorder.close(timeout_s=0.01)
        assert httpx.get(f"{url}/ready").json()["records"]["lost"] == 1
    assert "cannot be recorded" in caplog.text
    assert caplog.messages[-1].startswith("1 requests were answered but not recorded")


def test_gateway_own_defect_is_an_error_in_shape(
    project: Project, teacher: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*given: object) -> None:
        raise KeyError("a defect")

    monkeypatch.setattr("ownweights.gateway.names.default_workload", broken)
    with gateway(project, teacher) as one:
        answer = one.post(asked("hello"))
        assert answer.status_code == 500
        assert answer.json()["error"]["code"] == "internal"
        assert "a defect" not in answer.text
