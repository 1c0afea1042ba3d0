"""The gateway as a program of its own: started, asked, stopped."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from ownweights.core.errors import OwnError, PortInUse
from ownweights.core.project import Project
from ownweights.gateway import GatewaySettings, background, run_gateway
from ownweights.gateway.run import Background
from ownweights.teacher.serving import bind
from ownweights.traffic import TrafficStore
from tests.gateway.harness import WAIT_S, Engines
from tests.route.samples import body_of, follow
from tests.teacher.servers import asked, completion, json_answer, replay_of, running, talking

GOOD = json_answer(json.dumps(completion("fine")).encode())


@pytest.fixture(scope="module")
def teacher() -> Iterator[str]:
    with running(replay_of({"hello": "HELLO"})) as url:
        yield f"{url}/v1"


def project_with(folder: Path, teacher_url: str) -> Project:
    (folder / "own.toml").write_text(f'[teacher.main]\nbase_url = "{teacher_url}"\n')
    return Project(folder)


def test_background_serves_the_official_client(tmp_path: Path, teacher: str) -> None:
    project = project_with(tmp_path, teacher)
    with background(project) as one:
        assert one.base_url == f"{one.url}/v1"
        assert one.status()["engine"] == "off"
        with openai.OpenAI(base_url=one.base_url, api_key="k") as client:
            answer = client.chat.completions.create(**asked("hello"))
            assert answer.choices[0].message.content == "HELLO"
    assert one.process.returncode == 0


def test_background_stop_keeps_every_record(tmp_path: Path, teacher: str) -> None:
    project = project_with(tmp_path, teacher)
    with background(project) as one:
        ids = {
            httpx.post(f"{one.base_url}/chat/completions", json=asked("hello"), timeout=WAIT_S)
            .headers["x-own-request-id"]
            for _ in range(20)
        }  # fmt: skip
    with TrafficStore.open(project) as store:
        records = list(store.records())
    assert {record.id for record in records} == ids
    assert {(record.status, record.role, record.model) for record in records} == {
        ("ok", "teacher", "rented-1")
    }
    assert {record.answer_text for record in records} == {"HELLO"}


def test_background_stop_lets_open_requests_finish(tmp_path: Path) -> None:
    is_asked, go = threading.Event(), threading.Event()

    def script(index: int) -> list[bytes]:
        is_asked.set()
        assert go.wait(WAIT_S)
        return GOOD

    found: list[httpx.Response] = []

    def ask(one: Background) -> None:
        url = f"{one.base_url}/chat/completions"
        found.append(httpx.post(url, json=asked("a"), timeout=WAIT_S))

    with talking(script) as talk:
        project = project_with(tmp_path, talk.base_url)
        with background(project) as one:
            asking = threading.Thread(target=ask, args=(one,))
            asking.start()
            assert is_asked.wait(WAIT_S)
            one.process.send_signal(signal.SIGTERM)
            go.set()
            asking.join(WAIT_S)
    assert found[0].json() == completion("fine")
    with TrafficStore.open(project) as store:
        assert store.count() == 1


def test_background_engine_that_cannot_start_is_an_error(tmp_path: Path, teacher: str) -> None:
    project = project_with(tmp_path, teacher)
    follow(project, student_id="ffffffffffff")
    with pytest.raises(OwnError, match="the engine does not answer"), background(project):
        pytest.fail("it must not get here")


def test_background_that_does_not_start_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text("[gateway]\nprot = 1\n")
    with (
        pytest.raises(OwnError, match="did not start: exit code 2"),
        background(Project(tmp_path)),
    ):
        pytest.fail("it must not get here")


def test_run_gateway_taken_port_says_so(tmp_path: Path) -> None:
    with bind("127.0.0.1", 0) as taken:
        taken.listen()
        settings = GatewaySettings(port=taken.getsockname()[1])
        with pytest.raises(PortInUse, match="in use by another program") as caught:
            run_gateway(Project(tmp_path), settings, engine=Engines())
    assert "--port" in str(caught.value)


def test_run_gateway_needs_no_torch_and_little_else(tmp_path: Path) -> None:
    code = (
        "import sys, ownweights.gateway.run\n"
        "print([m for m in ('torch', 'scipy', 'openai', 'starlette', 'transformers')"
        " if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_gateway_killed_keeps_what_was_stored(tmp_path: Path, teacher: str) -> None:
    project = project_with(tmp_path, teacher)
    with background(project) as one:
        for _ in range(3):
            httpx.post(f"{one.base_url}/chat/completions", json=asked("hello"), timeout=WAIT_S)
        with TrafficStore.open(project) as store:
            while store.count() < 3:
                one.status()
        one.process.kill()
    with TrafficStore.open(project) as store:
        assert store.count() == 3
        assert {record.answer_text for record in store.records()} == {"HELLO"}


def test_two_gateways_write_one_store(tmp_path: Path, teacher: str) -> None:
    project = project_with(tmp_path, teacher)
    with background(project) as first, background(project) as second:
        for one in (first, second, first, second):
            url = f"{one.base_url}/chat/completions"
            assert httpx.post(url, json=body_of("hello"), timeout=WAIT_S).status_code == 200
    with TrafficStore.open(project) as store:
        assert store.count() == 4


def test_gateway_goes_on_recording_while_others_look(tmp_path: Path, teacher: str) -> None:
    project = project_with(tmp_path, teacher)
    TrafficStore.open(project).close()  # the gateway opens it for records, and again for keys
    with background(project) as one:
        for _ in range(5):
            url = f"{one.base_url}/chat/completions"
            assert httpx.post(url, json=body_of("hello"), timeout=WAIT_S).status_code == 200
            one.status()
            with TrafficStore.open(project) as store:  # comes, and leaves as if it were the last
                store.count()
        assert project.database_path.with_name("own.db-wal").exists()
    with TrafficStore.open(project) as store:
        assert store.count() == 5


def test_background_masks_as_own_toml_says(tmp_path: Path) -> None:
    said = "write to ana@example.org"
    with running(replay_of({said: "I wrote to ana@example.org", "off": "OFF"})) as url:
        project = project_with(tmp_path, f"{url}/v1")
        with project.settings_path.open("a") as file:
            file.write('[workload.w]\nredact = ["email"]\n[workload.off]\nrecord = false\n')
        with background(project) as one:
            for text, workload in ((said, "w"), ("off", "off")):
                answer = httpx.post(
                    f"{one.base_url}/chat/completions", json=asked(text), timeout=WAIT_S,
                    headers={"x-own-workload": workload},
                )  # fmt: skip
                assert answer.status_code == 200
                assert ("ana@example.org" in answer.text) == (workload == "w")
    with TrafficStore.open(project) as store:
        (record,) = store.records()
    assert record.answer_text is not None and record.answer_text.startswith("I wrote to <EMAIL_")
    assert record.request["messages"][-1]["content"] == f"write to {record.answer_text[11:]}"
