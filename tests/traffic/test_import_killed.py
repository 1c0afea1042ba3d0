"""Imports that are killed, or run beside each other, end as if they had run alone and whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from ownweights.core.project import Project
from ownweights.traffic import TrafficStore, import_file
from ownweights.traffic.importer import ImportReport
from tests.postgres import spell
from tests.traffic.samples import line, run_python, run_together, stored, write_lines

KILLED = """
import os, sys
from pathlib import Path
from tests.postgres import spelled
from ownweights.traffic.bodies import segment as bodies
from ownweights.traffic import TrafficStore, import_file
project, file, where = spelled(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
left = int(sys.argv[4])
def die_in_turn(real):
    def call(*given, **named):
        global left
        left -= 1
        if left == 0:
            if where == "block":
                os.write(given[0], bytes(given[1])[: len(given[1]) // 2])
            if where == "rows":
                real(*given, **named)
            os.kill(os.getpid(), 9)
        return real(*given, **named)
    return call
with TrafficStore.open(project) as store:
    if where == "block":
        bodies._write_all = die_in_turn(bodies._write_all)
    if where == "rows":
        store._insert = die_in_turn(store._insert)
    progress = die_in_turn(lambda n: None) if where == "between" else None
    import_file(file, store, on_progress=progress)
"""


def import_killed(path: Path, project: Project, where: str, turn: int) -> None:
    process = run_python(KILLED, spell(project), path, where, turn)
    _, errors = process.communicate()
    assert process.returncode == -9, errors


@pytest.mark.parametrize(("where", "turn"), [("block", 2), ("rows", 1)])
def test_repair_frees_what_an_import_killed_at_once_left(
    tmp_path: Path, project: Project, where: str, turn: int
) -> None:
    path = write_lines(tmp_path / "x.jsonl", [line(n) for n in range(300)])
    import_killed(path, project, where, turn)
    (left,) = project.bodies_dir.iterdir()
    size_bytes = left.stat().st_size
    with TrafficStore.open(project) as store:
        report = store.verify(repair=True)
        assert (report.is_sound, report.records, report.freed_bytes) == (True, 0, size_bytes)
        assert list(project.bodies_dir.iterdir()) == []
        assert import_file(path, store).added == 300


@pytest.mark.parametrize(("where", "survive"), [("between", 768), ("rows", 512), ("block", 256)])
def test_import_killed_half_way_leaves_a_sound_store(
    tmp_path: Path, project: Project, where: str, survive: int
) -> None:
    path = write_lines(tmp_path / "x.jsonl.gz", [line(n) for n in range(1500)])
    import_killed(path, project, where, 3)
    with TrafficStore.open(project) as store:
        report = store.verify()
        assert (report.is_sound, report.records) == (True, survive)
        assert (report.torn_bytes > 0) == (where == "block")
        assert import_file(path, store) == ImportReport(
            read=1500, added=1500 - survive, duplicates=survive
        )
        assert [r.source_id for r in store.records()] == [f"id-{n}" for n in range(1500)]
        assert store.verify().is_sound


IMPORT = """
import sys
from pathlib import Path
from tests.postgres import spelled
from ownweights.traffic import TrafficStore, import_file
with TrafficStore.open(spelled(sys.argv[1])) as store:
    sys.stdin.readline()
    report = import_file(Path(sys.argv[2]), store)
    print(report.added, report.duplicates, len(report.skipped))
"""


def test_import_of_one_file_by_several_processes_adds_it_once(
    tmp_path: Path, project: Project
) -> None:
    path = write_lines(tmp_path / "x.jsonl", [line(n) for n in range(1500)])
    outputs = [
        [int(word) for word in out.split()]
        for out in run_together([(IMPORT, spell(project), path)] * 3)
    ]
    assert [sum(column) for column in zip(*outputs, strict=True)] == [1500, 3000, 0]
    assert len({record.source_id for record in stored(project)}) == 1500
