"""The child process: it starts, it dies, it ends with us; each time somebody is told."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from ownweights.core.chat import ChatRequest
from ownweights.core.errors import CompleterError, CompleterTimeout
from ownweights.core.project import Project
from ownweights.engine.client import EngineProcess, SocketLink
from ownweights.engine.wire import Ask
from tests.engine.conftest import NO_STUDENT, Served

REQUEST = ChatRequest.of([{"role": "user", "content": "hi"}], max_tokens=12)
WAIT_S = 60.0


def test_engine_process_reports_students_it_could_not_load(process: Served) -> None:
    assert list(process.engine.failures) == [NO_STUDENT]  # pyright: ignore
    assert "does not exist" in process.engine.failures[NO_STUDENT]  # pyright: ignore


def test_engine_process_death_fails_who_waits(
    tiny_project: tuple[Project, tuple[str, str]],
) -> None:
    """Held still so that the ask is under way, then killed."""
    project, (student, _) = tiny_project
    engine = EngineProcess.start(project, [student], threads=1)
    folder = engine.socket.parent

    async def ask_and_kill() -> None:
        completer = engine.completer(student)
        os.kill(engine.pid, signal.SIGSTOP)
        call = asyncio.ensure_future(completer.complete(REQUEST))
        with pytest.raises(CompleterTimeout):
            await completer.complete(REQUEST, timeout_s=0.0)
        while not completer._link._waiting:  # pyright: ignore
            await asyncio.sleep(0)
        os.kill(engine.pid, signal.SIGKILL)
        with pytest.raises(CompleterError, match="ended before it had answered"):
            await call
        with pytest.raises(CompleterError, match="the engine cannot be reached"):
            await completer.complete(REQUEST)
        await completer.close()

    assert engine.is_alive()
    asyncio.run(ask_and_kill())
    engine._process.wait(WAIT_S)
    assert not engine.is_alive()
    engine.stop()
    engine.stop()
    assert not folder.exists()


def test_engine_process_ends_with_stdin(tiny_project: tuple[Project, tuple[str, str]]) -> None:
    project, _ = tiny_project
    with EngineProcess.start(project, [], threads=1) as engine:
        assert engine._process.stdin is not None
        engine._process.stdin.close()
        assert engine._process.wait(WAIT_S) == 0
    assert not engine.socket.parent.exists()


def test_engine_process_says_that_it_did_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", "false")
    with pytest.raises(CompleterError, match="did not start: it ended with exit code 1") as failure:
        EngineProcess.start(Project(tmp_path), [])
    assert "stderr" in (failure.value.hint or "")


def test_engine_process_gives_up_on_a_slow_start(tmp_path: Path) -> None:
    with pytest.raises(CompleterTimeout, match=r"not ready within 0\.0 s"):
        EngineProcess.start(Project(tmp_path), [], wait_s=0.0)


def test_socket_link_drops_a_garbled_engine(tmp_path: Path) -> None:
    async def garbled(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"\xff" * 8)
        await writer.drain()
        await reader.read()
        writer.close()

    async def use() -> object:
        folder = os.path.relpath(tmp_path)  # a socket's path must be short
        server = await asyncio.start_unix_server(garbled, f"{folder}/s")
        link, replies = SocketLink(Path(folder) / "s"), asyncio.Queue()
        await link.send(Ask(1, "s", []), replies)
        reply = await replies.get()
        await link.close()
        server.close()
        return reply

    assert asyncio.run(use()) is None


def test_socket_link_close_before_use_is_nothing(tmp_path: Path) -> None:
    asyncio.run(SocketLink(tmp_path / "s").close())
