"""One database file, many processes, versions and accidents."""

from __future__ import annotations

import contextlib
import functools
import os
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ownweights.core import database as module
from ownweights.core.database import Database, is_row_refused, open_database
from ownweights.core.errors import StoreError
from ownweights.core.migrations import MIGRATIONS, Migration

FIRST = Migration(
    1, "one", "CREATE TABLE one (x INTEGER PRIMARY KEY, y TEXT); CREATE INDEX i ON one (y)"
)
SECOND = Migration(2, "two", "ALTER TABLE one ADD COLUMN z TEXT DEFAULT 'new';")
BROKEN = Migration(2, "two", "CREATE TABLE two (x); INSERT INTO nowhere VALUES (1);")
SHORT_S = 0.05


def open_own(path: Path) -> Database:
    return open_database(path / "own.db")


def run_python(script: str, *words: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, words)],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def finish(processes: Sequence[subprocess.Popen[str]]) -> list[str]:
    outputs = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes)
    return outputs


def test_open_database_makes_the_folder_and_the_newest_schema(tmp_path: Path) -> None:
    with open_own(tmp_path / "a" / "b") as database:
        assert database.query("PRAGMA user_version") == [(MIGRATIONS[-1].number,)]
        assert database.query("PRAGMA journal_mode") == [("wal",)]
        assert database.query("PRAGMA foreign_keys") == [(1,)]
        assert database.check_integrity() == []
    assert sorted(p.name for p in (tmp_path / "a" / "b").iterdir()) == ["own.db"]


def test_migrations_are_numbered_from_one() -> None:
    assert [migration.number for migration in MIGRATIONS] == list(range(1, len(MIGRATIONS) + 1))


@pytest.mark.parametrize(("is_power_safe", "level"), [(False, 1), (True, 2)])
def test_open_database_syncs_as_asked(tmp_path: Path, is_power_safe: bool, level: int) -> None:
    with open_database(tmp_path / "own.db", is_power_safe=is_power_safe) as database:
        assert database.query("PRAGMA synchronous") == [(level,)]


def test_open_database_migrates_and_keeps_rows(tmp_path: Path) -> None:
    path = tmp_path / "own.db"
    with open_database(path, migrations=[FIRST]) as database:
        database.execute("INSERT INTO one (y) VALUES ('old')")
    with open_database(path, migrations=[FIRST, SECOND]) as database:
        assert database.query("SELECT y, z FROM one") == [("old", "new")]
        assert database.query("PRAGMA user_version") == [(2,)]


def test_open_database_keeps_copy_before_migrating(tmp_path: Path) -> None:
    path = tmp_path / "own.db"
    with open_database(path, migrations=[FIRST]) as database:
        database.execute("INSERT INTO one (y) VALUES ('old')")
        open_database(path, migrations=[FIRST, SECOND]).close()  # rows still in the WAL are copied
    copy = sqlite3.connect(tmp_path / "own.db.before-2")
    try:
        assert copy.execute("SELECT * FROM one").fetchall() == [(1, "old")]
        assert copy.execute("PRAGMA user_version").fetchone() == (1,)
    finally:
        copy.close()
    assert not list(tmp_path.glob(".own.db.*"))


def test_open_database_undoes_a_migration_that_fails(tmp_path: Path) -> None:
    path = tmp_path / "own.db"
    open_database(path, migrations=[FIRST]).close()
    with pytest.raises(StoreError, match="no such table: nowhere"):
        open_database(path, migrations=[FIRST, BROKEN])
    with open_database(path, migrations=[FIRST]) as database:
        assert database.query("SELECT name FROM sqlite_master WHERE name = 'two'") == []


def test_open_database_refuses_newer(tmp_path: Path) -> None:
    path = tmp_path / "own.db"
    open_database(path, migrations=[FIRST, SECOND]).close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="schema version 2, this program knows up to 1") as caught:
        open_database(path, migrations=[FIRST])
    assert caught.value.hint == "it was written by a newer version: upgrade ownweights"
    assert path.read_bytes() == before


def test_transaction_commits_or_undoes(tmp_path: Path) -> None:
    with open_database(tmp_path / "own.db", migrations=[FIRST]) as database:
        with database.transaction():
            database.execute_many("INSERT INTO one (y) VALUES (?)", [("a",), ("b",)])
        with pytest.raises(ZeroDivisionError), database.transaction():  # noqa: PT012
            database.execute("DELETE FROM one")
            raise ZeroDivisionError
        assert database.query("SELECT y FROM one ORDER BY y") == [("a",), ("b",)]


def test_execute_returns_the_number_of_rows_changed(tmp_path: Path) -> None:
    with open_database(tmp_path / "own.db", migrations=[FIRST]) as database:
        assert database.execute_many("INSERT INTO one (y) VALUES (?)", [("a",)] * 3) == 3
        assert database.execute("UPDATE one SET y = 'b' WHERE x > ?", (1,)) == 2


def test_database_says_that_it_is_locked(tmp_path: Path) -> None:
    path = tmp_path / "own.db"
    with open_own(tmp_path) as holder, open_database(path, busy_timeout_s=SHORT_S) as waiter:
        with (
            holder.transaction(),
            pytest.raises(StoreError, match=r"own.db is locked \(database is locked\)") as caught,
            waiter.transaction(),
        ):
            raise AssertionError("two writers at once")
        assert "another process is writing" in str(caught.value.hint)
        with waiter.transaction():
            waiter.log_event("test", "it works again")


def test_database_says_that_the_disk_is_full(tmp_path: Path) -> None:
    with open_database(tmp_path / "own.db", migrations=[FIRST]) as database:
        database.execute("INSERT INTO one (y) VALUES ('kept')")
        database.query("PRAGMA max_page_count = 5")
        with pytest.raises(StoreError, match="cannot grow") as caught:
            database.execute("INSERT INTO one (y) VALUES (?)", ("x" * 100_000,))
        assert "free some disk space" in str(caught.value.hint)
        assert database.query("SELECT y FROM one") == [("kept",)]


@pytest.mark.parametrize("content", [b"this is not a database, whatever its name" * 40, b"x" * 16])
def test_open_database_says_that_the_file_is_no_database(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "own.db").write_bytes(content)
    with pytest.raises(StoreError, match="is not a database") as caught:
        open_own(tmp_path)
    assert "put back a copy" in str(caught.value.hint)
    assert (tmp_path / "own.db").read_bytes() == content


def test_database_says_that_the_file_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "own.db"
    with open_database(path, migrations=[FIRST]) as database:
        rows = [("x" * 500,)] * 500
        database.execute_many("INSERT INTO one (y) VALUES (?)", rows)
    data = bytearray(path.read_bytes())
    data[4096 * 4 : 4096 * 60] = b"\x99" * 4096 * 56
    path.write_bytes(data)
    with open_database(path, migrations=[FIRST]) as database:
        with pytest.raises(StoreError, match="is damaged") as caught:
            database.query("SELECT sum(length(y)) FROM one")
        assert "bodies/ is not affected" in str(caught.value.hint)
        assert database.check_integrity() != []


def test_open_database_says_why_the_folder_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot make the folder .*: (Not a dir|File exists)"):
        open_database(tmp_path / "file" / "own.db")


def test_database_refuses_a_row_that_breaks_a_rule(tmp_path: Path) -> None:
    with open_own(tmp_path) as database:
        row = ("INSERT INTO attempt VALUES ('w', 0, 0.05, '{}', 1.0, 'h', NULL)", ())
        with pytest.raises(StoreError, match="refused a row: CHECK constraint") as caught:
            database.execute(*row)
        assert is_row_refused(caught.value)
    assert not is_row_refused(StoreError("own.db is locked"))


@pytest.mark.parametrize("sql", ["DELETE FROM event", "UPDATE event SET kind = 'other'"])
def test_event_log_is_append_only(tmp_path: Path, sql: str) -> None:
    with open_own(tmp_path) as database:
        database.log_event("certificate.voided", "abc", "drift")
        with pytest.raises(StoreError, match="the event log is append-only"):
            database.execute(sql)
        rows = database.query("SELECT kind, ref, detail, at > 0 FROM event")
        assert rows == [("certificate.voided", "abc", "drift", 1)]


ADD_ROWS = """
import sys
from pathlib import Path
from ownweights.core.database import open_database
sys.stdin.readline()
with open_database(Path(sys.argv[1])) as database:
    for n in range(40):
        with database.transaction():
            before = database.query("SELECT count(*) FROM event")[0][0]
            database.log_event("row", f"{sys.argv[2]}-{n}", str(before))
"""


def test_database_processes_wait_for_each_other(tmp_path: Path) -> None:
    path = tmp_path / "own.db"  # does not exist yet: the first opening is raced too
    processes = [run_python(ADD_ROWS, path, name) for name in "abc"]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    finish(processes)
    with open_database(path) as database:
        rows = database.query("SELECT ref, detail FROM event ORDER BY id")
    assert len({ref for ref, _ in rows}) == 120
    assert [int(before) for _, before in rows] == list(range(120))


class ShyConnection(sqlite3.Connection):
    """Says once that it is locked, as SQLite does while another process switches to WAL."""

    is_shy = True

    def execute(self, sql: str, *rest: Any) -> sqlite3.Cursor:
        if "journal_mode" in sql and self.is_shy:
            self.is_shy = False
            raise sqlite3.OperationalError("database is locked")
        return super().execute(sql, *rest)


@pytest.mark.parametrize(("timeout_s", "is_patient"), [(60.0, True), (0.0, False)])
def test_open_database_waits_while_the_file_becomes_wal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, timeout_s: float, is_patient: bool
) -> None:
    connect = functools.partial(sqlite3.connect, factory=ShyConnection)
    waits: list[float] = []
    monkeypatch.setattr(module.sqlite3, "connect", connect)
    monkeypatch.setattr(module.time, "sleep", waits.append)
    with contextlib.nullcontext() if is_patient else pytest.raises(StoreError, match="is locked"):
        open_database(tmp_path / "own.db", busy_timeout_s=timeout_s).close()
    assert len(waits) == is_patient


CRASH = """
import os, sys
from pathlib import Path
from ownweights.core.database import open_database
database = open_database(Path(sys.argv[1]))
database.log_event("committed", "a")
database._connection.execute("BEGIN IMMEDIATE")
database.log_event("not committed", "b")
os.kill(os.getpid(), 9)
"""


def test_database_keeps_what_was_committed_before_a_kill(tmp_path: Path) -> None:
    process = run_python(CRASH, tmp_path / "own.db")
    process.communicate()
    assert process.returncode == -9
    with open_own(tmp_path) as database:
        assert database.query("SELECT kind FROM event") == [("committed",)]
        assert database.check_integrity() == []


def test_open_database_is_its_owners_alone(tmp_path: Path) -> None:
    with open_database(tmp_path / "own.db") as database:
        database.execute("INSERT INTO segment (name, opened_at) VALUES ('a', 0)")
        modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert set(modes) >= {"own.db", "own.db-wal"}
    assert set(modes.values()) == {0o600}
