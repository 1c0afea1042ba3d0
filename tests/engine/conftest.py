"""One engine process for all tests that only ask it things, with two students and a broken one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from ownweights.core.project import Project
from ownweights.engine import BatchEngine, EngineProcess, EngineThread
from tests.tiny import make_student

NO_STUDENT = "000000000000"


@dataclass(frozen=True)
class Served:
    """A project, its students' ids, and what answers for them."""

    project: Project
    students: tuple[str, str]
    engine: EngineProcess | EngineThread


@pytest.fixture(scope="session")
def tiny_project(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, tuple[str, str]]:
    project = Project(tmp_path_factory.mktemp("project"))
    return project, (make_student(project, seed=1), make_student(project, seed=2))


@pytest.fixture(scope="session")
def process(tiny_project: tuple[Project, tuple[str, str]]) -> Iterator[Served]:
    project, students = tiny_project
    with EngineProcess.start(project, [*students, NO_STUDENT], max_batch=8, threads=1) as engine:
        yield Served(project, students, engine)


@pytest.fixture(scope="session")
def thread(tiny_project: tuple[Project, tuple[str, str]]) -> Iterator[Served]:
    project, students = tiny_project
    with EngineThread(BatchEngine.load(project, [*students, NO_STUDENT], max_batch=8)) as engine:
        yield Served(project, students, engine)


@pytest.fixture(params=["process", "thread"])
def served(request: pytest.FixtureRequest) -> Served:
    """The same students, in a child process and in a thread."""
    return request.getfixturevalue(request.param)
