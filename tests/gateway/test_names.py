"""Workload names of requests that name none: what the store says, or the prompt's hash."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ownweights.core.project import Project
from ownweights.gateway import names as module
from ownweights.gateway.names import WorkloadNames
from ownweights.traffic import TrafficStore, make_record, workload_hash
from tests.gateway.harness import gateway
from tests.route.samples import body_of
from tests.teacher.servers import replay_of, running
from tests.traffic.samples import ask, make

HASH = workload_hash(ask())


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def add(project: Project, *workloads: str) -> None:
    with TrafficStore.open(project) as store:
        store.add([make(f"q{name}", workload=name) for name in workloads])


def name_of(names: WorkloadNames, prompt_hash: str = HASH) -> str:
    return asyncio.run(names.of(prompt_hash))


def test_names_give_the_name_that_the_store_knows(project: Project) -> None:
    add(project, "tickets")
    assert name_of(WorkloadNames(project)) == "tickets"


@pytest.mark.parametrize("stored", [(), ("tickets", "mail")])
def test_names_are_made_of_the_hash_unless_one_name_is_stored(
    project: Project, stored: tuple[str, ...]
) -> None:
    add(project, *stored)
    assert name_of(WorkloadNames(project)) == f"auto-{HASH[:8]}"


def test_names_do_without_a_store(project: Project) -> None:
    assert name_of(WorkloadNames(project)) == f"auto-{HASH[:8]}"
    assert not project.database_path.exists()
    project.database_path.parent.mkdir(parents=True, exist_ok=True)
    project.database_path.write_bytes(b"no database" * 200)
    assert name_of(WorkloadNames(project)) == f"auto-{HASH[:8]}"


def test_names_ask_the_store_once_a_prompt(project: Project) -> None:
    add(project, "tickets")
    names = WorkloadNames(project)
    name_of(names)
    project.database_path.unlink()
    assert name_of(names) == "tickets"


def test_names_forget_what_was_asked_longest_ago(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_REMEMBERED", 2)
    names = WorkloadNames(project)
    for prompt_hash in ("a" * 8, HASH, "a" * 8, "b" * 8):
        name_of(names, prompt_hash)
    add(project, "tickets")
    assert name_of(names, "a" * 8) == f"auto-{'a' * 8}"
    assert name_of(names) == "tickets"  # it was forgotten, so the store is asked again


def test_gateway_records_under_the_name_of_the_prompt(project: Project) -> None:
    with TrafficStore.open(project) as store:
        store.add([make_record(body_of("earlier"), None, role="teacher", workload="tickets")])
    with running(replay_of({"now": "NOW"})) as url, gateway(project, f"{url}/v1") as one:
        one.post(body_of("now"))
        assert one.kept.wait().workload == "tickets"
