"""`own serve`: where it listens, and what it warns of."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from ownweights.cli.app import run
from ownweights.core.project import Project
from ownweights.gateway import GatewaySettings

TEACHER = '[teacher.main]\nbase_url = "http://127.0.0.1:9/v1"\n'


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[GatewaySettings]:
    """What the gateway was told, instead of running it."""
    told: list[GatewaySettings] = []

    def stand_in(
        project: Project, settings: GatewaySettings, *, on_ready: Any, reload: Any
    ) -> None:
        told.append(settings)
        admin_url = f"http://{settings.admin_host}:{settings.admin_port}"
        on_ready(f"http://{settings.host}:{settings.port}", admin_url)

    monkeypatch.setattr("ownweights.gateway.run.run_gateway", stand_in)
    return told


def own(folder: Path, text: str, *words: str) -> int:
    (folder / "own.toml").write_text(text)
    return run(["--project", str(folder), "serve", *words])


def test_serve_prints_the_base_url(
    tmp_path: Path, served: list[GatewaySettings], capsys: pytest.CaptureFixture[str]
) -> None:
    assert own(tmp_path, TEACHER, "--port", "4321") == 0
    told = capsys.readouterr()
    assert told.out == "http://127.0.0.1:4321/v1\n"
    assert told.err == ""
    assert served[0].port == 4321


def test_serve_flag_goes_before_the_file(tmp_path: Path, served: list[GatewaySettings]) -> None:
    text = TEACHER + '[gateway]\nport = 1111\nhost = "127.0.0.2"\nlog = "text"\n'
    assert own(tmp_path, text, "--port", "2222", "--key-env", "DOOR") == 0
    assert (served[0].host, served[0].port, served[0].key_env) == ("127.0.0.2", 2222, "DOOR")
    assert own(tmp_path, text, "--admin-port", "3333", "--log", "json") == 0
    assert (served[1].admin_port, served[1].log) == (3333, "json")


@pytest.mark.parametrize(
    ("text", "words", "port"),
    [
        ("", [], 8712), ("", ["--port", "0"], 0), ("admin_port = 5\n", ["--port", "0"], 5),
        ("port = 0\n", [], 0), ("", ["--port", "0", "--admin-port", "8712"], 8712),
    ],
)  # fmt: skip
def test_serve_picks_the_admin_port(
    tmp_path: Path, served: list[GatewaySettings], text: str, words: list[str], port: int
) -> None:
    assert own(tmp_path, f"{TEACHER}[gateway]\n{text}", *words) == 0
    assert served[0].admin_port == port


@pytest.mark.usefixtures("served")
def test_serve_admin_beyond_loopback_warns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert own(tmp_path, TEACHER + '[gateway]\nadmin_host = "0.0.0.0"\n') == 0
    assert "shows recorded traffic to whoever can reach it" in capsys.readouterr().err


def test_serve_without_a_teacher_warns(
    tmp_path: Path, served: list[GatewaySettings], capsys: pytest.CaptureFixture[str]
) -> None:
    assert own(tmp_path, "", "--json") == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["base_url"].endswith("/v1")
    assert "no [teacher.NAME] in own.toml" in told.err


@pytest.mark.parametrize(("words", "num_warnings"), [([], 2), (["--key-env", "DOOR"], 1)])
@pytest.mark.usefixtures("served")
def test_serve_beyond_loopback_warns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], num_warnings: int
) -> None:
    assert own(tmp_path, TEACHER, "--host", "0.0.0.0", *words) == 0
    told = capsys.readouterr().err
    assert "0.0.0.0 can be reached by other machines" in told
    assert told.count("warning:") == num_warnings


def test_serve_unknown_setting_is_a_usage_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert own(tmp_path, "[gateway]\nprot = 1\n") == 2
    assert "prot" in capsys.readouterr().err


def test_serve_key_that_is_not_set_is_a_usage_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DOOR", raising=False)
    assert own(tmp_path, TEACHER, "--port", "0", "--key-env", "DOOR") == 2
    assert "DOOR, which is not set" in capsys.readouterr().err


@pytest.mark.parametrize("quiet", [[], ["--quiet"]])
def test_serve_answers_at_the_address_it_prints(tmp_path: Path, quiet: list[str]) -> None:
    (tmp_path / "own.toml").write_text(TEACHER)
    words = ["--project", str(tmp_path), "serve", "--port", "0", "--json", *quiet]
    with subprocess.Popen(
        [sys.executable, "-m", "ownweights.cli", *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None and process.stderr is not None
        told = json.loads(process.stdout.readline())
        assert httpx.get(f"{told['url']}/health", timeout=30).json() == {"status": "ok"}
        assert httpx.get(f"{told['admin_url']}/ready", timeout=30).json()["engine"] == "off"
        body = {"messages": [{"role": "user", "content": "private"}]}
        httpx.post(f"{told['base_url']}/chat/completions", json=body, timeout=30)
        process.terminate()
        assert process.wait(30) == 0
        said = process.stderr.read()
    assert said.count("502 teacher no_route") == (0 if quiet else 1)
    assert "private" not in said
