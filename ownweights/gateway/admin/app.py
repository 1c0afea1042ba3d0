"""The admin listener's app: reads, and changes nothing.

In: GETs. Out: metrics, how the gateway stands, pages. Invariants: a web page elsewhere cannot read
it through its visitor's browser: names of other hosts are refused, for they may be rebound
(test_admin_refuses_other_hosts), and every page forbids scripts and outside resources
(test_admin_pages_forbid_scripts); bodies are shown on their record's own page alone
(test_admin_lists_hold_no_content).
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol
from urllib.parse import parse_qsl

from ownweights.core.errors import OwnError
from ownweights.core.project import Project
from ownweights.gateway.admin.pages import Pages, style
from ownweights.gateway.watch.metrics import CONTENT_TYPE
from ownweights.gateway.watch.watch import Watch
from ownweights.teacher.asgi import (
    Headers,
    HttpError,
    Receive,
    Scope,
    Send,
    check_method,
    header,
    send_bytes,
    send_error,
    send_json,
)
from ownweights.teacher.serving import is_loopback

log = logging.getLogger("ownweights.gateway")
MAX_QUERY_BYTES = 8192
_EVERYWHERE = ("0.0.0.0", "::")
_GUARDS: Headers = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
    (
        b"content-security-policy",
        b"default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none';"
        b" frame-ancestors 'none'",
    ),
]
_HTML = (b"content-type", b"text/html; charset=utf-8")


class Watched(Protocol):
    """The gateway, as far as it is looked at here."""

    watch: Watch

    @property
    def project(self) -> Project: ...

    @property
    def standing(self) -> str: ...

    @property
    def ready_status(self) -> int: ...

    async def status(self) -> dict[str, Any]: ...


class Admin:
    """The ASGI app beside a gateway, listening on `host`."""

    def __init__(self, gateway: Watched, host: str) -> None:
        self._gateway, self._host = gateway, host.lower()
        self._pages = Pages(gateway.project)
        self._plain: dict[str, Callable[[Send], Awaitable[None]]] = {
            "/metrics": self._metrics, "/health": self._health, "/ready": self._ready,
            "/style.css": self._style,
        }  # fmt: skip

    def close(self) -> None:
        """Let go of the store."""
        self._pages.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http", "there is no lifespan and no websocket here"
        try:
            check_host(header(scope, b"host"), self._host)
            check_method(scope, "GET")
            await self._respond(scope, send)
        except HttpError as error:
            await send_error(send, error, _GUARDS)
        except Exception as error:  # a defect of ours, which must not show content
            log.error("an admin request failed with %s", type(error).__name__)
            what = "the admin listener failed at this request"
            failed = HttpError(500, what, code="internal", kind="server_error")
            await send_error(send, failed, _GUARDS)

    async def _respond(self, scope: Scope, send: Send) -> None:
        path = scope["path"]
        if path in self._plain:
            await self._plain[path](send)
            return
        try:
            status, text = await self._pages.render(path, _query(scope))
        except OwnError as error:
            if isinstance(error, HttpError):
                raise
            raise HttpError(503, error.what, code="unavailable", kind="server_error") from None
        await send_bytes(send, status, text.encode("utf-8", "replace"), [_HTML, *_GUARDS])

    async def _metrics(self, send: Send) -> None:
        text = self._gateway.watch.metrics.text()
        await send_bytes(send, 200, text, [(b"content-type", CONTENT_TYPE), *_GUARDS])

    async def _health(self, send: Send) -> None:
        await send_json(send, 200, {"status": "ok"}, _GUARDS)

    async def _ready(self, send: Send) -> None:
        said = await self._gateway.status()
        await send_json(send, self._gateway.ready_status, said, _GUARDS)

    async def _style(self, send: Send) -> None:
        css = (b"content-type", b"text/css; charset=utf-8")
        await send_bytes(send, 200, style(), [css, *_GUARDS])


def check_host(named: str | None, ours: str) -> None:
    """HttpError 421 unless a request names this machine or the host it listens on.

    A name of DNS can be rebound to this machine by whoever owns it; an address cannot, and counts
    where it listens everywhere.
    """
    host = _host_of(named or "")
    if host and (is_loopback(host) or host == ours or (ours in _EVERYWHERE and _is_address(host))):
        return
    what = "this listener answers to its own address only"
    raise HttpError(421, what, code="wrong_host")


def _host_of(named: str) -> str:
    """The host in a Host header, without its port; empty where it is none."""
    text = named.strip().lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.rpartition(":")[0] if text.count(":") == 1 else text


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _query(scope: Scope) -> dict[str, str]:
    raw = scope.get("query_string", b"")
    if len(raw) > MAX_QUERY_BYTES:
        raise HttpError(414, "the query is too long", code="query_too_long")
    try:
        pairs = parse_qsl(raw.decode("ascii"), keep_blank_values=True, max_num_fields=50)
    except (UnicodeDecodeError, ValueError):
        raise HttpError(400, "the query cannot be read", code="invalid_query") from None
    given = [(name, value) for name, value in pairs if value]
    if len(dict(given)) < len(given):
        raise HttpError(400, "a filter is given twice", code="invalid_query")
    return dict(given)
