"""`own doctor` finds what is wrong without changing or loading anything heavy."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ownweights.cli import doctor as doctor_module
from ownweights.cli.app import run
from ownweights.cli.doctor import (
    TORCH_PIN,
    Finding,
    count_threads,
    find_artefacts,
    find_cpu,
    find_disk,
    find_settings,
    find_store,
    find_torch,
)
from ownweights.core.artefact import draft_folder, seal
from ownweights.core.project import Project
from ownweights.traffic import TrafficStore, make_record


def doctor(project: Project) -> int:
    return run(["--project", str(project.root), "doctor", "--json"])


def store_one(project: Project) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    answer = {
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "yo"},
                "finish_reason": "stop",
            }
        ],
    }
    with TrafficStore.open(project) as store:
        store.add([make_record(body, answer, workload="tickets", role="teacher")])


def test_doctor_of_an_empty_folder_finds_nothing_bad(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert doctor(Project(tmp_path)) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["what"] for row in rows] == [
        "python", "torch", "cpu", "threads", "disk", "settings", "store",
    ]  # fmt: skip
    assert "bad" not in {row["state"] for row in rows}
    assert list(tmp_path.iterdir()) == []  # it only looked


def test_doctor_fails_when_anything_is_bad(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own.toml").write_text("[nonsense]\n")
    assert doctor(Project(tmp_path)) == 1
    assert "nonsense" in capsys.readouterr().out


def test_doctor_does_not_load_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from ownweights.cli.app import run; "
        f"run(['--project', {str(tmp_path)!r}, 'doctor']); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("version", "state"),
    [(TORCH_PIN, "ok"), (f"{TORCH_PIN}+cpu", "ok"), ("2.12.0", "note"), (None, "note")],
)
def test_find_torch_compares_with_the_pin(
    version: str | None, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look_up(name: str) -> str:
        if version is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(importlib.metadata, "version", look_up)
    found = find_torch()
    assert found.state == state
    assert (version or "pip install 'ownweights[train]'") in found.found


@pytest.mark.parametrize(
    ("flags", "finding"),
    [
        ("fpu avx2 avx512f amx_tile", Finding("cpu", "ok", "AVX2, AVX-512, AMX")),
        ("fpu avx2", Finding("cpu", "ok", "AVX2")),
        ("fp asimd", Finding("cpu", "ok", "NEON")),
        ("fpu sse2", Finding("cpu", "note", "no vector instructions")),
    ],
)
def test_find_cpu_reads_the_flags(tmp_path: Path, flags: str, finding: Finding) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(f"processor : 0\nflags : {flags}\n")
    assert find_cpu(path) == finding


def test_find_cpu_without_a_file_says_unknown(tmp_path: Path) -> None:
    found = find_cpu(tmp_path / "cpuinfo")
    assert (found.state, found.found.split(", ")[1]) == ("note", "features unknown")


def test_count_threads_is_what_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3}, raising=False)
    assert count_threads() == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert count_threads() == 1


@pytest.mark.parametrize(("needed", "state"), [(0, "ok"), (10**18, "note")])
def test_find_disk_looks_at_a_folder_yet_to_be_made(
    tmp_path: Path, needed: int, state: str
) -> None:
    assert find_disk(tmp_path / "a" / "b", needed).state == state


def test_find_settings_says_what_is_wrong(tmp_path: Path) -> None:
    project = Project(tmp_path)
    assert find_settings(project).state == "note"
    project.settings_path.write_text("[gateway]\nport = 1\n")
    assert find_settings(project).state == "ok"
    project.settings_path.write_text("[gateway]\nport = 'x'\n")
    found = find_settings(project)
    assert found.state == "bad"
    assert "gateway.port" in found.found


def test_find_store_counts_the_records(tmp_path: Path) -> None:
    project = Project(tmp_path)
    assert [f.state for f in find_store(project)] == ["note"]
    store_one(project)
    (found,) = find_store(project)
    assert found.state == "ok"
    assert found.found.startswith("1 records")


def test_find_store_names_lost_bodies(tmp_path: Path) -> None:
    project = Project(tmp_path)
    store_one(project)
    for segment in project.bodies_dir.glob("*.seg"):
        segment.write_bytes(b"")
    found = list(find_store(project))
    assert {f.state for f in found} == {"bad"}
    assert found[0].found.startswith("record ")


def test_find_store_names_a_file_that_is_no_database(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.store_dir.mkdir()
    project.database_path.write_bytes(b"not a database, by any means" * 40)
    (found,) = find_store(project)
    assert found.state == "bad"
    assert "is not a database" in found.found


def test_doctor_wants_python_as_new_as_the_package_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_module, "MIN_PYTHON", (9, 9))
    assert next(doctor_module.examine(Project(tmp_path))).state == "bad"


def test_find_artefacts_names_what_is_broken(tmp_path: Path) -> None:
    project = Project(tmp_path)
    for kind in ("student", "dataset"):
        with draft_folder(project.kind_dir(kind)) as draft:
            made = seal(draft, kind, identity={})
    (project.kind_dir("verdict") / "stray").mkdir(parents=True)
    student, dataset, verdict = sorted(find_artefacts(project), key=lambda one: one.state == "bad")
    assert student == Finding("student", "ok", "1 whole")
    assert dataset == Finding(
        "dataset", "bad", f"{made.id}: dataset {made.id}: its card lacks identity.workload"
    )
    assert verdict.found.endswith("stray has no card.json")
    assert doctor(project) == 1
