"""The flags that `own verdict run` and `own verdict certify` share, beside the settings: times."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ownweights.cli.trial import Case
from ownweights.core.project import Project
from ownweights.verdict.drift.store import drift_dir
from tests.cli.stood_in import seal_student
from tests.verdict.drift.endpoints import with_incident


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


TEACHER = '[teacher.main]\nbase_url = "http://127.0.0.1:1/v1"\n'


def test_case_knows_who_the_teacher_was(project: Project) -> None:
    assert case_of(project).options.teacher_state == {}  # no teacher
    project.settings_path.write_text(TEACHER)
    assert case_of(project).options.teacher_state == {}  # no baseline
    baseline = with_incident(project, "main").baseline
    found = case_of(project).options.teacher_state
    assert found == {
        "baseline": "main/1", "taken_at": 1.0, "models": list(baseline.metadata.models),
        "fingerprints": list(baseline.metadata.fingerprints), "incident": "main/9",
    }  # fmt: skip
    assert found["models"]


def test_case_goes_on_without_a_baseline_that_cannot_be_read(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.settings_path.write_text(TEACHER)
    with_incident(project, "main")
    (drift_dir(project) / "main" / "0001" / "baseline.json").write_text("{}")
    assert case_of(project).options.teacher_state == {}
    assert "will name no drift baseline" in capsys.readouterr().err
