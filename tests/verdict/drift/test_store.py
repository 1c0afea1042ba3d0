"""Monitors on disk: whole, refused when damaged, one run at a time."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import json
from pathlib import Path

import pytest

from ownweights.core.errors import ArtefactError, ArtefactUnwritten, StoreError
from ownweights.core.project import Project
from ownweights.verdict.drift import (
    DriftMonitor,
    incidents,
    load_monitor,
    save_baseline,
    save_look,
    store,
    take_baseline,
    watched_teachers,
)
from ownweights.verdict.drift.baseline import Baseline, Plan
from ownweights.verdict.drift.store import drift_dir, open_incidents
from tests.verdict.drift.endpoints import (
    FEW,
    SEQUENTIAL,
    DrawnEndpoint,
    canaries,
    half_border,
    with_incident,
)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def taken(at: float = 1.0, plan: Plan = FEW, teacher: str = "main") -> Baseline:
    return asyncio.run(
        take_baseline(
            DrawnEndpoint(shares=half_border), canaries(12), teacher=teacher, plan=plan, at=at,
            manner=SEQUENTIAL,
        )
    )  # fmt: skip


def look(project: Project, monitor: DriftMonitor, model: str = "rented-1") -> DriftMonitor:
    endpoint = DrawnEndpoint(shares=half_border, model=model)
    asked = asyncio.run(monitor.ask(endpoint, SEQUENTIAL))
    found = monitor.judge(asked, at=9.0)
    save_look(project, found, asked)
    return found


def current(project: Project) -> Path:
    return drift_dir(project) / "main" / "0001"


def test_monitor_survives_its_files(project: Project) -> None:
    monitor = save_baseline(project, taken())
    assert load_monitor(project, "main") == monitor
    for model in ("rented-1", "rented-2"):
        monitor = look(project, monitor, model)
        assert load_monitor(project, "main") == monitor
    assert monitor.state.incident is not None
    assert monitor.baseline.borders is not None


def test_monitor_survives_odd_text(project: Project) -> None:
    odd = dataclasses.replace(taken(), answers=(("\ud800 half", "\u2028 line"),) * 12)
    save_baseline(project, odd)
    found = load_monitor(project, "main")
    assert found is not None
    assert found.baseline == odd


def test_load_monitor_of_an_unwatched_teacher_is_none(project: Project) -> None:
    assert load_monitor(project, "main") is None
    assert watched_teachers(project) == []
    assert incidents(project) == []


def test_new_baseline_starts_afresh_and_keeps_the_old_incident(project: Project) -> None:
    old = look(project, save_baseline(project, taken()), "rented-2")
    new = save_baseline(project, taken(at=50.0))
    found = load_monitor(project, "main")
    assert found == new
    assert found is not None
    assert found.state.looks == ()
    assert incidents(project) == [old.state.incident]
    assert open_incidents(project) == {}  # a new baseline closes it
    assert sorted(path.name for path in (drift_dir(project) / "main").iterdir()) == ["0001", "0002"]


def test_open_incidents_are_those_of_the_newest_baselines(project: Project) -> None:
    assert open_incidents(project) == {}
    look(project, save_baseline(project, taken(teacher="calm")))
    found = with_incident(project)
    assert open_incidents(project) == {"main": found.state.incident}
    (current(project) / "state.json").write_text("{}")
    assert open_incidents(project) == {}


def test_watched_teachers_are_listed(project: Project) -> None:
    for name in ("main", "a-second.one"):
        save_baseline(project, taken(teacher=name))
    (drift_dir(project) / "empty").mkdir()
    assert watched_teachers(project) == ["a-second.one", "main"]


def test_save_look_keeps_answers_side_by_side(project: Project) -> None:
    look(project, save_baseline(project, taken()))
    lines = (current(project) / "look-1.jsonl").read_text().splitlines()
    first = json.loads(lines[0])
    assert len(lines) == 12
    assert (first["old"], first["new"], first["fault"]) == ("answer 0", "answer 0", "")
    assert first["request"]["messages"][0]["content"] == "question 0"


def test_save_look_refuses_a_look_that_another_run_made(project: Project) -> None:
    monitor = save_baseline(project, taken())
    look(project, monitor)
    with pytest.raises(StoreError, match="look 1 at teacher 'main' was made by another run too"):
        look(project, monitor)
    save_baseline(project, taken(at=2.0))
    with pytest.raises(StoreError, match="let one run at a time look"):
        look(project, monitor)


@pytest.mark.parametrize("name", ["baseline.json", "state.json"])
@pytest.mark.parametrize("text", ["", "{", "[]", '{"teacher": 3}', '{"looks": 1}'])
def test_load_monitor_refuses_damaged_files(project: Project, name: str, text: str) -> None:
    save_baseline(project, taken())
    (current(project) / name).write_text(text)
    with pytest.raises(ArtefactError, match=f"{name} is not what a monitor wrote") as caught:
        load_monitor(project, "main")
    assert "hint: move the folder away" in str(caught.value)


def test_load_monitor_without_its_state_says_so(project: Project) -> None:
    save_baseline(project, taken())
    (current(project) / "state.json").unlink()
    with pytest.raises(ArtefactError, match=r"state\.json cannot be read"):
        load_monitor(project, "main")


@pytest.mark.parametrize("name", ["", "../up", ".hidden", "a/b"])
def test_load_monitor_refuses_names_that_are_no_names(project: Project, name: str) -> None:
    with pytest.raises(ArtefactError, match="cannot name a teacher"):
        load_monitor(project, name)


def test_a_half_made_baseline_bars_no_other(project: Project) -> None:
    """What a run left that was killed is not counted, and the next baseline goes by it."""
    monitor = save_baseline(project, taken())
    (drift_dir(project) / "main" / "0002").mkdir()
    (drift_dir(project) / "main" / "0002" / "state.json").write_text("{}")
    assert load_monitor(project, "main") == monitor
    renewed = save_baseline(project, taken(at=2.0))
    assert load_monitor(project, "main") == renewed
    assert sorted(path.name for path in (drift_dir(project) / "main").iterdir()) == [
        "0001", "0002", "0003",
    ]  # fmt: skip


def test_a_baseline_that_cannot_be_written_leaves_nothing(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(store, "write_atomic", full)
        with pytest.raises(ArtefactUnwritten, match="could not be written: No space left"):
            save_baseline(project, taken())
    assert list((drift_dir(project) / "main").iterdir()) == []


@pytest.mark.parametrize("name", ["main (copy)", ".main.old", "notes", "deep"])
def test_incidents_are_found_beside_a_damaged_monitor(project: Project, name: str) -> None:
    """Whatever else lies in the folder; what looks like a monitor and is none is told."""
    known = with_incident(project).state.incident
    other = drift_dir(project) / name / "0001"
    other.mkdir(parents=True)
    (other / "baseline.json").write_text("[" * 100_000 if name == "deep" else "{")
    told = list[str]()
    assert incidents(project, on_broken=told.append) == [known]
    assert list(open_incidents(project)) == ["main"]
    can_be_one = name in ("notes", "deep")
    assert (name in watched_teachers(project)) == can_be_one
    assert len(told) == can_be_one
