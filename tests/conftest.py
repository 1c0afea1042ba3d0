"""What holds for every test: no network, no home, no settings of the caller's, fixed seeds.

Invariants: a socket reaches loopback or a Unix path and nothing else (test_conftest_*); nothing is
read from the environment but `OWN_TEST_DATA`, the folder of public data that some tests need.
"""

from __future__ import annotations

import ipaddress
import os
import random
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from ownweights.core.project import Server
from tests.postgres import PostgresServer, running_server

pytest.register_assert_rewrite("tests.core.completer_contract", "tests.fakes")

MAX_THREADS = 1 if "PYTEST_XDIST_WORKER" in os.environ else 2  # of torch, in each process
SEED = 20260101
# also handed to the processes that pytest-xdist starts once this one has read it
_TEST_DATA = os.environ.pop("OWN_TEST_DATA", "") or os.environ.get("PYTEST_OWN_TEST_DATA", "")
os.environ["PYTEST_OWN_TEST_DATA"] = _TEST_DATA
for _name in [name for name in os.environ if name.startswith("OWN_")]:
    del os.environ[_name]
for _name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
    os.environ.pop(_name, None)
    os.environ.pop(_name.lower(), None)
os.environ.setdefault("OMP_NUM_THREADS", str(MAX_THREADS))  # before anything imports torch
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

# No deadline, for machines are shared; no example database, for runs must not depend on past ones.
hypothesis.settings.register_profile(
    "ownweights",
    deadline=None,
    database=None,
    max_examples=60,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("ownweights")


class NetworkBlocked(RuntimeError):
    """A test tried to reach something other than this machine's loopback."""


def is_loopback(host: object) -> bool:
    """Whether `host` names this machine: `localhost`, 127.0.0.0/8 or ::1."""
    if isinstance(host, bytes):
        host = host.decode("ascii", "replace")
    if host in (None, "", "localhost"):
        return True
    try:
        return ipaddress.ip_address(str(host)).is_loopback
    except ValueError:
        return False


def _check_address(family: int, address: Any) -> None:
    if family == socket.AF_UNIX:
        return
    if not isinstance(address, tuple) or not is_loopback(address[0]):
        raise NetworkBlocked(f"tests reach loopback only, not {address!r}")


class _GuardedSocket(socket.socket):
    def connect(self, address: Any, /) -> None:
        _check_address(self.family, address)
        super().connect(address)

    def connect_ex(self, address: Any, /) -> int:
        _check_address(self.family, address)
        return super().connect_ex(address)

    def sendto(self, data: Any, *rest: Any) -> int:
        _check_address(self.family, rest[-1])
        return super().sendto(data, *rest)


_getaddrinfo = socket.getaddrinfo


def _guarded_getaddrinfo(host: Any, *rest: Any, **named: Any) -> Any:
    if not is_loopback(host):
        raise NetworkBlocked(f"tests resolve loopback names only, not {host!r}")
    return _getaddrinfo(host, *rest, **named)


@pytest.fixture(autouse=True, scope="session")
def _no_network() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "socket", _GuardedSocket)
        patch.setattr(socket, "getaddrinfo", _guarded_getaddrinfo)
        yield


@pytest.fixture(autouse=True, scope="session")
def _home_of_nobody(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        home = str(tmp_path_factory.mktemp("home"))
        for name in ("HOME", "USERPROFILE", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "HF_HOME"):
            patch.setenv(name, home)
        yield


@pytest.fixture(autouse=True)
def _fixed_seeds() -> None:
    random.seed(SEED)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed(SEED)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(SEED)
        if torch.get_num_threads() > MAX_THREADS:
            torch.set_num_threads(MAX_THREADS)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of public data, or a skip that says how to have it."""
    if not _TEST_DATA:
        pytest.skip("OWN_TEST_DATA is not set: this test reads public data that is not shipped")
    folder = Path(_TEST_DATA)
    if not folder.is_dir():
        pytest.skip(f"OWN_TEST_DATA={_TEST_DATA} is not a folder")
    return folder.resolve()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A running Postgres server, or a skip that says how to have one."""
    with running_server() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgres"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path | Server]:
    """Where a new database of each kind is: a file, or a schema of its own on the server."""
    if request.param == "sqlite":
        yield tmp_path / "own.db"
        return
    postgres: PostgresServer = request.getfixturevalue("postgres")
    with postgres.new_schema() as server:
        yield server
