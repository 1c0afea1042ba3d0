"""The gateway with the real engine child behind it: asked, killed, asked again."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from ownweights.core.project import Project
from ownweights.gateway import Background, background
from tests.gateway.harness import WAIT_S
from tests.route.samples import body_of, follow
from tests.teacher.servers import replay_of, running

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def teacher() -> Iterator[str]:
    with running(replay_of({"hello": "HELLO"})) as url:
        yield f"{url}/v1"


@pytest.fixture
def project(tmp_path: Path, teacher: str) -> Project:
    """A project whose only route leads to a tiny random student."""
    from tests.tiny import make_student

    (tmp_path / "own.toml").write_text(f'[teacher.main]\nbase_url = "{teacher}"\n')
    project = Project(tmp_path)
    follow(project, student_id=make_student(project), threshold=-1e6, timeout_s=WAIT_S)
    return project


def ask(one: Background, **fields: Any) -> httpx.Response:
    return httpx.post(
        f"{one.base_url}/chat/completions",
        json=body_of("hello", max_tokens=4, **fields),
        headers={"x-own-workload": "tickets"},
        timeout=WAIT_S,
    )


def reason_of(answer: httpx.Response) -> str:
    assert answer.status_code == 200
    return answer.headers["x-own-reason"]


def children_of(pid: int) -> list[int]:
    """The processes that any thread of a process has started."""
    listed = list(Path(f"/proc/{pid}/task").glob("*/children"))
    if not listed:
        pytest.skip("this system does not list the children of a process")
    return [int(word) for path in listed for word in path.read_text().split()]


def is_running(pid: int) -> bool:
    """Whether the process is there and not a zombie that nobody has waited for yet."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return fields[0] != "Z"


def test_gateway_asks_the_real_engine(project: Project) -> None:
    with background(project) as one:
        assert one.status()["engine"] == "ready"
        # a random student seldom ends within four tokens: cut off, its answer is never sent
        assert reason_of(ask(one)) in ("served", "below_threshold")
        (child,) = children_of(one.process.pid)
    assert not is_running(child)


def test_gateway_outlives_its_engine(project: Project) -> None:
    with background(project) as one:
        (child,) = children_of(one.process.pid)
        os.kill(child, signal.SIGKILL)
        answer = ask(one)
        assert reason_of(answer) in ("student_error", "served", "below_threshold")
        while one.status()["engine"] != "ready" or children_of(one.process.pid) == [child]:
            assert ask(one).status_code == 200
        assert reason_of(ask(one)) in ("served", "below_threshold")


def test_gateway_takes_a_student_back_that_was_mended(project: Project) -> None:
    with background(project) as one:
        (folder,) = project.kind_dir("student").iterdir()
        weights = next(folder.glob("*.safetensors"))
        good = weights.read_bytes()
        weights.write_bytes(good[:-1])
        (child,) = children_of(one.process.pid)
        os.kill(child, signal.SIGKILL)
        while f"student {folder.name}" not in str(one.status()["engine_fault"]):
            assert ask(one).status_code == 200
        assert reason_of(ask(one)) == "student_error"
        weights.write_bytes(good)
        while one.status()["engine_fault"]:
            assert ask(one).status_code == 200
        assert reason_of(ask(one)) in ("served", "below_threshold")


def test_gateway_that_is_killed_takes_its_engine_with_it(project: Project) -> None:
    with background(project) as one:
        (child,) = children_of(one.process.pid)
        one.process.kill()
        one.process.wait(WAIT_S)
        give_up_s = time.monotonic() + WAIT_S
        while is_running(child) and time.monotonic() < give_up_s:
            continue
    assert not is_running(child)


def test_gateway_streams_what_a_gate_lets_through(tmp_path: Path, teacher: str) -> None:
    """A gate of zeros scores every prompt 0: all is served, or nothing."""
    from ownweights.verdict import Confidence
    from tests.tiny import CONFIG, make_student

    (tmp_path / "own.toml").write_text(f'[teacher.main]\nbase_url = "{teacher}"\n')
    project = Project(tmp_path)
    student = make_student(project)
    gate = Confidence("gate", weights=(0.0,) * CONFIG.hidden_size, scale=(1.0,)).to_dict()
    for threshold, reason in ((-1.0, "served"), (1.0, "below_threshold")):
        follow(project, student_id=student, confidence=gate, threshold=threshold, timeout_s=WAIT_S)
        with background(project) as one:
            answer = ask(one, stream=True)
            assert reason_of(answer) == reason
            assert answer.text.endswith("data: [DONE]\n\n")
            assert ("HELLO" in answer.text) == (reason == "below_threshold")
