"""Who answers, and what is compared afterwards."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from ownweights.core.project import Project
from ownweights.gateway import Upstream
from tests.gateway.harness import Engines, audits_when, followed, gateway, sure
from tests.route.samples import body_of
from tests.teacher.servers import free_port, replay_of, running


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_gateway_compares_with_the_routes_teacher_alone(project: Project) -> None:
    down = f"http://127.0.0.1:{free_port()}/v1"
    with running(replay_of({"hello": "HELLO"})) as url:
        teachers = {
            "main": Upstream("main", down, fallback=("other",)),
            "other": Upstream("other", f"{url}/v1"),
        }
        route = followed(project, "shadow")
        settings = {"teachers": teachers, "default_teacher": "main"}
        with gateway(project, None, engines=Engines(sure("HELLO")), **settings) as one:
            one.until("ready")
            assert one.post(body_of("hello"), x_own_workload="tickets").status_code == 200
            (audit,) = audits_when(project, route, lambda found: len(found) == 1)
            assert audit.harm is not None
            assert math.isnan(audit.harm)  # there is nothing to compare with
