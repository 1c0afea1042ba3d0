"""A team's store: one line for Postgres, one for bodies; gateway and command line agree on it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ownweights.cli.main import main
from ownweights.core.project import Project, Server
from ownweights.gateway import background
from tests.postgres import PostgresServer
from tests.teacher.servers import asked, replay_of, running
from tests.traffic.samples import line, write_lines

WAIT_S = 30.0


@pytest.fixture
def server(postgres: PostgresServer) -> Iterator[Server]:
    with postgres.new_schema() as server:
        yield server


@pytest.fixture
def teacher() -> Iterator[str]:
    with running(replay_of({"hello": "HELLO"})) as url:
        yield f"{url}/v1"


def settings(teacher: str, server: Server, bodies: Path) -> str:
    return (
        f'[store]\ndatabase = "{server.url}"\nbodies = "file://{bodies}"\n'
        f'[teacher.main]\nbase_url = "{teacher}"\n'
    )


def test_gateway_and_commands_share_a_team_store(
    tmp_path: Path, server: Server, teacher: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bodies = tmp_path / "bucket"
    for machine in ("one", "two"):
        (tmp_path / machine).mkdir()
        (tmp_path / machine / "own.toml").write_text(settings(teacher, server, bodies))
    with background(Project(tmp_path / "one")) as gateway:
        url = f"{gateway.base_url}/chat/completions"
        ids = {httpx.post(url, json=asked("hello"), timeout=WAIT_S).headers["x-own-request-id"]
               for _ in range(5)}  # fmt: skip
    file = write_lines(tmp_path / "x.jsonl", [line(0), line(1)])

    def own(*words: str, code: int = 0) -> str:
        returned = main(["--project", str(tmp_path / "two"), *words])
        out, errors = capsys.readouterr()
        assert returned == code, errors
        return out

    assert "2 added" in own("traffic", "import", str(file))
    found = {json.loads(text)["id"] for text in own("traffic", "list", "--json").splitlines()}
    assert ids < found and len(found) == 7
    for one in found:
        assert json.loads(own("traffic", "show", one, "--json"))["id"] == one
    assert "7 records" in own("doctor")
    own("traffic", "verify")
    assert not (tmp_path / "one" / ".own" / "own.db").exists()
    assert not (tmp_path / "two" / ".own" / "own.db").exists()
    assert os.listdir(tmp_path / "one" / ".own" / "bodies") == []
    assert len(os.listdir(bodies)) == 2


def test_commands_say_that_the_server_is_down(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("psycopg", reason="pip install 'ownweights[postgres]'")
    url = f"postgresql://own@/own?host={tmp_path}"
    (tmp_path / "own.toml").write_text(f'[store]\ndatabase = "{url}"\n')
    for words in (["traffic", "list"], ["scan"], ["traffic", "import", "x.jsonl"]):
        assert main(["--project", str(tmp_path), *words]) != 0
        errors = capsys.readouterr().err
        assert "the Postgres database own on" in errors or "x.jsonl" in errors
    assert main(["--project", str(tmp_path), "doctor"]) == 1
    assert "cannot be reached" in capsys.readouterr().out
