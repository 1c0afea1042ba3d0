"""A project and its store, with its rows in SQLite, and in Postgres."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ownweights.core.project import Project, Server
from ownweights.traffic import TrafficStore


@pytest.fixture
def project(address: Path | Server, tmp_path: Path) -> Project:
    server = address if isinstance(address, Server) else None
    return Project(tmp_path / "project", server=server)


@pytest.fixture
def store(project: Project) -> Iterator[TrafficStore]:
    with TrafficStore.open(project) as opened:
        yield opened
