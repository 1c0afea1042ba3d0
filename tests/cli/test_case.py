"""The flags that `own verdict run` and `own verdict certify` share, beside the settings: times."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ownweights.cli.trial import Case
from ownweights.core.project import Project
from tests.cli.stood_in import seal_student


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project(tmp_path)
    seal_student(project)
    return project


def case_of(project: Project, **given: Any) -> Case:
    plain = {"timeout_s": None, "concurrency": 4, "keep_answers": False}
    return Case.of(project, "tickets", None, {**plain, **given})


def test_case_gives_answers_the_time_that_the_route_will(project: Project) -> None:
    assert case_of(project).options.timeout_s == 10.0
    project.settings_path.write_text("[route.tickets]\ntimeout_s = 2.5\n")
    assert case_of(project).options.timeout_s == 2.5
    assert case_of(project, timeout_s=7.0).options.timeout_s == 7.0
