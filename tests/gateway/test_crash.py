"""The gateway killed in the middle of a load; the bench gateway_crash does it many times."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path

import httpx

from ownweights.core.project import Project
from ownweights.gateway import background
from ownweights.traffic import TrafficStore
from tests.gateway.harness import WAIT_S
from tests.teacher.servers import asked, replay_of, running

CALLERS, ENOUGH = 4, 60


def ask_until_it_dies(url: str, found: list[str]) -> None:
    """The ids of the answers that arrived whole, in order; every second one is a stream."""
    with httpx.Client(timeout=WAIT_S) as client:
        for number in itertools.count():
            try:
                answer = client.post(url, json={**asked("hello"), "stream": number % 2 == 1})
            except httpx.TransportError:
                return
            assert "HELLO" in answer.text
            found.append(answer.headers["x-own-request-id"])


def test_gateway_killed_under_load_loses_only_the_last_answers(tmp_path: Path) -> None:
    project = Project(tmp_path)
    found: list[list[str]] = [[] for _ in range(CALLERS)]
    with running(replay_of({"hello": "HELLO"})) as teacher:
        project.settings_path.write_text(f'[teacher.main]\nbase_url = "{teacher}/v1"\n')
        with background(project) as one:
            url = f"{one.base_url}/chat/completions"
            callers = [threading.Thread(target=ask_until_it_dies, args=(url, ids)) for ids in found]
            for caller in callers:
                caller.start()
            while (stored := one.status()["records"]["stored"]) < ENOUGH:
                pass
            one.process.kill()
            for caller in callers:
                caller.join(WAIT_S)
    with TrafficStore.open(project) as store:
        assert store.verify().is_sound
        records = list(store.records())
    kept = [record.id for record in records]
    assert len(kept) == len(set(kept)) >= stored
    assert {(record.status, record.answer_text) for record in records} == {("ok", "HELLO")}
    for ids in found:
        is_kept = [record_id in kept for record_id in ids]
        assert is_kept == sorted(is_kept, reverse=True)  # what is lost came last
