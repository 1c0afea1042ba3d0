"""A project to build datasets in."""

from __future__ import annotations

from pathlib import Path

import pytest

from ownweights.core.project import Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path / "project")
