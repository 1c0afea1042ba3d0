"""What holds for a database of either kind: migrations, transactions, processes and accidents."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownweights.core.database import (
    Address,
    has_database,
    is_row_refused,
    open_database,
    plain_text,
)
from ownweights.core.errors import StoreError
from ownweights.core.migrations import MIGRATIONS, Migration, statements_of
from ownweights.core.project import Project, Server
from tests.postgres import spell
from tests.traffic.samples import run_python, run_together

FIRST = Migration(
    1, "one", "CREATE TABLE one (x INTEGER PRIMARY KEY, y TEXT); CREATE INDEX i ON one (y)"
)
SECOND = Migration(2, "two", "ALTER TABLE one ADD COLUMN z TEXT DEFAULT 'new';")
BROKEN = Migration(2, "two", "CREATE TABLE two (x INTEGER); INSERT INTO nowhere VALUES (1);")
SHORT_S = 0.05
MANY = 2_000


@pytest.fixture
def project(address: Address, tmp_path: Path) -> Project:
    server = address if isinstance(address, Server) else None
    return Project(tmp_path / "project", server=server)


def test_migrations_are_numbered_from_one() -> None:
    assert [migration.number for migration in MIGRATIONS] == list(range(1, len(MIGRATIONS) + 1))


def test_statements_of_keeps_a_trigger_whole() -> None:
    (first, trigger, last) = statements_of(
        "CREATE TABLE a (x TEXT DEFAULT ';');"
        "CREATE TRIGGER t BEFORE DELETE ON a BEGIN SELECT 1; SELECT 2; END; DROP TABLE a"
    )
    assert first.startswith("CREATE TABLE") and last == "DROP TABLE a;"
    assert trigger.endswith("SELECT 2; END;")


def test_open_database_makes_the_newest_schema(address: Address) -> None:
    assert not has_database(address)
    with open_database(address) as database:
        assert database.query("SELECT count(*) FROM record") == [(0,)]
        assert database.check_integrity() == []
    assert has_database(address)
    with open_database(address) as database:  # and once more: nothing is left to do
        assert database.query("SELECT count(*) FROM audit WHERE unsure > 0") == [(0,)]


def test_open_database_migrates_and_keeps_rows(address: Address) -> None:
    with open_database(address, migrations=[FIRST]) as database:
        database.execute("INSERT INTO one (y) VALUES ('old')")
    with open_database(address, migrations=[FIRST, SECOND]) as database:
        assert database.query("SELECT y, z FROM one") == [("old", "new")]


def test_open_database_undoes_a_migration_that_fails(address: Address) -> None:
    open_database(address, migrations=[FIRST]).close()
    with pytest.raises(StoreError, match="nowhere"):
        open_database(address, migrations=[FIRST, BROKEN])
    with open_database(address, migrations=[FIRST]) as database:
        with pytest.raises(StoreError, match="two"):
            database.query("SELECT * FROM two")
        assert database.query("SELECT * FROM one") == []


def test_open_database_refuses_newer(address: Address) -> None:
    open_database(address, migrations=[FIRST, SECOND]).close()
    with pytest.raises(StoreError, match="schema version 2, this program knows up to 1") as caught:
        open_database(address, migrations=[FIRST])
    assert caught.value.hint == "it was written by a newer version: upgrade ownweights"
    with open_database(address, migrations=[FIRST, SECOND]) as database:
        assert database.query("SELECT z FROM one") == []


def test_transaction_commits_or_undoes(address: Address) -> None:
    with open_database(address, migrations=[FIRST]) as database:
        with database.transaction():
            database.execute_many("INSERT INTO one (y) VALUES (?)", [("a",), ("b",)])
        with pytest.raises(ZeroDivisionError), database.transaction():  # noqa: PT012
            database.execute("DELETE FROM one")
            raise ZeroDivisionError
        assert database.query("SELECT y FROM one ORDER BY y") == [("a",), ("b",)]


def test_execute_returns_the_number_of_rows_changed(address: Address) -> None:
    with open_database(address, migrations=[FIRST]) as database:
        assert database.execute_many("INSERT INTO one (y) VALUES (?)", [("a",)] * 3) == 3
        assert database.execute_many("INSERT INTO one (y) VALUES (?)", []) == 0
        assert database.execute("UPDATE one SET y = 'b' WHERE x > ?", (1,)) == 2
        assert database.query("SELECT sum(x), '100%' FROM one WHERE y = ?", ("b",)) == [(5, "100%")]


def test_database_cuts_off_what_is_behind_the_point(address: Address) -> None:
    with open_database(address) as database:
        sql = "SELECT CAST(? / 2.0 AS INTEGER), CAST(0.5 AS BIGINT)"
        assert database.query(sql, (7,)) == [(3, 0)]
        assert database.query(sql, (-7,)) == [(-3, 0)]
        assert database.query("SELECT 1 WHERE 1 IN ()") == []


def test_database_works_on_after_a_statement_that_failed(address: Address) -> None:
    with open_database(address, migrations=[FIRST]) as database:
        for sql in ("SELECT nothing FROM nowhere", "INSERT INTO one (nothing) VALUES (1)"):
            with pytest.raises(StoreError, match="no"):
                database.execute(sql)
            with pytest.raises(StoreError, match="no"), database.transaction():
                database.execute(sql)
        assert database.execute("INSERT INTO one (y) VALUES ('fine')") == 1


def test_database_orders_text_by_its_bytes(address: Address) -> None:
    words = ["b", "B", "a", "A", "é", "z", "_", "-", "0", "ab", "a b", ""]
    with open_database(address, migrations=[FIRST]) as database:
        database.execute_many("INSERT INTO one (y) VALUES (?)", [(word,) for word in words])
        rows = database.query("SELECT y FROM one ORDER BY y")
        found = database.query("SELECT y FROM one WHERE y BETWEEN 'A' AND 'Zz' ORDER BY y")
    assert [row[0] for row in rows] == sorted(words, key=lambda word: word.encode())
    assert [row[0] for row in found] == ["A", "B"]


@given(text=st.text(st.characters(codec=None), max_size=20))
def test_plain_text_always_is_text_that_a_database_takes(text: str) -> None:
    plain = plain_text(text)
    assert "\0" not in plain and plain.encode().decode() == plain
    assert plain_text(plain) == plain
    assert plain == text or "\0" in text or any("\ud800" <= c <= "\udfff" for c in text)


def test_database_finds_half_a_character_as_it_is_kept(address: Address) -> None:
    with open_database(address, migrations=[FIRST]) as database:
        database.execute("INSERT INTO one (y) VALUES (?)", ("a\udcff",))
        assert database.query("SELECT y FROM one WHERE y = ?", ("a\udcff",)) == [("a\\udcff",)]
        assert database.execute("DELETE FROM one WHERE y = ? AND x > ?", ("a\udcff", 0)) == 1


def test_database_says_that_it_is_locked(address: Address) -> None:
    with open_database(address) as holder, open_database(address, busy_timeout_s=SHORT_S) as waiter:
        with (
            holder.transaction(),
            pytest.raises(StoreError, match=r"is locked") as caught,
            waiter.transaction(),
        ):
            raise AssertionError("two writers at once")
        assert "another process is writing" in str(caught.value.hint)
        assert not is_row_refused(caught.value) and caught.value.is_undone
        with waiter.transaction():
            waiter.log_event("test", "it works again")
        with (
            waiter.transaction(),
            contextlib.nullcontext(holder.query("SELECT ref FROM event")) as r,
        ):
            assert r == [("it works again",)]  # reading never waits


def test_database_refuses_a_row_that_breaks_a_rule(address: Address) -> None:
    with open_database(address) as database:
        with pytest.raises(
            StoreError, match=r"refused a row: .*(k >= 1|attempt_k_check)"
        ) as caught:
            database.execute("INSERT INTO attempt VALUES ('w', 0, 0.05, '{}', 1.0, 'h', NULL)")
        assert is_row_refused(caught.value)
    assert not is_row_refused(StoreError("own.db is locked"))
    assert not is_row_refused(ValueError())


@pytest.mark.parametrize("sql", ["DELETE FROM event", "UPDATE event SET kind = 'other'"])
def test_event_log_is_append_only(address: Address, sql: str) -> None:
    with open_database(address) as database:
        database.log_event("certificate.voided", "abc", "drift")
        with pytest.raises(StoreError, match="the event log is append-only") as caught:
            database.execute(sql)
        assert is_row_refused(caught.value)
        rows = database.query("SELECT kind, ref, detail FROM event WHERE at > 0")
        assert rows == [("certificate.voided", "abc", "drift")]


ADD_ROWS = """
import sys
from ownweights.core.database import open_database
from tests.postgres import spelled
sys.stdin.readline()
with open_database(spelled(sys.argv[1]).database) as database:
    for n in range(40):
        with database.transaction():
            before = database.query("SELECT count(*) FROM event")[0][0]
            database.log_event("row", f"{sys.argv[2]}-{n}", str(before))
"""


def test_database_processes_wait_for_each_other(project: Project) -> None:
    # it has no tables yet: the first opening is raced too
    run_together([(ADD_ROWS, spell(project), name) for name in "abc"])
    with open_database(project.database) as database:
        rows = database.query("SELECT ref, detail FROM event ORDER BY id")
    assert len({ref for ref, _ in rows}) == 120
    assert [int(before) for _, before in rows] == list(range(120))


def test_database_shows_rows_in_the_order_of_their_numbers(address: Address) -> None:
    """Whoever reads on from the last number seen, while others write, sees every row once."""
    open_database(address, migrations=[FIRST]).close()
    is_done, start = threading.Event(), threading.Barrier(4)

    def write(name: int) -> None:
        with open_database(address, migrations=[FIRST]) as database:
            start.wait()
            for n in range(0, MANY // 3, 10):
                if n % 20:  # in a transaction, or each statement alone
                    with database.transaction():
                        for k in range(10):
                            database.execute("INSERT INTO one (y) VALUES (?)", (f"{name} {n + k}",))
                else:
                    database.execute("INSERT INTO one (y) VALUES (?)", (f"{name} {n}",))

    writers = [threading.Thread(target=write, args=(name,)) for name in range(3)]
    for writer in writers:
        writer.start()
    seen: list[str] = []
    last = 0
    with open_database(address, migrations=[FIRST]) as database:
        start.wait()
        while True:
            is_done.set() if not any(w.is_alive() for w in writers) else None
            rows = database.query("SELECT x, y FROM one WHERE x > ? ORDER BY x LIMIT 50", (last,))
            seen += [y for _, y in rows]
            last = rows[-1][0] if rows else last
            if is_done.is_set() and not rows:
                break
        (total,) = database.query("SELECT count(*) FROM one")[0]
    assert len(seen) == len(set(seen)) == total > 0


CRASH = """
import os, sys
from ownweights.core.database import open_database
from tests.postgres import spelled
database = open_database(spelled(sys.argv[1]).database)
database.log_event("committed", "a")
with database.transaction():
    database.log_event("not committed", "b")
    os.kill(os.getpid(), 9)
"""


def test_database_keeps_what_was_committed_before_a_kill(project: Project) -> None:
    process = run_python(CRASH, spell(project))
    process.communicate()
    assert process.returncode == -9
    with open_database(project.database) as database:
        with database.transaction():  # the lock died with its holder
            database.log_event("after", "c")
        assert database.query("SELECT kind FROM event") == [("committed",), ("after",)]
        assert database.check_integrity() == []
