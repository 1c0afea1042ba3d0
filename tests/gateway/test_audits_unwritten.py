"""Audits while the database cannot be written."""

from __future__ import annotations

import contextlib
import functools
import sqlite3
import time
from pathlib import Path

import pytest

from ownweights.core.database import open_database
from ownweights.core.project import Project
from ownweights.gateway import audits as audits_module
from ownweights.route import active_id
from ownweights.route import audits as audit_log_module
from ownweights.route.audits import AuditLog
from ownweights.verdict.voiding import void_reason
from tests.gateway.harness import WAIT_S, Engines, followed, gateway, sure
from tests.route.samples import body_of
from tests.teacher.servers import replay_of, running

TEXTS = [f"{word} {word}" for word in "abcdefghijklmnopqrst"]  # each its own unit


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_gateway_keeps_audits_while_the_database_cannot_be_written(
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Locked by another for a while: no harm is forgotten, and the rollback comes by itself."""
    impatient = functools.partial(open_database, busy_timeout_s=0.01)
    monkeypatch.setattr(audit_log_module, "open_database", impatient)
    monkeypatch.setattr(audits_module, "QUIET_S", 0.05)
    monkeypatch.setattr(audits_module, "RETRY_S", 0.0)
    route = followed(project, "served", audit_frac=0.99)
    AuditLog(project, route.id).tally(0)
    locked = sqlite3.connect(project.database_path, isolation_level=None)
    with (
        contextlib.closing(locked),
        running(replay_of({text: text.upper() for text in TEXTS})) as url,
        gateway(project, f"{url}/v1", engines=Engines(sure("x"))) as one,
    ):
        one.until("ready")
        locked.execute("BEGIN IMMEDIATE")
        ids = [
            one.post(body_of(text), x_own_workload="tickets").headers["x-own-request-id"]
            for text in TEXTS
        ]
        give_up_s = time.monotonic() + WAIT_S
        while "audits wait" not in caplog.text:
            assert time.monotonic() < give_up_s
            time.sleep(0.02)
        assert AuditLog(project, route.id).since()[0] == []
        locked.execute("COMMIT")
        while active_id(project, "tickets") is not None:
            assert time.monotonic() < give_up_s
            time.sleep(0.02)
    found = [audit.request_id for audit in AuditLog(project, route.id).since()[0]]
    assert len(found) == len(set(found)) > 10
    assert set(found) <= set(ids)
    assert void_reason(project, route.verdict_id) is not None
