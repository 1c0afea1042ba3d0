"""Run an ASGI app on a socket of this machine until it is told to stop.

In: an app, host and port (0 picks a free one). Out: `on_ready(url)` once it answers; returns after
a graceful stop on SIGINT or SIGTERM. Invariants: a taken port is a PortInUse with a hint
(test_bind_taken_port_says_so); nobody can say to be somebody else by a header
(test_serve_trusts_no_forwarded_header).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import ipaddress
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn

from ownweights.core.errors import PortInUse, UsageError
from ownweights.teacher.inlet import DEFAULT_LIMITS, Inlet, Limits

BACKLOG = 2048
DRAIN_S = 15
TICKS_PER_LOOK = 10  # uvicorn ticks ten times a second
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def bind(host: str, port: int) -> socket.socket:
    """A bound TCP socket; PortInUse when someone else has the address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # the protocol is named because asyncio switches Nagle's delay off only where it is
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise PortInUse(
                f"{host}:{port} is in use by another program",
                hint="stop it, or choose another port with --port (0 picks a free one)",
            ) from None
        raise UsageError(f"cannot listen on {host}:{port}: {error}") from None
    return listener


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def url_of(listener: socket.socket) -> str:
    """The http address of a bound socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Server(uvicorn.Server):
    """uvicorn's server, which says when it is ready, leaves signals to us and looks for callers
    that are too slow."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_ready()

    async def on_tick(self, counter: int) -> bool:
        if counter % TICKS_PER_LOOK == 0:
            now_s = asyncio.get_running_loop().time()
            for connection in list(self.server_state.connections):
                if isinstance(connection, Inlet):
                    connection.look(now_s)
        return await super().on_tick(counter)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def serve(app: Any, listener: socket.socket, on_ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM, then let open requests finish."""
    with asyncio.Runner(loop_factory=_new_loop()) as runner:
        runner.run(serve_async(app, listener, on_ready))


def _new_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's event loop where there is one (not on Windows), else Python's own."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


async def serve_async(
    app: Any,
    listener: socket.socket,
    on_ready: Callable[[str], None],
    stop: asyncio.Event | None = None,
    *,
    limits: Limits = DEFAULT_LIMITS,
) -> None:
    """`serve` inside a running event loop; `stop` ends it as a signal would."""
    url = url_of(listener)
    inlet: Any = functools.partial(Inlet, limits=limits)
    config = uvicorn.Config(
        app, log_config=None, access_log=False, lifespan="on", ws="none", backlog=BACKLOG,
        http=inlet, proxy_headers=False, timeout_keep_alive=limits.keep_alive_s,  # type: ignore[arg-type]
        server_header=False, date_header=True, timeout_graceful_shutdown=DRAIN_S,
    )  # fmt: skip
    server = _Server(config, lambda: on_ready(url))
    loop = asyncio.get_running_loop()

    def ask_to_stop() -> None:
        server.force_exit = server.should_exit
        server.should_exit = True

    with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):  # not the main thread
        for number in _STOP_SIGNALS:
            loop.add_signal_handler(number, ask_to_stop)
    watcher = asyncio.ensure_future(_when_set(stop, ask_to_stop)) if stop is not None else None
    try:
        await server.serve(sockets=[listener])
    finally:
        if watcher is not None:
            watcher.cancel()
        with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):
            for number in _STOP_SIGNALS:
                loop.remove_signal_handler(number)


async def _when_set(stop: asyncio.Event, then: Callable[[], None]) -> None:
    await stop.wait()
    then()
