"""Settings that change while many ask: no request is lost, or answered by who is not set."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from ownweights.core.project import Project
from ownweights.core.settings import load_settings
from ownweights.gateway import Gateway, GatewaySettings
from tests.gateway.harness import WAIT_S, WHOLE, Engines, KeptRecords
from tests.teacher.servers import asked, completion, json_answer, running, sse_answer, talking

NUM_CALLERS, NUM_RELOADS = 4, 12


def said(text: str) -> list[bytes]:
    return json_answer(json.dumps(completion(text)).encode())


def write(project: Project, *urls: str, more: str = "") -> None:
    """own.toml in one step, as editors write it: the first of the teachers is the workload's."""
    tables = [f'[teacher.t{n}]\nbase_url = "{url}"\n' for n, url in enumerate(urls)]
    new = project.settings_path.with_suffix(".new")
    new.write_text('[workload.w]\nteacher = "t0"\n' + "".join(tables) + more)
    new.replace(project.settings_path)


@pytest.fixture
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ownweights.gateway.reload.LOOK_S", 0.005)


@pytest.mark.usefixtures("_look_often")
@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "streamed"])
def test_reload_under_load_loses_no_request(tmp_path: Path, is_stream: bool) -> None:
    project, kept, stop = Project(tmp_path), KeptRecords(), threading.Event()

    def load() -> GatewaySettings:
        return GatewaySettings.of(load_settings(project, env={}))

    def keep_asking(url: str) -> list[tuple[int, bytes, str]]:
        found: list[tuple[int, bytes, str]] = []
        with httpx.Client(timeout=WAIT_S, headers={"x-own-workload": "w"}) as client:
            while not stop.is_set():
                body = asked("hello", stream=is_stream)
                answer = client.post(f"{url}/v1/chat/completions", json=body)
                request_id = answer.headers["x-own-request-id"]
                found.append((answer.status_code, answer.content, request_id))
        return found

    good = sse_answer(*WHOLE) if is_stream else said("fine")
    expected = b"".join(WHOLE) if is_stream else json.dumps(completion("fine")).encode()
    with talking(good) as first, talking(good) as second:
        talks = [first, second]
        write(project, first.base_url, second.base_url)
        app = Gateway(project, load(), start_engine=Engines(), recorder=kept, reload=load)
        with running(app) as url, ThreadPoolExecutor(NUM_CALLERS) as pool:
            asking = [pool.submit(keep_asking, url) for _ in range(NUM_CALLERS)]
            try:
                for turn in range(1, NUM_RELOADS):
                    now, other = talks[turn % 2], talks[(turn + 1) % 2]
                    write(project, now.base_url, other.base_url)
                    before = len(now.requests)
                    give_up_s = time.monotonic() + WAIT_S
                    while len(now.requests) < before + 3:  # the new one is in force
                        assert time.monotonic() < give_up_s
                        time.sleep(0.001)
                    write(project, now.base_url, more="nonsense = 1\n")  # changes nothing
            finally:
                stop.set()
            found = [one for future in asking for one in future.result(WAIT_S)]
        num_asked = len(first.requests) + len(second.requests)
    assert {(status, content) for status, content, _ in found} == {(200, expected)}
    assert len(found) == len(kept.records) == num_asked
    assert sorted(record.id for record in kept.records) == sorted(one[2] for one in found)
    assert {record.status for record in kept.records} == {"ok"}
