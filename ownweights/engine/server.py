"""The engine process: one thread that reads asks from a unix socket, steps the engine, and replies.

In: `python -m ownweights.engine --project DIR --socket PATH --student ID ...`. Out: one line of
JSON on stdout when it listens (which students could not be loaded, and why), then frames on the
socket. It ends when its stdin closes, so that it never outlives whoever started it
(test_engine_process_ends_with_stdin).

    select (0 s while there is work, else for ever) → read frames → submit / cancel → step → write
"""

from __future__ import annotations

import json
import selectors
import socket
import sys
from collections.abc import Hashable
from io import RawIOBase
from pathlib import Path

import msgspec

from ownweights.core.errors import CompleterError, CompleterGarbled, OwnError, UsageError
from ownweights.engine.batch import BatchEngine
from ownweights.engine.wire import REQUESTS, Ask, Piece, Reply, failure_of, frame, take_frames

_READ_BYTES = 1 << 18


class Peer:
    """One connection: bytes that came and are not a frame yet, bytes that wait to go."""

    def __init__(self, link: socket.socket) -> None:
        link.setblocking(False)
        self.link = link
        self.received = bytearray()
        self.to_send = bytearray()
        self.asked: set[int] = set()
        self.events = selectors.EVENT_READ

    def send(self) -> None:
        """Send as much as the socket takes."""
        while self.to_send:
            try:
                sent = self.link.send(self.to_send)
            except BlockingIOError:
                return
            del self.to_send[:sent]


class Server:
    """Serves an engine on a listening socket until its leash closes."""

    def __init__(self, engine: BatchEngine, listener: socket.socket, leash: RawIOBase) -> None:
        self._engine = engine
        self._listener = listener
        self._leash = leash
        self._peers: set[Peer] = set()
        self._selector = selectors.DefaultSelector()
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ, "listener")
        try:
            self._selector.register(leash, selectors.EVENT_READ, "leash")
        except PermissionError:  # epoll takes pipes and sockets, not files
            raise UsageError(
                "the engine's stdin must be a pipe: the engine ends when it closes",
                hint="it is started by `own serve`, not by hand",
            ) from None

    def run(self) -> None:
        """Answer until the leash closes."""
        try:
            while self._listen():
                for key, reply in self._step():
                    self._reply(key, reply)
                for peer in list(self._peers):
                    self._flush(peer)
        finally:
            for peer in list(self._peers):
                self._hang_up(peer)
            self._selector.close()

    def _step(self) -> list[tuple[Hashable, Reply]]:
        return self._engine.step() if self._engine.has_work else []

    def _listen(self) -> bool:
        """Take in what has come; False when the leash is closed."""
        for key, _ in self._selector.select(0 if self._engine.has_work else None):
            if key.data == "leash":
                if not self._leash.read(1):
                    return False
            elif key.data == "listener":
                self._welcome()
            else:
                self._read(key.data)
        return True

    def _welcome(self) -> None:
        peer = Peer(self._listener.accept()[0])
        self._peers.add(peer)
        self._selector.register(peer.link, selectors.EVENT_READ, peer)

    def _read(self, peer: Peer) -> None:
        try:
            data = peer.link.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._hang_up(peer)
            return
        peer.received += data
        try:
            for body in take_frames(peer.received):
                self._take(peer, body)
        except (CompleterGarbled, msgspec.DecodeError) as error:
            sys.stderr.write(f"engine: hung up on a garbled frame: {error}\n")
            self._hang_up(peer)

    def _take(self, peer: Peer, body: bytes) -> None:
        request = REQUESTS.decode(body)
        key = (peer, request.id)
        if not isinstance(request, Ask):
            self._engine.cancel(key)
            peer.asked.discard(request.id)
            return
        if request.id in peer.asked:
            raise CompleterGarbled(f"ask {request.id} is under way already")
        peer.asked.add(request.id)
        try:
            self._engine.submit(key, request)
        except OwnError as error:
            self._reply(key, failure_of(request.id, error))
        except Exception as error:  # one request must not end the others
            what = CompleterError(f"the engine failed on this request: {error!r}")
            self._reply(key, failure_of(request.id, what))

    def _reply(self, key: Hashable, reply: Reply) -> None:
        assert isinstance(key, tuple), "keys are made in _take"
        peer: Peer = key[0]
        peer.to_send += frame(reply)
        if not isinstance(reply, Piece):
            peer.asked.discard(reply.id)

    def _flush(self, peer: Peer) -> None:
        try:
            peer.send()
        except OSError:
            self._hang_up(peer)
            return
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if peer.to_send else 0)
        if events != peer.events:
            peer.events = events
            self._selector.modify(peer.link, events, peer)

    def _hang_up(self, peer: Peer) -> None:
        """Forget a connection and everything it asked for."""
        if peer not in self._peers:
            return
        self._peers.discard(peer)
        self._selector.unregister(peer.link)
        for ask_id in peer.asked:
            self._engine.cancel((peer, ask_id))
        peer.link.close()


def serve(engine: BatchEngine, path: Path) -> None:
    """Listen on a unix socket, say so on stdout, and answer until stdin closes."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        sys.stdout.write(json.dumps({"socket": str(path), "failures": engine.failures}) + "\n")
        sys.stdout.flush()
        with open(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as leash:
            Server(engine, listener, leash).run()
