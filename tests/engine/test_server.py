"""The engine's side of the socket, with an engine that does as it is told."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Hashable, Iterator
from pathlib import Path

import pytest

from ownweights.core.errors import CompleterError, ContextTooLong, UsageError
from ownweights.engine.server import Server
from ownweights.engine.wire import (
    HEAD_BYTES,
    REPLIES,
    Ask,
    Cancel,
    Done,
    Failed,
    Piece,
    Reply,
    frame,
    frame_length,
)

WAIT_S = 30.0  # for what happens at once; a test that waits so long has failed


class ScriptedEngine:
    """Answers each ask with its student's name; those of student `never` wait for ever."""

    def __init__(self) -> None:
        self.waiting: dict[Hashable, Ask] = {}
        self.cancelled: list[int] = []
        self.was_cancelled = threading.Event()

    @property
    def has_work(self) -> bool:
        return any(ask.student != "never" for ask in self.waiting.values())

    def submit(self, key: Hashable, ask: Ask) -> None:
        if ask.student == "long":
            raise ContextTooLong(9, 8)
        if ask.student == "broken":
            raise ZeroDivisionError("a bug")
        self.waiting[key] = ask

    def cancel(self, key: Hashable) -> None:
        if ask := self.waiting.pop(key, None):
            self.cancelled.append(ask.id)
            self.was_cancelled.set()

    def step(self) -> list[tuple[Hashable, Reply]]:
        replies: list[tuple[Hashable, Reply]] = []
        for key, ask in list(self.waiting.items()):
            if ask.student != "never":
                del self.waiting[key]
                text = ask.student * (1 << 20 if ask.student == "big" else 1)
                replies += [(key, Piece(ask.id, text)), (key, done(ask.id, text))]
        return replies


def done(ask_id: int, text: str) -> Done:
    return Done(ask_id, text, "stop", 1, b"", b"", b"")


class Client:
    """A blocking connection, for tests."""

    def __init__(self, path: Path) -> None:
        self.link = socket.socket(socket.AF_UNIX)
        self.link.settimeout(WAIT_S)
        self.link.connect(str(path))

    def ask(self, ask_id: int, student: str) -> None:
        self.link.sendall(frame(Ask(ask_id, student, [])))

    def read(self) -> Reply:
        return REPLIES.decode(self._exactly(frame_length(self._exactly(HEAD_BYTES))))

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            data += self.link.recv(count - len(data)) or pytest.fail("the server hung up")
        return data


class Running:
    """A server in a thread, and the way to it."""

    def __init__(self, path: Path) -> None:
        self.engine = ScriptedEngine()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        self.path = path
        leash, self.leash = os.pipe()
        self.leash_file = open(leash, "rb", buffering=0)  # noqa: SIM115  # closed by `stop`
        server = Server(self.engine, self.listener, self.leash_file)  # pyright: ignore
        self.thread = threading.Thread(target=server.run, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self.leash)
        self.thread.join(WAIT_S)
        assert not self.thread.is_alive()
        self.leash_file.close()
        self.listener.close()


@pytest.fixture
def running() -> Iterator[Running]:
    with tempfile.TemporaryDirectory() as folder:  # a socket's path must be short
        server = Running(Path(folder) / "s")
        yield server
        server.stop()


@pytest.fixture
def client(running: Running) -> Iterator[Client]:
    connection = Client(running.path)
    yield connection
    connection.link.close()


def test_server_answers_in_pieces_and_an_end(client: Client) -> None:
    client.ask(7, "s")
    assert [client.read(), client.read()] == [Piece(7, "s"), done(7, "s")]


def test_server_keeps_connections_apart(running: Running, client: Client) -> None:
    other = Client(running.path)
    client.ask(1, "a")
    other.ask(1, "b")
    assert [client.read(), other.read()] == [Piece(1, "a"), Piece(1, "b")]
    other.link.close()


def test_server_sends_what_the_socket_does_not_take_at_once(client: Client) -> None:
    client.ask(1, "big")
    client.ask(2, "s")
    client.read()
    whole = client.read()
    assert isinstance(whole, Done) and whole.text == "big" * (1 << 20)
    assert client.read() == Piece(2, "s")


def test_server_takes_an_ask_in_parts(client: Client) -> None:
    sent = frame(Ask(3, "s", []))
    client.link.sendall(sent[:5])
    client.link.sendall(sent[5:])
    assert client.read() == Piece(3, "s")


def test_server_reports_an_error_and_goes_on(client: Client) -> None:
    client.ask(1, "long")
    client.ask(2, "broken")
    client.ask(3, "s")
    assert client.read() == Failed(
        1, "context", ContextTooLong(9, 8).what, prompt_tokens=9, max_tokens=8
    )
    said = str(CompleterError("the engine failed on this request: ZeroDivisionError('a bug')"))
    assert client.read() == Failed(2, "error", said)
    assert client.read() == Piece(3, "s")


def test_server_cancels_what_is_called_off(running: Running, client: Client) -> None:
    client.ask(1, "never")
    client.link.sendall(frame(Cancel(1)) + frame(Cancel(44)))
    assert running.engine.was_cancelled.wait(WAIT_S)
    assert running.engine.cancelled == [1]


def test_server_cancels_what_a_gone_client_asked(running: Running, client: Client) -> None:
    for ask_id in (1, 2):
        client.ask(ask_id, "never")
    client.ask(3, "s")
    assert isinstance(client.read(), Piece)
    client.link.close()
    assert running.engine.was_cancelled.wait(WAIT_S)
    running.stop()
    assert sorted(running.engine.cancelled) == [1, 2]


@pytest.mark.parametrize(
    ("garbage", "said"),
    [
        (b"\xff" * 8, "a frame of 4294967295 bytes"),
        (b"\x00\x00\x00\x01\xc1", "garbled frame"),
        (frame(Ask(1, "never", [])) * 2, "ask 1 is under way already"),
    ],
)
def test_server_hangs_up_on_garbage_and_serves_others(
    running: Running, client: Client, capsys: pytest.CaptureFixture[str], garbage: bytes, said: str
) -> None:
    client.link.sendall(garbage)
    assert client.link.recv(1) == b""
    other = Client(running.path)
    other.ask(1, "s")
    assert other.read() == Piece(1, "s")
    other.link.close()
    assert said in capsys.readouterr().err


def test_server_ends_when_its_leash_closes(running: Running, client: Client) -> None:
    os.close(running.leash)
    assert client.link.recv(1) == b""
    running.thread.join(WAIT_S)
    assert not running.thread.is_alive()


def test_server_needs_a_pipe_for_a_leash() -> None:
    with (
        socket.socket(socket.AF_UNIX) as listener,
        open(os.devnull, "rb", buffering=0) as leash,
        pytest.raises(UsageError, match="stdin must be a pipe") as refusal,
    ):
        Server(ScriptedEngine(), listener, leash)  # pyright: ignore
    assert "own serve" in (refusal.value.hint or "")


def test_engine_program_explains_itself() -> None:
    words = [sys.executable, "-m", "ownweights.engine", "--help"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "--student ID" in done.stdout
