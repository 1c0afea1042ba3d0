"""The routes in force, followed as their pointers move."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from ownweights.core.project import Project
from ownweights.gateway import routes as routes_module
from ownweights.gateway.routes import TICK_NS, RouteTable
from ownweights.route import active_dir, rollback
from ownweights.verdict.voiding import void_certificate, void_dir
from tests.route.samples import follow


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def settle(project: Project) -> None:
    """Make the last swap look as if it were long ago."""
    past = time.time_ns() - 10 * TICK_NS
    for folder in (active_dir(project), void_dir(project)):
        if folder.exists():
            os.utime(folder, ns=(past, past))


def test_route_table_without_routes_is_empty(project: Project) -> None:
    table = RouteTable(project)
    assert table.current() == {}
    assert table.find("tickets", "hash") is None


def test_route_table_follows_every_swap(project: Project) -> None:
    table = RouteTable(project)
    for number in range(5):
        route = follow(project, threshold=-float(number))
        assert table.current() == {"tickets": route}
    rollback(project, "tickets")
    assert table.current() == {}


def test_route_table_sees_a_certificate_become_void(project: Project) -> None:
    """Also where whoever voided it was killed before the pointer was swapped."""
    kept, route = follow(project, workload="mail", verdict_id="feedfeedfeed"), follow(project)
    void_certificate(project, "abadabadabad", reason="another", by="incident")
    settle(project)
    table = RouteTable(project)
    assert table.current() == {"mail": kept, "tickets": route}
    void_certificate(project, route.verdict_id, reason="drift", by="incident")
    assert table.current() == {"mail": kept}
    assert "is void: drift" in str(table.faults["tickets"])


def test_route_table_reads_only_after_a_swap(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[Project] = []
    read = routes_module.read_active
    monkeypatch.setattr(routes_module, "read_active", lambda p: reads.append(p) or read(p))
    follow(project)
    settle(project)
    table = RouteTable(project)
    for _ in range(10):
        table.current()
    assert len(reads) == 1
    follow(project, threshold=-0.25)
    settle(project)
    assert table.current()["tickets"].threshold == -0.25
    assert len(reads) == 2


def test_route_table_reads_again_while_times_are_too_coarse(project: Project) -> None:
    first = follow(project)
    table = RouteTable(project)
    stamp = os.stat(active_dir(project)).st_mtime_ns
    assert table.current() == {"tickets": first}
    second = follow(project, threshold=-0.25)
    os.utime(active_dir(project), ns=(stamp, stamp))  # as if both fell into one tick
    assert table.current() == {"tickets": second}


def test_route_table_finds_by_name_or_by_prompt(project: Project) -> None:
    tickets = follow(project, prompt_hashes=("a", "b"))
    mail = follow(project, workload="mail", prompt_hashes=("c",))
    table = RouteTable(project)
    table.current()
    assert table.find("tickets", "c") == tickets
    assert table.find("mail", "x") == mail
    assert table.find("other", "a") is None
    assert (table.find(None, "b"), table.find(None, "c")) == (tickets, mail)
    assert table.find(None, "d") is None


def test_route_table_keeps_faults_apart(project: Project) -> None:
    good, bad = follow(project), follow(project, workload="mail")
    assert bad.path is not None
    bad.path.unlink()
    table = RouteTable(project)
    assert table.current() == {"tickets": good}
    assert list(table.faults) == ["mail"]


def test_route_table_says_a_fault_once(project: Project, caplog: pytest.LogCaptureFixture) -> None:
    good, _ = follow(project), follow(project, workload="mail")
    (active_dir(project) / "mail").write_bytes(b"\xff\xfe")
    table = RouteTable(project)
    for _ in range(3):  # each reads the folder again, for its time is fresh
        assert table.current() == {"tickets": good}
    (said,) = caplog.messages
    assert "mail goes to the teacher" in said
    assert str(active_dir(project) / "mail") in said
    assert "own route rollback mail" in said
