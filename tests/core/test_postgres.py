"""A real Postgres server: its errors in words, its accidents, and what is not told."""

from __future__ import annotations

import builtins
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ownweights.core.database import has_database, is_row_refused, open_database
from ownweights.core.errors import SettingsError, StoreError
from ownweights.core.ledger import book_attempt, list_attempts
from ownweights.core.migrations import Migration
from ownweights.core.project import Server
from tests.core.test_database import FIRST, SECOND
from tests.postgres import PostgresServer

ROLE = "visitor"


@pytest.fixture
def server(postgres: PostgresServer) -> Iterator[Server]:
    database = postgres.new_database()
    yield database
    postgres.drop_database(database)


@pytest.fixture
def visitor(postgres: PostgresServer) -> Iterator[str]:
    """A user without any rights of its own."""
    postgres.run_sql(f"CREATE ROLE {ROLE} LOGIN")
    yield ROLE
    postgres.run_sql(f"DROP OWNED BY {ROLE}; DROP ROLE {ROLE}")


def name_of(server: Server) -> str:
    return server.url.split("/")[3].split("?")[0]


def test_open_database_keeps_copy_before_migrating(server: Server) -> None:
    with open_database(server, migrations=[FIRST]) as database:
        database.execute("INSERT INTO one (y) VALUES ('old')")
    for _ in range(2):
        with open_database(server, migrations=[FIRST, SECOND]) as database:
            assert database.query("SELECT * FROM before_2_one") == [(1, "old")]
            assert database.query("SELECT number, name FROM own_version ORDER BY 1") == [
                (1, "one"), (2, "two")
            ]  # fmt: skip


def test_open_database_says_that_nobody_listens(tmp_path: Path) -> None:
    gone = Server(f"postgresql://own@/own?host={tmp_path}")
    with pytest.raises(StoreError, match=r"database own on .* cannot be reached") as caught:
        open_database(gone)
    assert caught.value.hint == "start the server, or check host and port in [store] database"
    with pytest.raises(StoreError, match="cannot be reached"):
        has_database(gone)


def test_open_database_says_that_the_database_is_missing(postgres: PostgresServer) -> None:
    with pytest.raises(StoreError, match=r'does not exist .*database "none"') as caught:
        open_database(postgres.server("none"))
    assert "createdb" in str(caught.value.hint)


def test_open_database_says_that_the_user_is_unknown(postgres: PostgresServer) -> None:
    with pytest.raises(StoreError, match="refuses the user") as caught:
        open_database(postgres.server("postgres", user="stranger"))
    assert "[store] database" in str(caught.value.hint)


def test_open_database_says_that_the_user_may_not(
    postgres: PostgresServer, server: Server, visitor: str
) -> None:
    with pytest.raises(StoreError, match="denies it to this user"):
        open_database(postgres.server(name_of(server), user=visitor))


def test_open_database_says_that_connections_ran_out(
    postgres: PostgresServer, server: Server, visitor: str
) -> None:
    postgres.run_sql(f"ALTER ROLE {visitor} CONNECTION LIMIT 0")
    with pytest.raises(StoreError, match="takes no more connections") as caught:
        open_database(postgres.server(name_of(server), user=visitor))
    assert "max_connections" in str(caught.value.hint)


def test_open_database_refuses_another_encoding(postgres: PostgresServer) -> None:
    postgres.run_sql("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    with pytest.raises(StoreError, match="keeps text as LATIN1") as caught:
        open_database(postgres.server("latin"))
    assert "--encoding UTF8" in str(caught.value.hint)
    postgres.run_sql("DROP DATABASE latin")


def test_open_database_refuses_a_database_of_others(
    postgres: PostgresServer, server: Server
) -> None:
    postgres.run_sql("CREATE TABLE event (x TEXT)", name_of(server))
    with pytest.raises(StoreError, match="holds a table of that name") as caught:
        open_database(server)
    assert "of its own" in str(caught.value.hint)
    assert not has_database(server)  # and nothing of ours is left there


def test_open_database_keeps_to_the_schema_named(postgres: PostgresServer, server: Server) -> None:
    for schema in ("one", "two"):
        postgres.run_sql(f"CREATE SCHEMA {schema}", name_of(server))
        with open_database(Server(f"{server.url}&options=-csearch_path%3D{schema}")) as database:
            database.log_event(schema, "x")
            with database.transaction():
                pass
    assert postgres.run_sql("SELECT kind FROM two.event", name_of(server)) == [("two",)]
    one = Server(f"{server.url}&options=-csearch_path%3Done")
    two = Server(f"{server.url}&options=-csearch_path%3Dtwo")
    with (
        open_database(one) as first,
        open_database(two, busy_timeout_s=0.05) as second,
        first.transaction(),  # each has a lock of its own
        second.transaction(),
    ):
        second.log_event("two", "y")


def test_postgres_reads_the_password_from_the_variable(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = Server(server.url, password_env="DB_PASSWORD")
    with pytest.raises(SettingsError, match="DB_PASSWORD is not set"):
        open_database(named)
    monkeypatch.setenv("DB_PASSWORD", "hunter2")
    open_database(named).close()


def test_postgres_checks_the_password(
    postgres: PostgresServer, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = postgres.folder / "data" / "pg_hba.conf"
    before = rules.read_text()
    postgres.run_sql(f"ALTER ROLE own PASSWORD 'hunter2'; CREATE ROLE {ROLE} LOGIN PASSWORD 'pw1'")
    postgres.run_sql(f"ALTER DATABASE {name_of(server)} OWNER TO {ROLE}")
    rules.write_text(f"local all {ROLE} scram-sha-256\n{before}")
    postgres.run_sql("SELECT pg_reload_conf()")
    strict = Server(postgres.server(name_of(server), ROLE).url, password_env="DB_PASSWORD")
    try:
        monkeypatch.setenv("DB_PASSWORD", "pw2")
        with pytest.raises(StoreError, match="refuses the password") as caught:
            open_database(strict)
        assert "password_env" in str(caught.value.hint) and "pw2" not in str(caught.value)
        monkeypatch.setenv("DB_PASSWORD", "pw1")
        open_database(strict).close()
        monkeypatch.delenv("DB_PASSWORD")
        monkeypatch.setenv("PGPASSWORD", "pw1")
        open_database(Server(strict.url)).close()
        monkeypatch.delenv("PGPASSWORD")
        with pytest.raises(StoreError, match="refuses the password"):
            open_database(Server(strict.url))
    finally:
        rules.write_text(before)
        postgres.run_sql("SELECT pg_reload_conf()")
        postgres.run_sql(f"DROP DATABASE {name_of(server)} (FORCE)")
        postgres.run_sql(f"DROP ROLE {ROLE}")


def test_postgres_says_that_psycopg_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def no_psycopg(name: str, *rest: Any, **named: Any) -> Any:
        if name.startswith("psycopg"):
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", no_psycopg)
    with pytest.raises(StoreError, match="psycopg is not installed") as caught:
        open_database(Server("postgresql://own@/own"))
    assert caught.value.hint == "pip install 'ownweights[postgres]'"


def test_postgres_tells_no_values(server: Server) -> None:
    with open_database(server) as database:
        row = ("private words", 1, 0.5, "{}", 1.0, "h", None)
        sql = "INSERT INTO attempt VALUES (?, ?, ?, ?, ?, ?, ?)"
        database.execute(sql, row)
        with pytest.raises(StoreError, match="attempt_pkey") as caught:
            database.execute(sql, row)
        assert is_row_refused(caught.value) and "private" not in str(caught.value)
        assert caught.value.__cause__ is None and caught.value.__suppress_context__


def test_postgres_quotes_no_value_that_it_cannot_read(server: Server) -> None:
    with open_database(server) as database:
        with pytest.raises(StoreError, match="refused a row: InvalidText") as caught:
            database.query("SELECT * FROM event WHERE id = ?", ("private",))
        assert "private" not in str(caught.value)


def test_postgres_refuses_text_too_long_for_an_index(server: Server) -> None:
    import random

    noise = "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=50_000))
    with open_database(server) as database:
        with pytest.raises(StoreError, match="refused a row: index row") as caught:
            database.log_event("kind", noise)
        assert is_row_refused(caught.value)


def test_postgres_says_that_it_is_read_only(server: Server) -> None:
    open_database(server).close()
    standby = Server(f"{server.url}&options=-cdefault_transaction_read_only%3Don")
    with open_database(standby) as database, pytest.raises(StoreError, match="is read-only") as c:
        database.log_event("kind", "ref")
    assert "primary" in str(c.value.hint)


def test_postgres_connects_anew_after_a_restart(postgres: PostgresServer, server: Server) -> None:
    with open_database(server) as database:
        steps = (lambda: database.query("SELECT 1"), lambda: database.log_event("x", ""))
        for number, how in enumerate(("stop", "kill"), start=1):
            database.log_event("before", str(number))
            with postgres.down(how):
                for step in steps:
                    with pytest.raises(StoreError, match="cannot be reached") as caught:
                        step()
                    assert not is_row_refused(caught.value) and caught.value.is_undone
            assert len(database.query("SELECT * FROM event")) == 2 * number - 1
            database.log_event("after", str(number))
        assert database.check_integrity() == []


def test_postgres_connects_anew_before_a_transaction(
    postgres: PostgresServer, server: Server
) -> None:
    with open_database(server) as database:
        with postgres.down("stop"):
            pass
        attempt = book_attempt(database, "w", delta_of=lambda k: 0.1, claim={}, data_hash="d")
        assert list_attempts(database, "w") == [attempt]


def test_postgres_undoes_a_transaction_that_lost_its_connection(
    postgres: PostgresServer, server: Server
) -> None:
    with open_database(server) as database:
        with pytest.raises(StoreError, match="reached"), database.transaction():  # noqa: PT012
            database.log_event("lost", "")
            with postgres.down("stop"):
                pass
            database.log_event("lost, too", "")
        assert database.query("SELECT * FROM event") == []


def test_postgres_says_when_nobody_knows(postgres: PostgresServer, server: Server) -> None:
    with open_database(server) as database:
        transaction = database.transaction()
        transaction.__enter__()
        database.log_event("perhaps", "")
        with postgres.down("kill"):
            with pytest.raises(StoreError, match="cannot be reached") as caught:
                transaction.__exit__(None, None, None)
            assert not caught.value.is_undone
        assert database.query("SELECT * FROM event") == []  # this time it was not


def test_postgres_refuses_to_commit_what_failed_in_part(server: Server) -> None:
    with open_database(server) as database:
        with pytest.raises(StoreError, match="one part failed"), database.transaction():  # noqa: PT012
            database.log_event("first", "")
            with contextlib.suppress(StoreError):
                database.query("SELECT nothing")
        assert database.query("SELECT * FROM event") == []


def test_event_log_cannot_be_emptied(server: Server) -> None:
    with open_database(server) as database:
        database.log_event("kind", "ref")
        with pytest.raises(StoreError, match="append-only"):
            database.execute("TRUNCATE event")


def test_check_integrity_finds_a_void_index(postgres: PostgresServer, server: Server) -> None:
    with open_database(server, migrations=[FIRST]) as database:
        postgres.run_sql(
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'i'::regclass",
            name_of(server),
        )
        assert database.check_integrity() == ["the index i is not valid: REINDEX it"]


def test_migrations_of_postgres_run_in_one_transaction(server: Server) -> None:
    slow = Migration(1, "one", "CREATE TABLE one (x INTEGER PRIMARY KEY); SELECT nothing")
    with pytest.raises(StoreError, match="nothing"):
        open_database(server, migrations=[slow])
    assert not has_database(server)
