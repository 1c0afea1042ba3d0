"""One swap at a time, across threads and processes."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ownweights.core.project import Project
from ownweights.route import active_id, rollback, swap
from ownweights.route.swap import swapping
from tests.route.samples import follow

HOLDER = """
import sys, pathlib
from ownweights.core.project import Project
from ownweights.route.swap import swapping
with swapping(Project(pathlib.Path(sys.argv[1]))):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def held(project: Project) -> subprocess.Popen[str]:
    """Another process that holds the routes until it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(project.root)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None, "stdout is a pipe"
    assert process.stdout.readline() == "held\n"
    return process


def test_swap_waits_for_another_process_until_it_is_killed(project: Project) -> None:
    follow(project)
    with held(project) as process:
        person = threading.Thread(target=rollback, args=(project, "tickets"))
        person.start()
        person.join(0.1)
        assert person.is_alive()
        process.kill()
        person.join()
    assert active_id(project, "tickets") is None


def test_swap_goes_on_without_a_holder_that_stands_still(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swap, "WAIT_S", 0.05)
    follow(project)
    with held(project) as process:
        rollback(project, "tickets")
        process.kill()
    assert active_id(project, "tickets") is None


def test_swap_may_be_nested_and_is_let_go_of(project: Project) -> None:
    follow(project)
    with swapping(project), swapping(project):
        rollback(project, "tickets")
    other = threading.Thread(target=follow, args=(project,))
    other.start()
    other.join()
    assert active_id(project, "tickets") is not None


def test_swap_in_a_project_without_routes_makes_nothing(project: Project) -> None:
    with swapping(project):
        pass
    assert not project.store_dir.exists()
