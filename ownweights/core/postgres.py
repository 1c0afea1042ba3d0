"""A Postgres database that several gateways and commands use at once, through psycopg.

In: a `Server`. Out: a `Database` of core/database.py. Every write runs in a transaction that first
takes one advisory lock, so writers take turns as they do in SQLite, and rows become visible in the
order of their numbers: whoever reads on from a `seq` misses none
(test_database_shows_rows_in_the_order_of_their_numbers). A connection that broke is made anew where
nothing can have been lost by it: before a SELECT, before a transaction begins
(test_postgres_connects_anew_after_a_restart). Where it breaks during COMMIT, nobody knows whether
the rows are there, and the error says so (test_postgres_says_when_nobody_knows). No message holds a
value of a row (test_postgres_tells_no_values), and no address a password.
Source: postgresql.org/docs/current/explicit-locking.html, errcodes-appendix.html.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from ownweights.core.database import BUSY_TIMEOUT_S, Database, plain_text
from ownweights.core.dialect import copies_of, has_table, migrate, postgres_query, tables_of
from ownweights.core.errors import SettingsError, StoreError
from ownweights.core.migrations import MIGRATIONS, Migration
from ownweights.core.project import Server

if TYPE_CHECKING:
    import psycopg

T = TypeVar("T")

CONNECT_TIMEOUT_S = 10
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('ownweights ' || current_schema(), 0))"
_KEPT_ALIVE = {  # a server that vanished is noticed within seconds, not hours
    "keepalives_idle": 5, "keepalives_interval": 5, "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}  # fmt: skip
_HELD_BEFORE = (
    "SELECT 1 FROM (SELECT backend_xmin AS held FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    " UNION ALL SELECT transaction FROM pg_prepared_xacts WHERE database = current_database()"
    " UNION ALL SELECT xmin FROM pg_replication_slots"
    " UNION ALL SELECT backend_xmin FROM pg_stat_replication) AS holders"
    " WHERE age(held) > age(CAST(? AS xid)) LIMIT 1"
)
_ROW_CLASSES = ("22", "23", "54")  # data, constraint, too large for an index
# SQLSTATE → what happened, and what to do
_STATES = {
    "28P01": ("refuses the password", "set PGPASSWORD, or the variable that password_env names"),
    "28000": ("refuses the user", "check the user in [store] database, and pg_hba.conf"),
    "3D000": ("does not exist", "make it: createdb --encoding UTF8 NAME"),
    "3F000": ("lacks its schema", "make the schema that search_path names"),
    "53300": ("takes no more connections", "raise max_connections, or put a pooler before it"),
    "53100": ("cannot grow: its disk is full", "free some disk; nothing stored so far is lost"),
    "53200": ("is out of memory", "give the server more memory; nothing stored so far is lost"),
    "25006": ("is read-only", "name the primary server in [store] database, not a standby"),
    "42501": ("denies it to this user", "the user must own the tables and the schema"),
    "42P07": ("holds a table of that name", "give the project a database or a schema of its own"),
    "55P03": ("is locked", "another process is writing; wait for it or stop it, then try again"),
    "57014": ("stopped the statement", "raise statement_timeout, or try again"),
    "40001": ("had to undo it for another's sake", "try again"),
    "40P01": ("had to undo it for another's sake", "try again"),
    "XX001": ("is damaged", "restore it from a backup; bodies are not affected"),
    "XX002": ("is damaged", "REINDEX it, or restore it from a backup; bodies are not affected"),
}  # fmt: skip
_DOWN = "start the server, or check host and port in [store] database"
# at connecting there is no SQLSTATE, but words
_WORDS = (
    ("password", "28P01"), ("pg_hba.conf", "28000"), (r'role ".*" does not exist', "28000"),
    (r'database ".*" does not exist', "3D000"), ("too many (clients|connections)", "53300"),
    ("remaining connection slots", "53300"),
)  # fmt: skip


class PostgresDatabase(Database):
    """An open Postgres database."""

    def __init__(
        self, server: Server, *, busy_timeout_s: float = BUSY_TIMEOUT_S, is_power_safe: bool = False
    ) -> None:
        self.server = server
        self._begin_sql = f"BEGIN; SET LOCAL lock_timeout = {max(1, round(busy_timeout_s * 1000))};"
        if is_power_safe:
            self._begin_sql += " SET LOCAL synchronous_commit = on;"
        self._begin_sql += _LOCK
        self._busy_timeout_s = busy_timeout_s
        self._is_in_transaction = False
        self._connection = _connect(server)

    def query(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return self._connected(lambda: self._run(sql, params).fetchall())

    def execute(self, sql: str, params: Sequence[Any] = ()) -> int:
        with self._alone():
            return self._run(sql, params).rowcount

    def execute_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> int:
        with self._alone(), explained(self.server), self._connection.cursor() as cursor:
            cursor.executemany(postgres_query(sql), [_values(row) for row in rows])
            return max(0, cursor.rowcount)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        assert not self._is_in_transaction, "a transaction does not begin within another"
        self._connected(self._begin)
        self._is_in_transaction = True
        try:
            yield
            self._commit()
        except BaseException:
            self._undo()
            raise
        finally:
            self._is_in_transaction = False

    def check_integrity(self) -> list[str]:
        """Pages whose checksum was wrong when the server read them, and indexes that are void."""
        failures = self.query(
            "SELECT checksum_failures FROM pg_stat_database WHERE datname = current_database()"
            " AND checksum_failures > 0"
        )
        broken = self.query(
            "SELECT relname FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid"
            " WHERE NOT indisvalid AND relnamespace = current_schema()::regnamespace"
        )
        faults = [f"{count} pages failed their checksum" for (count,) in failures]
        return faults + [f"the index {name} is not valid: REINDEX it" for (name,) in broken]

    def overwrite_deleted(self) -> None:
        """Nothing: Postgres writes anew instead (`forget_deleted`)."""

    def forget_deleted(self, *, rewrite: bool) -> bool:
        """Write the tables anew; without `rewrite`, leave them to the server's own vacuum. Its log
        (WAL), its standbys and backups are whoever runs it's to clear."""
        if not rewrite:
            return True
        if not self._is_settled():
            return False
        for name in tables_of(self):
            self._run(f'VACUUM (FULL) "{name}"', ())
        return True

    def copies(self) -> list[str]:
        return copies_of(self)

    def drop_copies(self) -> None:
        for name in self.copies():
            self.execute(f'DROP TABLE "{name}"')

    def close(self) -> None:
        self._connection.close()

    def _is_settled(self) -> bool:
        """Wait until nobody needs a state from before now; a vacuum would keep it for them:
        sessions, transactions that are prepared, and standbys that tell what they read."""
        ((now,),) = self.query(
            "SELECT CAST(txid_snapshot_xmax(txid_current_snapshot()) % 4294967296 AS TEXT)"
        )
        until_s = time.monotonic() + self._busy_timeout_s
        while self.query(_HELD_BEFORE, (now,)):
            if time.monotonic() >= until_s:
                return False
            time.sleep(0.05)
        return True

    def _run(self, sql: str, params: Sequence[Any]) -> psycopg.Cursor[tuple[Any, ...]]:
        with explained(self.server):
            return self._connection.execute(postgres_query(sql), _values(params))

    def _begin(self) -> None:
        with explained(self.server):
            try:
                self._connection.execute(self._begin_sql.encode())
            except BaseException:
                self._undo()
                raise

    def _commit(self) -> None:
        with explained(self.server, is_committing=True):
            done = self._connection.execute("COMMIT").statusmessage
        if done != "COMMIT":  # a statement failed, and whoever called passed over it
            raise StoreError(
                f"{place_of(self.server)} undid a transaction in which one part failed"
            )

    def _undo(self) -> None:
        import psycopg

        with contextlib.suppress(psycopg.Error):
            self._connection.execute("ROLLBACK")

    def _alone(self) -> contextlib.AbstractContextManager[None]:
        """A transaction for one statement, where none is open."""
        return contextlib.nullcontext() if self._is_in_transaction else self.transaction()

    def _connected(self, step: Callable[[], T]) -> T:
        """Do one step; once more on a new connection where the old one turns out to be broken."""
        try:
            return step()
        except StoreError:
            if self._is_in_transaction or not self._connection.closed:
                raise
        self._connection = _connect(self.server)
        return step()


def open_postgres(
    server: Server,
    *,
    migrations: Sequence[Migration] = MIGRATIONS,
    busy_timeout_s: float = BUSY_TIMEOUT_S,
    is_power_safe: bool = False,
) -> Database:
    """`open_database` of the database on `server`; the database itself must be there."""
    database = PostgresDatabase(server, busy_timeout_s=busy_timeout_s, is_power_safe=is_power_safe)
    try:
        migrate(database, place_of(server), migrations)
    except BaseException:
        database.close()
        raise
    return database


def has_tables(server: Server) -> bool:
    """Whether there are tables of ours."""
    with contextlib.closing(PostgresDatabase(server)) as database:
        return has_table(database, "own_version")


def place_of(server: Server) -> str:
    """The database in words, for messages."""
    from psycopg.conninfo import conninfo_to_dict

    parts = conninfo_to_dict(server.url)
    name, host = parts.get("dbname", "of the user's name"), parts.get("host", "this machine")
    return f"the Postgres database {name} on {host}"


@contextlib.contextmanager
def explained(server: Server, *, is_committing: bool = False) -> Iterator[None]:
    """Turn psycopg's errors into StoreError with a hint."""
    import psycopg

    try:
        yield
    except psycopg.Error as error:
        _tell(server, error, is_undone=not (is_committing and _is_about_the_connection(error)))


def _tell(server: Server, error: psycopg.Error, *, is_undone: bool) -> NoReturn:
    place, said = place_of(server), (error.diag.message_primary or str(error)).strip()
    state = error.sqlstate or next((s for word, s in _WORDS if re.search(word, said)), "")
    if error.sqlstate and state[:2] in _ROW_CLASSES:
        said = type(error).__name__ if state[:2] == "22" else said  # the words may quote a value
        raise StoreError(f"{place} refused a row: {said}", is_row=True) from None
    if state in _STATES:
        what, hint = _STATES[state]
        raise StoreError(f"{place} {what} ({said})", hint=hint, is_undone=is_undone) from None
    if _is_about_the_connection(error):
        first = said.partition("\n")[0]
        what = f"{place} cannot be reached ({first})"
        raise StoreError(what, hint=_DOWN, is_undone=is_undone) from None
    raise StoreError(f"{place}: {said}", is_row=error.sqlstate is None) from None


def _is_about_the_connection(error: psycopg.Error) -> bool:
    import psycopg

    state = error.sqlstate or "08000"
    return isinstance(error, psycopg.OperationalError) and state[:2] in ("08", "57")


def _connect(server: Server) -> psycopg.Connection[tuple[Any, ...]]:
    try:
        import psycopg
        from psycopg.conninfo import conninfo_to_dict
    except ImportError:
        raise StoreError(
            "a Postgres database is set, but psycopg is not installed",
            hint="pip install 'ownweights[postgres]'",
        ) from None
    try:
        named = conninfo_to_dict(server.url)
    except psycopg.Error as error:
        raise SettingsError(f"[store] database is no address of Postgres: {error}") from None
    given: dict[str, Any] = {
        "connect_timeout": CONNECT_TIMEOUT_S, "application_name": "ownweights", **_KEPT_ALIVE,
        **named, **_password(server),
    }  # fmt: skip
    with explained(server):
        # nothing is prepared on the server: a pooler may hand each transaction to another
        connection = psycopg.connect(autocommit=True, prepare_threshold=None, **given)
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        connection.close()
        raise StoreError(
            f"{place_of(server)} keeps text as {encoding}, not as UTF8",
            hint="make one that does: createdb --encoding UTF8 --template template0 NAME",
        )
    connection.adapters.register_loader("numeric", _number_loader())
    return connection


def _password(server: Server) -> dict[str, str]:
    if not server.password_env:
        return {}
    if password := os.environ.get(server.password_env):
        return {"password": password}
    raise SettingsError(
        f"the environment variable {server.password_env} is not set",
        hint=f"it should hold the password of {place_of(server)}",
    )


@functools.cache
def _number_loader() -> type[Any]:
    from psycopg.adapt import Loader

    class NumberLoader(Loader):
        """What sums of whole numbers are: whole numbers, not decimals."""

        def load(self, data: Any) -> int | float:
            text = bytes(data).decode()
            return int(text) if text.lstrip("-").isdigit() else float(text)

    return NumberLoader


def _values(row: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(plain_text(value) if isinstance(value, str) else value for value in row)
