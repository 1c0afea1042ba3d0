"""A project with a chain of artefacts in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ownweights.core.project import Project
from tests.lineage.chain import Chain, make_chain


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path / "project")


@pytest.fixture
def chain(project: Project) -> Chain:
    return make_chain(project)
