"""Run an ASGI app on a socket of this machine until it is told to stop.

In: an app, host and port (0 picks a free one). Out: `on_ready(url)` once it answers; returns after
a graceful stop on SIGINT or SIGTERM. Invariants: a taken port is a PortInUse with a hint
(test_bind_taken_port_says_so); nobody can say to be somebody else by a header
(test_serve_trusts_no_forwarded_header); what is served beside the app is there from before it
answers until after its last request (test_serve_beside_outlives_the_app); a second signal ends it
at once (test_serve_second_signal_ends_at_once).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import ipaddress
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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


@functools.lru_cache(256)
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


@dataclass(frozen=True, slots=True)
class Manners:
    """How a server runs and ends: how long open requests may go on, what else is served in the
    same event loop, what is told when it begins to stop, and what other signals do."""

    drain_s: float = DRAIN_S
    beside: Sequence[tuple[Any, socket.socket]] = ()
    on_stop: Callable[[], None] = lambda: None
    on_signal: Mapping[int, Callable[[], None]] = field(default_factory=dict[int, Any])


def serve(
    app: Any, listener: socket.socket, on_ready: Callable[[str], None], *,
    manners: Manners | None = None,
) -> None:  # fmt: skip
    """Serve until SIGINT or SIGTERM, then let open requests finish; a second one ends at once."""
    with asyncio.Runner(loop_factory=_new_loop()) as runner:
        runner.run(serve_async(app, listener, on_ready=on_ready, manners=manners))


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
    *,
    on_ready: Callable[[str], None],
    stop: asyncio.Event | None = None,
    manners: Manners | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> None:
    """`serve` inside a running event loop; `stop` ends it as a signal would."""
    manners, url = manners or Manners(), url_of(listener)
    config = _config(app, drain_s=manners.drain_s, limits=limits)
    server = _Server(config, lambda: on_ready(url))

    def ask_to_stop() -> None:
        if server.should_exit:
            server.force_exit = True
        else:
            manners.on_stop()
        server.should_exit = True

    signals = {**dict.fromkeys(_STOP_SIGNALS, ask_to_stop), **manners.on_signal}
    watcher = asyncio.ensure_future(_when_set(stop, ask_to_stop)) if stop is not None else None
    try:
        with _following(signals):
            async with _served_beside(manners.beside):
                await server.serve(sockets=[listener])
    finally:
        if watcher is not None:
            watcher.cancel()


def _config(
    app: Any, *, drain_s: float, lifespan: Any = "on", limits: Limits = DEFAULT_LIMITS
) -> uvicorn.Config:
    inlet: Any = functools.partial(Inlet, limits=limits)
    return uvicorn.Config(
        app, log_config=None, access_log=False, lifespan=lifespan, ws="none", backlog=BACKLOG,
        http=inlet, proxy_headers=False, server_header=False, date_header=True,
        timeout_keep_alive=limits.keep_alive_s,  # type: ignore[arg-type]
        timeout_graceful_shutdown=drain_s,  # type: ignore[arg-type]  # it waits fractions too
    )  # fmt: skip


@contextlib.contextmanager
def _following(signals: Mapping[int, Callable[[], None]]) -> Iterator[None]:
    """Do what signals ask, where this is the main thread."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):
        for number, act in signals.items():
            loop.add_signal_handler(number, act)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):
            for number in signals:
                loop.remove_signal_handler(number)


@contextlib.asynccontextmanager
async def _served_beside(others: Sequence[tuple[Any, socket.socket]]) -> AsyncIterator[None]:
    """Serve other apps in this event loop meanwhile."""
    servers = [_Server(_config(app, drain_s=1, lifespan="off"), _nothing) for app, _ in others]
    for _, listener in others:
        listener.listen(BACKLOG)  # whoever comes before its turn in the loop waits for it
    tasks = [
        asyncio.ensure_future(server.serve(sockets=[listener]))
        for server, (_, listener) in zip(servers, others, strict=True)
    ]
    try:
        yield
    finally:
        for server in servers:
            server.should_exit = server.force_exit = True
        await asyncio.gather(*tasks, return_exceptions=True)


def _nothing() -> None:
    return


async def _when_set(stop: asyncio.Event, then: Callable[[], None]) -> None:
    await stop.wait()
    then()
