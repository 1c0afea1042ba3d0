"""A project and its store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ownweights.core.project import Project
from ownweights.traffic import TrafficStore


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path / "project")


@pytest.fixture
def store(project: Project) -> Iterator[TrafficStore]:
    with TrafficStore.open(project) as opened:
        yield opened
