"""A real Postgres server for tests: from the system's packages, on a Unix socket, with no network.

One server a session, a new schema or database a test. Where Postgres or psycopg is not installed,
the tests that need it are skipped, with the reason.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ownweights.core.project import Project, Server

USER = "own"
MAX_STARTS = 200
_FAST = (
    "-c fsync=off -c shared_buffers=16MB -c max_connections=40 -c jit=off"
    " -c max_prepared_transactions=2"
)


def find_programs() -> Path:
    """The folder of `initdb` and `postgres`, or a skip that says how to have them."""
    if importlib.util.find_spec("psycopg") is None:
        pytest.skip("psycopg is not installed: pip install 'ownweights[postgres]'")
    for folder in [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]:
        if (folder / "initdb").exists():
            return folder
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    pytest.skip("Postgres is not installed: apt-get install postgresql")


class PostgresServer:
    """A server in a folder of its own; `start`, `stop` and `kill` as often as a test likes."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self.folder = folder
        self._programs = programs
        self._as_user = _unprivileged(folder)
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count(1)
        words = ["-D", str(folder / "data"), "-U", USER, "-A", "trust", "-E", "UTF8",
                 "--locale=C.UTF-8", "--no-sync"]  # fmt: skip
        with (folder / "log").open("ab") as log:
            made = self._popen("initdb", *words, out=log).wait()
        assert made == 0, (folder / "log").read_text()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        words = ["-D", str(self.folder / "data"), "-k", str(self.folder), "-c", "listen_addresses="]
        for _ in range(MAX_STARTS):
            with (self.folder / "log").open("ab") as log:
                self._process = self._popen("postgres", *words, *_FAST.split(), out=log)
            if self._answers(self._process):
                return
        raise AssertionError((self.folder / "log").read_text())

    def stop(self) -> None:
        """End all connections, and stop."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """Kill -9 of the server and of all that it started, as an accident would."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)  # so that it starts no others meanwhile
            for child in _children_of(self._process.pid):
                os.kill(child, signal.SIGKILL)
        self._end(signal.SIGKILL)

    @contextlib.contextmanager
    def down(self, how: str) -> Iterator[None]:
        """`stop` or `kill` it, and start it again at the end."""
        getattr(self, how)()
        try:
            yield
        finally:
            self.start()

    @contextlib.contextmanager
    def new_schema(self) -> Iterator[Server]:
        """An empty schema: as good as a database of its own, and made in a tenth of the time."""
        name = f"schema_{next(self._numbers)}"
        self.run_sql(f"CREATE SCHEMA {name}")
        yield Server(f"{self.server('postgres').url}&options=-csearch_path%3D{name}")
        self.run_sql(f"DROP SCHEMA {name} CASCADE")

    def new_database(self) -> Server:
        """An empty database."""
        name = f"test_{next(self._numbers)}"
        self.run_sql(f'CREATE DATABASE "{name}"')
        return self.server(name)

    def drop_database(self, server: Server) -> None:
        """Away with it, whoever is connected."""
        self.run_sql(f'DROP DATABASE IF EXISTS "{server.url.split("/")[3].split("?")[0]}" (FORCE)')

    def server(self, name: str, user: str = USER) -> Server:
        """The address of a database."""
        return Server(f"postgresql://{user}@/{name}?host={self.folder}")

    def run_sql(self, sql: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run a statement as the server's owner."""
        import psycopg

        with psycopg.connect(self.server(database).url, autocommit=True) as connection:
            cursor = connection.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []

    def _answers(self, process: subprocess.Popen[bytes]) -> bool:
        """Wait until it takes connections; false when it ended, as it does where what a killed one
        had started has not ended yet."""
        words = [str(self._programs / "pg_isready"), "-q", "-h", str(self.folder), "-t", "5"]
        while subprocess.run(words, check=False).returncode != 0:
            if process.poll() is not None:
                return False
        return True

    def _end(self, by: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(by)
            self._process.wait(60)
            self._process = None

    def _popen(self, program: str, *words: str, out: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [str(self._programs / program), *words], stdout=out, stderr=out, cwd=self.folder,
            **self._as_user,
        )  # fmt: skip


@contextlib.contextmanager
def running_server() -> Iterator[PostgresServer]:
    """A server in a temporary folder, stopped and removed at the end."""
    programs = find_programs()
    folder = Path(tempfile.mkdtemp(prefix="own-pg-", dir="/tmp"))  # a socket's path must be short
    try:
        server = PostgresServer(folder, programs)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def spell(project: Project) -> str:
    """A project as one word for a process of its own; `spelled` reads it."""
    url = project.server.url if project.server else ""
    return "\n".join((str(project.root), url, project.bodies_url))


def spelled(word: str) -> Project:
    """The project that `spell` wrote."""
    root, url, bodies_url = word.split("\n")
    return Project(Path(root), Server(url) if url else None, bodies_url)


def _children_of(pid: int) -> list[int]:
    found: list[int] = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            _, _, rest = stat.read_text().rpartition(") ")
            found += [int(stat.parent.name)] * (int(rest.split()[1]) == pid)
    return found


def _unprivileged(folder: Path) -> dict[str, Any]:
    """How to run a program as somebody else, for the server refuses root."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            who = pwd.getpwnam(name)
            os.chown(folder, who.pw_uid, who.pw_gid)
            return {"user": who.pw_uid, "group": who.pw_gid, "extra_groups": ()}
    pytest.skip("Postgres refuses root, and there is no other user to run it as")
