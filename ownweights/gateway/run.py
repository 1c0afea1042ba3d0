"""Run the gateway in this process, or as a program in the background for a `with` block.

In: a project and settings. Out: HTTP on a port. Invariant: stopping it lets open requests finish
and writes every record down (test_background_stop_keeps_every_record).
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import logging
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ownweights.core.errors import OwnError, PortInUse
from ownweights.core.project import Project
from ownweights.gateway.admin.app import Admin
from ownweights.gateway.app import Gateway
from ownweights.gateway.settings import GatewaySettings
from ownweights.gateway.students import Engine, StartEngine
from ownweights.gateway.watch.logs import formatter_of
from ownweights.teacher.serving import Manners, bind, serve, url_of

log = logging.getLogger("ownweights.gateway")
STOP_S = 30.0
SWITCH_S = 0.0005  # at most, between threads; Python itself has 5 ms
GC_THRESHOLDS = (10_000, 20, 20)  # Python itself has 700, 10, 10


def start_engine(project: Project, student_ids: Sequence[str]) -> Engine:
    """The engine child for these students; torch is loaded there, not here."""
    from ownweights.engine.client import EngineProcess  # with numpy

    return EngineProcess.start(project, student_ids)


def run_gateway(
    project: Project,
    settings: GatewaySettings,
    *,
    on_ready: Callable[[str, str | None], None] = lambda url, admin_url: None,
    engine: StartEngine = start_engine,
    reload: Callable[[], GatewaySettings] | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM; `reload` reads the settings anew when own.toml changes.

    `on_ready` is told the gateway's address, and the admin listener's where there is one.
    """
    for name in ("aiohttp", "httpx", "httpcore"):  # they would log the address of every call
        logging.getLogger(name).setLevel(logging.WARNING)
    with contextlib.ExitStack() as held:
        held.enter_context(_answering_first())
        listener = held.enter_context(bind(settings.host, settings.port))
        bound = dataclasses.replace(settings, port=listener.getsockname()[1])
        gateway = Gateway(
            project, bound, start_engine=engine, reload=reload and _kept(reload, settings, bound)
        )
        held.callback(gateway.let_go)
        beside, admin_url = list[tuple[Any, socket.socket]](), None
        if settings.admin_host:
            door = held.enter_context(_bind_admin(settings))
            admin = Admin(gateway, settings.admin_host)
            held.callback(admin.close)
            beside.append((admin, door))
            admin_url = url_of(door)
        manners = Manners(
            drain_s=settings.drain_s, beside=beside, on_stop=gateway.begin_stop,
            on_signal={signal.SIGHUP: gateway.reload_soon} if hasattr(signal, "SIGHUP") else {},
        )  # fmt: skip
        serve(gateway, listener, lambda url: on_ready(url, admin_url), manners=manners)


@contextlib.contextmanager
def _answering_first() -> Iterator[None]:
    """Let the event loop wait little for the thread that records, and not at all for a search of
    cyclic garbage among what was loaded; what each is worth: dev/LOG.md."""
    interval_s, thresholds = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(SWITCH_S)
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    try:
        yield
    finally:
        sys.setswitchinterval(interval_s)
        gc.set_threshold(*thresholds)
        gc.unfreeze()


def _kept(
    reload: Callable[[], GatewaySettings], started: GatewaySettings, bound: GatewaySettings
) -> Callable[[], GatewaySettings]:
    """Read settings anew, all but what only a new start changes; say what of that is new."""

    def read() -> GatewaySettings:
        found, names = reload().as_started(started)
        if names:
            log.warning("own.toml: gateway.%s: changed by a new start alone", ", ".join(names))
        return dataclasses.replace(found, port=bound.port)

    return read


def _bind_admin(settings: GatewaySettings) -> socket.socket:
    try:
        return bind(settings.admin_host, settings.admin_port)
    except PortInUse as error:
        hint = 'set gateway.admin_port (0 picks a free one), or admin_host = "" for none'
        raise PortInUse(f"the admin listener: {error.what}", hint=hint) from None


@contextlib.contextmanager
def logging_to_stderr(*, is_quiet: bool, form: str = "text") -> Iterator[None]:
    """Write what is logged to stderr: a line a request and what fails, or only what fails."""
    logger, handler = logging.getLogger("ownweights"), logging.StreamHandler()
    handler.setFormatter(formatter_of(form))
    before = logger.level
    logger.setLevel(logging.WARNING if is_quiet else logging.INFO)
    logging.root.addHandler(handler)  # what libraries warn of has the same form
    try:
        yield
    finally:
        logging.root.removeHandler(handler)
        logger.setLevel(before)


@dataclass(frozen=True, slots=True)
class Background:
    """A gateway that runs as a program of its own; `base_url` is what an OpenAI client takes."""

    url: str
    process: subprocess.Popen[str]
    admin_url: str | None = None

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"

    def status(self) -> dict[str, Any]:
        """What /ready says to the operator."""
        with urllib.request.urlopen(f"{self.admin_url or self.url}/ready", timeout=10) as answer:
            return json.load(answer)


@contextlib.contextmanager
def background(
    project: Project,
    *,
    port: int = 0,
    host: str = "127.0.0.1",
    wait_engine_s: float = 120.0,
) -> Iterator[Background]:
    """`own serve` in the background, up and with its students loaded; stopped at the end."""
    words = ["--project", str(project.root), "serve", "--host", host, "--port", str(port),
             "--admin-port", "0", "--json", "--quiet"]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "ownweights.cli", *words], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None, "stdout is a pipe"
        line = process.stdout.readline()
        if not line:
            raise OwnError(f"the gateway did not start: exit code {process.wait()}")
        told = json.loads(line)
        running = Background(told["url"], process, told["admin_url"])
        _wait_for_engine(running, wait_engine_s)
        yield running
    finally:
        _stop(process)


def _wait_for_engine(running: Background, wait_s: float) -> None:
    give_up_s = time.monotonic() + wait_s
    while True:
        status = running.status()
        if status["engine"] in ("off", "ready") and not status["engine_fault"]:
            return
        if status["engine_fault"] or time.monotonic() > give_up_s:
            fault = status["engine_fault"] or f"not ready within {wait_s} s"
            raise OwnError(f"the engine does not answer: {fault}")
        time.sleep(0.05)


def _stop(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    finally:
        if process.stdout is not None:
            process.stdout.close()
