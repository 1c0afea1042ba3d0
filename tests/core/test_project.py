"""Where things are on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from ownweights.core.project import KINDS, Project


def test_project_paths_are_beside_the_settings(tmp_path: Path) -> None:
    project = Project(tmp_path)
    assert project.settings_path == tmp_path / "own.toml"
    assert project.database_path == tmp_path / ".own" / "own.db"
    assert project.bodies_dir == tmp_path / ".own" / "bodies"
    assert {project.kind_dir(kind) for kind in KINDS} == {
        tmp_path / ".own" / kind for kind in KINDS
    }


def test_project_makes_nothing_by_itself(tmp_path: Path) -> None:
    Project(tmp_path).kind_dir("student")
    assert list(tmp_path.iterdir()) == []


def test_project_refuses_an_unknown_kind(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="'pupil' is not one of"):
        Project(tmp_path).kind_dir("pupil")
