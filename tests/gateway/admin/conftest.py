"""The admin listener of a gateway that was not started, over a project of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ownweights.core.project import Project
from ownweights.gateway import Gateway, GatewaySettings
from ownweights.gateway.admin.app import Admin
from tests.gateway.harness import Engines, KeptRecords


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.fixture
def admin(project: Project) -> Iterator[Admin]:
    gateway = Gateway(project, GatewaySettings(), start_engine=Engines(), recorder=KeptRecords())
    one = Admin(gateway, "127.0.0.1")
    yield one
    one.close()
