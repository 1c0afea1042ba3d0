"""Listening on a port, and stopping in good order."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from ownweights.core.errors import PortInUse, UsageError
from ownweights.teacher.asgi import Receive, Scope, Send, run_lifespan, send_json
from ownweights.teacher.serving import Manners, bind, is_loopback, serve_async, url_of
from tests.teacher.servers import asked, completion, running


def test_bind_taken_port_says_so() -> None:
    with bind("127.0.0.1", 0) as first:
        first.listen()
        port = first.getsockname()[1]
        with pytest.raises(PortInUse, match=f"127.0.0.1:{port} is in use") as caught:
            bind("127.0.0.1", port)
    assert "choose another port with --port" in str(caught.value)


@pytest.mark.parametrize(
    ("host", "port"), [("203.0.113.7", 0), ("127.0.0.1", 70_000), ("not a host", 0)]
)
def test_bind_impossible_address_is_a_usage_error(host: str, port: int) -> None:
    with pytest.raises((UsageError, RuntimeError)):  # RuntimeError: a name that tests may not ask
        bind(host, port)


def test_bind_names_tcp_so_that_answers_are_not_delayed() -> None:
    with bind("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP


def test_url_of_writes_both_families() -> None:
    with bind("127.0.0.1", 0) as listener:
        assert url_of(listener) == f"http://127.0.0.1:{listener.getsockname()[1]}"
    with bind("::1", 0) as listener:
        assert url_of(listener) == f"http://[::1]:{listener.getsockname()[1]}"


@pytest.mark.parametrize(
    ("host", "is_local"),
    [
        ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True),
        ("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("example.org", False), ("", False),
    ],
)  # fmt: skip
def test_is_loopback_knows_who_can_reach_it(host: str, is_local: bool) -> None:
    assert is_loopback(host) is is_local


class Counting:
    """An app that counts its starts and stops."""

    def __init__(self) -> None:
        self.steps: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await run_lifespan(receive, send, self._start, self._stop)
        else:
            await send_json(send, 200, {"steps": self.steps})

    async def _start(self) -> None:
        self.steps.append("start")

    async def _stop(self) -> None:
        self.steps.append("stop")


def test_serve_starts_the_app_before_it_says_ready_and_stops_it_after() -> None:
    app = Counting()
    with running(app) as url:
        assert httpx.get(url).json() == {"steps": ["start"]}
    assert app.steps == ["start", "stop"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_ends_with_zero_on_a_signal(number: signal.Signals, tmp_path: Path) -> None:
    line = json.dumps({"request": asked("a"), "response": completion("b")})
    (tmp_path / "traffic.jsonl").write_text(line + "\n")
    words = ["teacher", "replay", str(tmp_path / "traffic.jsonl")]
    process = subprocess.Popen(
        [sys.executable, "-m", "ownweights.cli", *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert httpx.get(f"{url}/models").status_code == 200
        process.send_signal(number)
        assert process.wait(30) == 0


def test_serve_beside_outlives_the_app() -> None:
    told: list[int] = []
    urls: list[str] = []

    async def beside(scope: Scope, receive: Receive, send: Send) -> None:
        await send_json(send, 200, {"beside": True})

    async def ask() -> None:
        async with httpx.AsyncClient() as client:
            told.append((await client.get(urls[0])).status_code)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "lifespan"
        await run_lifespan(receive, send, ask, ask)

    async def serve() -> None:
        stop = asyncio.Event()
        with bind("127.0.0.1", 0) as listener, bind("127.0.0.1", 0) as other:
            urls.append(url_of(other))
            manners = Manners(beside=[(beside, other)], on_stop=lambda: told.append(0))
            await serve_async(
                app, listener, on_ready=lambda url: stop.set(), stop=stop, manners=manners
            )

    asyncio.run(serve())
    assert told == [200, 0, 200]
