"""A project with its keys in SQLite, and in Postgres."""

from __future__ import annotations

from pathlib import Path

import pytest

from ownweights.core.project import Project, Server


@pytest.fixture
def project(address: Path | Server, tmp_path: Path) -> Project:
    server = address if isinstance(address, Server) else None
    return Project(tmp_path / "project", server=server)
