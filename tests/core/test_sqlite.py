"""One database file: how SQLite keeps it, and what befalls it."""

from __future__ import annotations

import contextlib
import functools
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from ownweights.core import sqlite as module
from ownweights.core.database import Database, open_database
from ownweights.core.errors import StoreError
from ownweights.core.migrations import MIGRATIONS
from tests.core.test_database import FIRST, SECOND
from tests.traffic.samples import run_together


def open_own(path: Path) -> Database:
    return open_database(path / "own.db")


def test_open_database_makes_the_folder_and_the_newest_schema(tmp_path: Path) -> None:
    with open_own(tmp_path / "a" / "b") as database:
        assert database.query("PRAGMA user_version") == [(MIGRATIONS[-1].number,)]
        assert database.query("PRAGMA journal_mode") == [("wal",)]
        assert database.query("PRAGMA foreign_keys") == [(1,)]
        assert database.check_integrity() == []
    assert sorted(p.name for p in (tmp_path / "a" / "b").iterdir()) == ["own.db"]


@pytest.mark.parametrize(("is_power_safe", "level"), [(False, 1), (True, 2)])
def test_open_database_syncs_as_asked(tmp_path: Path, is_power_safe: bool, level: int) -> None:
    with open_database(tmp_path / "own.db", is_power_safe=is_power_safe) as database:
        assert database.query("PRAGMA synchronous") == [(level,)]


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


def test_open_database_leaves_a_newer_file_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "own.db"
    open_database(path, migrations=[FIRST, SECOND]).close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="schema version 2, this program knows up to 1"):
        open_database(path, migrations=[FIRST])
    assert path.read_bytes() == before


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


def test_open_database_is_its_owners_alone(tmp_path: Path) -> None:
    with open_database(tmp_path / "own.db") as database:
        database.execute("INSERT INTO segment (name, opened_at) VALUES ('a', 0)")
        modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert set(modes) >= {"own.db", "own.db-wal"}
    assert set(modes.values()) == {0o600}


_LOOK = """
import sys
from pathlib import Path
from ownweights.core.database import open_database
with open_database(Path(sys.argv[1])) as database:
    print([name for name, in database.query("SELECT name FROM segment ORDER BY name")])
"""


def test_open_database_again_keeps_the_log_of_the_first(tmp_path: Path) -> None:
    path = tmp_path / "own.db"

    def look() -> str:
        (told,) = run_together([(_LOOK, path)])
        return told.strip()

    with open_database(path) as first:
        first.execute("INSERT INTO segment (name, opened_at) VALUES ('a', 0)")
        with open_database(path) as second:
            second.execute("INSERT INTO segment (name, opened_at) VALUES ('b', 0)")
        assert look() == "['a', 'b']"  # the other process leaves, and is not the last
        assert path.with_name("own.db-wal").exists()
        first.execute("INSERT INTO segment (name, opened_at) VALUES ('c', 0)")
        assert look() == "['a', 'b', 'c']"
    assert look() == "['a', 'b', 'c']"


def test_open_database_through_a_link_is_its_owners_alone(tmp_path: Path) -> None:
    (tmp_path / "own.db").symlink_to(tmp_path / "elsewhere.db")
    with open_own(tmp_path):
        assert (tmp_path / "elsewhere.db").stat().st_mode & 0o777 == 0o600


def test_copies_are_those_before_migrations(tmp_path: Path) -> None:
    left = ".own.db.12-ab.34"  # by a migration that was killed while it copied
    for name in ("own.db.before-3", "own.db.before-7", "other.db.before-1", left):
        (tmp_path / name).touch()
    with open_database(tmp_path / "own.db") as database:
        assert database.copies() == [left, "own.db.before-3", "own.db.before-7"]
        database.drop_copies()
        assert database.copies() == []
    assert (tmp_path / "other.db.before-1").exists()
