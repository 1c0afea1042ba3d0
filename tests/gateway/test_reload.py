"""Settings that change while serving: taken up whole, or not at all."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from ownweights.core.project import Project
from ownweights.core.settings import load_settings
from ownweights.gateway import Gateway, GatewaySettings
from tests.gateway.harness import WAIT_S, Engines, KeptRecords, Running
from tests.teacher.servers import asked, completion, json_answer, running, talking


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ownweights.gateway.reload.LOOK_S", 0.01)


def write(project: Project, url: str, more: str = "") -> None:
    project.settings_path.write_text(f'[teacher.main]\nbase_url = "{url}"\n{more}')


def until(one: Running, wanted: str | None) -> None:
    give_up_s = time.monotonic() + WAIT_S
    while (wanted or "") not in ((one.status()["settings_fault"]) or "") or (
        wanted is None and one.status()["settings_fault"]
    ):
        assert time.monotonic() < give_up_s
        time.sleep(0.01)


def answer_of(text: str) -> list[bytes]:
    import json

    return json_answer(json.dumps(completion(text)).encode())


def test_gateway_keeps_its_settings_when_the_file_breaks(tmp_path: Path) -> None:
    project = Project(tmp_path)

    def load() -> GatewaySettings:
        if "fails = 1" in project.settings_path.read_text():
            raise RuntimeError("a defect of ours")
        return GatewaySettings.of(load_settings(project, env={}))

    with talking(answer_of("old")) as old, talking(answer_of("new")) as new:
        write(project, old.base_url)
        app = Gateway(project, load(), start_engine=Engines(), recorder=KeptRecords(), reload=load)
        with running(app) as url:
            one = Running(url, KeptRecords(), Engines())
            assert one.post(asked("hello")).json() == completion("old")
            write(project, new.base_url, "nonsense = 1\n")
            until(one, "nonsense")
            assert one.post(asked("hello")).json() == completion("old")
            write(project, new.base_url, 'key_env = "NOT_SET_ANYWHERE"\n')
            until(one, "NOT_SET_ANYWHERE")
            write(project, new.base_url, "fails = 1\n")
            until(one, "RuntimeError")
            assert one.post(asked("hello")).json() == completion("old")
            write(project, new.base_url)
            until(one, None)
            assert one.post(asked("hello")).json() == completion("new")
