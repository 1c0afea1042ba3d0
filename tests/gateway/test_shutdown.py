"""Signals to a real process: it drains, says what it cut, and reads its settings anew."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from ownweights.core.project import Project
from ownweights.traffic import Record, TrafficStore
from tests.gateway.harness import DONE, WAIT_S, chunk, error_code
from tests.teacher.servers import HANG, asked, completion, json_answer, sse_answer, talking

GOOD = json_answer(json.dumps(completion("fine")).encode())
FIRST, *REST = sse_answer(chunk("a "), chunk("b"), chunk("", "stop"), DONE)


@dataclass
class Served:
    """`own serve` in a process of its own."""

    process: subprocess.Popen[str]
    url: str
    admin_url: str
    log: Path

    @property
    def chat_url(self) -> str:
        return f"{self.url}/v1/chat/completions"

    def until_logged(self, words: str) -> None:
        give_up_s = time.monotonic() + WAIT_S
        while words not in self.log.read_text():
            assert time.monotonic() < give_up_s, self.log.read_text()
            time.sleep(0.02)

    def until_draining(self) -> None:
        give_up_s = time.monotonic() + WAIT_S
        while (answer := httpx.get(f"{self.admin_url}/ready")).status_code != 503:
            assert time.monotonic() < give_up_s
        assert answer.json()["status"] == "draining"

    def until_closed(self) -> None:
        """Until nobody new is let in, which is so soon after it is said."""
        give_up_s = time.monotonic() + WAIT_S
        while time.monotonic() < give_up_s:
            try:
                httpx.get(f"{self.url}/health")
            except httpx.ConnectError:
                return
        raise AssertionError(self.log.read_text())


@contextlib.contextmanager
def serving(folder: Path, teacher_url: str, gateway: str = "", *words: str) -> Iterator[Served]:
    (folder / "own.toml").write_text(
        f'[teacher.main]\nbase_url = "{teacher_url}"\n[gateway]\nport = 0\n{gateway}'
    )
    log = folder / "log.txt"
    command = ["--project", str(folder), "serve", "--json", *words]
    with (
        log.open("w") as stderr,
        subprocess.Popen(
            [sys.executable, "-m", "ownweights.cli", *command],
            stdout=subprocess.PIPE, stderr=stderr, text=True,
        ) as process,
    ):  # fmt: skip
        try:
            assert process.stdout is not None
            told = json.loads(process.stdout.readline())
            yield Served(process, told["url"], told["admin_url"], log)
        finally:
            process.kill()


def records(folder: Path) -> list[Record]:
    with TrafficStore.open(Project(folder)) as store:
        return list(store.records())


def test_shutdown_lets_a_slow_stream_end(tmp_path: Path) -> None:
    go = threading.Event()

    class Held(list[bytes]):
        def __iter__(self) -> Iterator[bytes]:
            yield from self[:2]
            assert go.wait(WAIT_S)
            yield from self[2:]

    with (
        talking(Held([FIRST, *REST])) as talk,
        serving(tmp_path, talk.base_url) as one,
        httpx.stream("POST", one.chat_url, json=asked("x", stream=True), timeout=WAIT_S) as answer,
    ):
        parts = answer.iter_bytes()
        text = next(parts)
        one.process.send_signal(signal.SIGTERM)
        one.until_draining()
        one.until_logged("stopping: 1 requests are open and have 15 s to end")
        one.until_closed()
        go.set()
        text += b"".join(parts)
        assert one.process.wait(WAIT_S) == 0
        assert text.endswith(DONE)
        assert "cut" not in one.log.read_text()
    (record,) = records(tmp_path)
    assert (record.status, record.answer_text) == ("ok", "a b")


def test_shutdown_says_what_it_cuts(tmp_path: Path) -> None:
    with (
        talking([FIRST, *REST[:1], HANG]) as talk,
        serving(tmp_path, talk.base_url, "drain_s = 0.2\n", "--log", "json") as one,
        httpx.stream("POST", one.chat_url, json=asked("x", stream=True), timeout=WAIT_S) as answer,
    ):
        parts = answer.iter_bytes()  # kept: the stream is open as long as it is
        next(parts)
        one.process.send_signal(signal.SIGTERM)
        assert one.process.wait(WAIT_S) == 0
        said = [json.loads(line) for line in one.log.read_text().splitlines()]
    told = [one["message"] for one in said if one["event"] == "log"]
    assert "1 requests were cut: they were not over in time" in told, said
    (line,) = [one for one in said if one["event"] == "request"]
    assert line["error"] == "gateway_stopped"
    (record,) = records(tmp_path)
    assert (record.status, record.answer_text) == ("partial", "a ")
    assert record.metadata["own"]["error"] == "gateway_stopped"


def test_serve_second_signal_ends_at_once(tmp_path: Path) -> None:
    def script(index: int) -> list[bytes]:
        return GOOD if index == 0 else [FIRST, *REST[:1], HANG]

    with (
        talking(script) as talk,
        serving(tmp_path, talk.base_url, "drain_s = 3600\n") as one,
    ):
        httpx.post(one.chat_url, json=asked("a"), timeout=WAIT_S)
        with httpx.stream(
            "POST", one.chat_url, json=asked("b", stream=True), timeout=WAIT_S
        ) as answer:
            parts = answer.iter_bytes()
            next(parts)
            one.process.send_signal(signal.SIGTERM)
            one.until_draining()
            one.process.send_signal(signal.SIGTERM)
            one.process.wait(WAIT_S)
    assert records(tmp_path)[0].status == "ok"


def test_gateway_reloads_at_once_on_sighup(tmp_path: Path) -> None:
    with talking(GOOD) as talk, serving(tmp_path, talk.base_url) as one:
        one.process.send_signal(signal.SIGHUP)  # the file is as it was
        one.until_logged("own.toml was read anew and is in force")
        assert httpx.post(one.chat_url, json=asked("a"), timeout=WAIT_S).status_code == 200
        one.process.send_signal(signal.SIGTERM)
        assert one.process.wait(WAIT_S) == 0


def test_serve_trusts_no_address_it_is_not_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was begun at an address that others may reach: a file that says otherwise moves nothing.

    127.1 is this machine in a spelling that is not known to be, so that it counts as others'.
    """
    monkeypatch.setenv("RENT_KEY", "sk-operator")
    rented = '[teacher.main]\nbase_url = "{}"\nkey_env = "RENT_KEY"\n[gateway]\nport = 0\n'
    with talking(GOOD) as talk, serving(tmp_path, talk.base_url, 'host = "127.1"\n') as one:
        own_toml = tmp_path / "own.toml"
        own_toml.write_text(f'{rented.format(talk.base_url)}host = "127.0.0.1"\n')
        one.until_logged("own.toml was read anew and is in force")
        answer = httpx.post(one.chat_url, json=asked("a"), timeout=WAIT_S)
        assert error_code(answer) == "401 invalid_api_key"
        assert talk.requests == []
        assert "gateway.host: changed by a new start alone" in one.log.read_text()
