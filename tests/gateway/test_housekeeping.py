"""Pruning while serving."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import logging
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ownweights.core.project import Project
from ownweights.gateway import GatewaySettings
from ownweights.gateway import housekeeping as module
from ownweights.gateway.housekeeping import Housekeeping, prune_once
from ownweights.traffic import TrafficStore
from tests.gateway.harness import WAIT_S
from tests.traffic.samples import make

DAY_S = 86_400.0


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project(tmp_path)
    now = time.time()
    with TrafficStore.open(project) as store:
        for days in (0, 5, 50):
            store.add([dataclasses.replace(make(f"asked {days} days ago"), at=now - days * DAY_S)])
    return project


def left(project: Project) -> tuple[int, int]:
    """(rows, rows with bodies)."""
    with TrafficStore.open(project) as store:
        ((rows,),) = store.database.query("SELECT count(*) FROM record")
        return rows, len(list(store.records()))


@pytest.mark.parametrize(
    ("kept_days", "expected"),
    [((None, None), (3, 3)), ((0, 0), (3, 3)), ((10, None), (3, 2)), ((1, 10), (2, 1))],
)
def test_prune_once_takes_out_what_is_too_old(
    project: Project, kept_days: tuple[float | None, float | None], expected: tuple[int, int]
) -> None:
    prune_once(project, kept_days)
    assert left(project) == expected


def test_prune_once_ends_when_the_gateway_does(project: Project) -> None:
    prune_once(project, (1, 10), is_ended=lambda: True)
    assert left(project) == (2, 2)  # rows went in one page, bodies would have been the next
    prune_once(project, (1, 10))
    assert left(project) == (2, 1)


def keep_house(project: Project, settings: GatewaySettings, is_over: Callable[[], bool]) -> None:
    async def run() -> None:
        house = Housekeeping(project, settings)
        house.start()
        give_up_s = time.monotonic() + WAIT_S
        while not is_over():
            assert time.monotonic() < give_up_s
            await asyncio.sleep(0.01)
        await house.close()

    asyncio.run(run())


def test_housekeeping_prunes_now_and_then(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_S", 0.0)
    monkeypatch.setattr(module, "EVERY_S", 0.0)
    keep_house(project, GatewaySettings(kept_days=(1, 10)), lambda: left(project) == (2, 1))
    assert left(project) == (2, 1)


def test_housekeeping_rests_where_nothing_is_set(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_S", 0.0)
    monkeypatch.setattr(module, "EVERY_S", 0.0)
    asked: list[object] = []
    monkeypatch.setattr(module, "prune_once", lambda *given, **named: asked.append(given))
    for kept_days in ((None, None), (0, 0)):
        rounds = iter(range(6))
        settings = GatewaySettings(kept_days=kept_days)
        keep_house(project, settings, lambda rounds=rounds: next(rounds) == 5)
    assert asked == []
    assert left(project) == (3, 3)


def test_housekeeping_survives_a_store_that_fails(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.WARNING, "ownweights")
    project = Project(tmp_path)
    prune_once(project, (1, 1))
    project.store_dir.mkdir()
    project.database_path.write_bytes(b"no database" * 1000)
    prune_once(project, (1, 1))

    def full(*given: object, **named: object) -> None:
        raise OSError(errno.ENOSPC, "no room for what was asked")

    monkeypatch.setattr(TrafficStore, "open", full)
    prune_once(project, (1, 1))
    assert len(caplog.messages) == 3
    assert "what was asked" not in caplog.text
    assert all("could not be taken out" in message for message in caplog.messages)
