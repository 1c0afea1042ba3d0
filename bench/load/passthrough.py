"""The least gateway there can be, on each server and with each client that came into question.

Run as `passthrough.py SERVER CLIENT PORT UPSTREAM_PORT` in an environment that has them: it reads a
request, asks the upstream with it, and passes the answer on as it comes. No JSON, no record.
Servers: uvicorn-asyncio, uvicorn-uvloop, granian-asgi, granian-rsgi, aiohttp. Clients: the keys of
CLIENTS; `none` answers at once. `raw` is a client of 50 lines on asyncio and httptools: the floor.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any

Headers = list[tuple[bytes, bytes]]
OnHead = Callable[[int, Headers], Awaitable[None]]
OnPart = Callable[[bytes], Awaitable[None]]
Ask = Callable[[bytes, Headers, OnHead, OnPart], Awaitable[None]]

ANSWER = b'{"id":"none","object":"chat.completion","choices":[]}'.ljust(350)
DROPPED = {
    b"host", b"connection", b"content-length", b"transfer-encoding", b"accept-encoding",
    b"keep-alive", b"date", b"server",
}  # fmt: skip
PATH = "/v1/chat/completions"
_host = ""  # of the upstream, with its port


def kept(headers: Any) -> Headers:
    """The headers that are passed on."""
    return [(name, value) for name, value in headers if name.lower() not in DROPPED]


def text(headers: Headers) -> list[tuple[str, str]]:
    """The same for clients that want text."""
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]


def octets(headers: Any) -> Headers:
    """And back."""
    return kept((name.encode("latin-1"), value.encode("latin-1")) for name, value in headers)


def none() -> Ask:
    """No client: the answer is there at once."""

    async def ask(raw: bytes, headers: Headers, on_head: OnHead, on_part: OnPart) -> None:
        await on_head(200, [(b"content-type", b"application/json")])
        await on_part(ANSWER)

    return ask


def httpx_like(name: str) -> Ask:
    """httpx 0.28 and httpx2."""
    library = importlib.import_module(name)
    limits = library.Limits(max_connections=None, max_keepalive_connections=1000)
    client = library.AsyncClient(timeout=60, limits=limits)

    async def ask(raw: bytes, headers: Headers, on_head: OnHead, on_part: OnPart) -> None:
        request = library.Request("POST", f"http://{_host}{PATH}", headers=headers, content=raw)
        response = await client.send(request, stream=True)
        await on_head(response.status_code, kept(response.headers.raw))
        async for part in response.aiter_raw():
            await on_part(part)
        await response.aclose()

    return ask


def httpcore() -> Ask:
    """What httpx stands on."""
    library = importlib.import_module("httpcore")
    pool = library.AsyncConnectionPool(max_connections=None, max_keepalive_connections=1000)
    url = library.URL(f"http://{_host}{PATH}")

    async def ask(raw: bytes, headers: Headers, on_head: OnHead, on_part: OnPart) -> None:
        more = [(b"host", _host.encode()), (b"content-length", b"%d" % len(raw))]
        request = library.Request("POST", url, headers=[*more, *headers], content=raw)
        response = await pool.handle_async_request(request)
        await on_head(response.status, kept(response.headers))
        async for part in response.aiter_stream():
            await on_part(part)
        await response.aclose()

    return ask


def aiohttp() -> Ask:
    """aiohttp's client, without cookies, decoding and headers of its own."""
    library = importlib.import_module("aiohttp")
    session = library.ClientSession(
        connector=library.TCPConnector(limit=0),
        auto_decompress=False,
        cookie_jar=library.DummyCookieJar(),
        timeout=library.ClientTimeout(total=60),
        skip_auto_headers=("user-agent", "accept", "accept-encoding", "content-type"),
    )
    url = importlib.import_module("yarl").URL(f"http://{_host}{PATH}")

    async def ask(raw: bytes, headers: Headers, on_head: OnHead, on_part: OnPart) -> None:
        async with session.post(
            url, data=raw, headers=text(headers), allow_redirects=False
        ) as response:
            await on_head(response.status, kept(response.raw_headers))
            async for part in response.content.iter_any():
                await on_part(part)

    return ask


def niquests() -> Ask:
    """The maintained successor of requests."""
    library = importlib.import_module("niquests")
    session = library.AsyncSession(pool_maxsize=1000, disable_http2=True, disable_http3=True)

    async def ask(raw: bytes, headers: Headers, on_head: OnHead, on_part: OnPart) -> None:
        response = await session.post(
            f"http://{_host}{PATH}", data=raw, headers=dict(text(headers)), stream=True
        )
        await on_head(response.status_code, octets(response.headers.items()))
        async for part in await response.iter_raw(-1):
            await on_part(part)
        await response.close()

    return ask


def pyreqwest() -> Ask:
    """Rust's reqwest, by one binding."""
    client = importlib.import_module("pyreqwest.client").ClientBuilder().build()

    async def ask(raw: bytes, headers: Headers, on_head: OnHead, on_part: OnPart) -> None:
        asked = client.post(f"http://{_host}{PATH}").headers(text(headers)).body_bytes(raw)
        async with asked.build_streamed() as response:
            await on_head(response.status, octets(response.headers.items()))
            while (part := await response.body_reader.read_chunk()) is not None:
                await on_part(bytes(part))

    return ask


def pyqwest() -> Ask:
    """Rust's reqwest, by another binding."""
    library = importlib.import_module("pyqwest")
    client = library.Client(library.HTTPTransport(http_version=library.HTTPVersion.HTTP1))

    async def ask(raw: bytes, headers: Headers, on_head: OnHead, on_part: OnPart) -> None:
        given = library.Headers(text(headers))
        async with client.stream("POST", f"http://{_host}{PATH}", given, raw) as response:
            await on_head(response.status, octets(response.headers.items()))
            async for part in response.content:
                await on_part(bytes(part))

    return ask


class RawConnection(asyncio.Protocol):
    """One connection to the upstream; no limits, no time-outs, no TLS."""

    def begin(self, data: bytes) -> None:
        """Send a request and forget the answer before."""
        self.parser = importlib.import_module("httptools").HttpResponseParser(self)
        self.headers: Headers = []
        self.parts: list[bytes] = []
        self.is_started = self.is_over = False
        self.waiter: asyncio.Future[None] | None = None
        self.transport.write(data)

    async def wait(self) -> None:
        """Until something came."""
        self.waiter = asyncio.get_running_loop().create_future()
        await self.waiter

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self.is_started = True

    def on_body(self, body: bytes) -> None:
        self.parts.append(body)

    def on_message_complete(self) -> None:
        self.is_over = True


def raw_client() -> Ask:
    """The floor."""
    idle: list[RawConnection] = []

    async def connected() -> RawConnection:
        if idle:
            return idle.pop()
        host, port = _host.split(":")
        loop = asyncio.get_running_loop()
        _, one = await loop.create_connection(RawConnection, host, int(port))
        return one

    async def ask(raw: bytes, headers: Headers, on_head: OnHead, on_part: OnPart) -> None:
        one = await connected()
        more = [(b"host", _host.encode()), (b"content-length", b"%d" % len(raw))]
        lines = b"".join(name + b": " + value + b"\r\n" for name, value in [*more, *headers])
        one.begin(b"POST " + PATH.encode() + b" HTTP/1.1\r\n" + lines + b"\r\n" + raw)
        while not one.is_started:
            await one.wait()
        await on_head(one.parser.get_status_code(), kept(one.headers))
        while one.parts or not one.is_over:
            if one.parts:
                parts, one.parts = one.parts, []
                await on_part(b"".join(parts))
            else:
                await one.wait()
        idle.append(one)

    return ask


CLIENTS: dict[str, Callable[[], Ask]] = {
    "none": none,
    "raw": raw_client,
    "httpx": lambda: httpx_like("httpx"),
    "httpx2": lambda: httpx_like("httpx2"),
    "httpcore": httpcore,
    "aiohttp": aiohttp,
    "niquests": niquests,
    "pyreqwest": pyreqwest,
    "pyqwest": pyqwest,
}


class AsgiApp:
    """The gateway as an ASGI app; the client is made inside the event loop."""

    def __init__(self, client: str) -> None:
        self._client, self._ask = client, None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while (await receive())["type"] != "lifespan.shutdown":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        self._ask = self._ask or CLIENTS[self._client]()
        message = await receive()
        raw = message["body"]
        while message["more_body"]:
            message = await receive()
            raw += message["body"]

        async def on_head(status: int, headers: Headers) -> None:
            await send({"type": "http.response.start", "status": status, "headers": headers})

        async def on_part(part: bytes, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": part, "more_body": more})

        await self._ask(raw, kept(scope["headers"]), on_head, on_part)
        await on_part(b"", False)


class RsgiApp:
    """The gateway in granian's own interface."""

    def __init__(self, client: str) -> None:
        self._client, self._ask = client, None

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        self._ask = self._ask or CLIENTS[self._client]()
        transport: Any = None

        async def on_head(status: int, headers: Headers) -> None:
            nonlocal transport
            transport = protocol.response_stream(status, text(headers))

        async def on_part(part: bytes) -> None:
            await transport.send_bytes(part)

        await self._ask(await protocol(), octets(scope.headers.items()), on_head, on_part)


def serve_uvicorn(loop: str, client: str, port: int) -> None:
    """uvicorn on httptools."""
    importlib.import_module("uvicorn").run(
        AsgiApp(client), host="127.0.0.1", port=port, log_config=None, access_log=False,
        loop=loop, http="httptools", ws="none", server_header=False, lifespan="on",
    )  # fmt: skip


def serve_granian(interface: str, client: str, port: int) -> None:
    """granian, one worker; it imports this file anew and finds what to serve by APP."""
    os.environ["APP"] = f"{interface} {client} {_host}"
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    constants = importlib.import_module("granian.constants")
    importlib.import_module("granian").Granian(
        "passthrough:app", address="127.0.0.1", port=port, workers=1, websockets=False,
        interface=constants.Interfaces(interface), loop=constants.Loops("uvloop"),
        log_access=False,
    ).serve()  # fmt: skip


def serve_aiohttp(client: str, port: int) -> None:
    """aiohttp's server on uvloop."""
    web = importlib.import_module("aiohttp.web")
    found: list[Ask] = []

    async def handle(request: Any) -> Any:
        if not found:
            found.append(CLIENTS[client]())
        response: Any = None

        async def on_head(status: int, headers: Headers) -> None:
            nonlocal response
            response = web.StreamResponse(status=status, headers=text(headers))
            response.enable_chunked_encoding()
            await response.prepare(request)

        async def on_part(part: bytes) -> None:
            await response.write(part)

        await found[0](await request.read(), kept(request.raw_headers), on_head, on_part)
        await response.write_eof()
        return response

    app = web.Application(client_max_size=2**26)
    app.router.add_post(PATH, handle)
    loop = importlib.import_module("uvloop").new_event_loop()
    web.run_app(app, host="127.0.0.1", port=port, access_log=None, print=None, loop=loop)


if "APP" in os.environ:
    _interface, _client, _host = os.environ["APP"].split(" ")
    app = AsgiApp(_client) if _interface == "asgi" else RsgiApp(_client)

if __name__ == "__main__":
    server, client_name = sys.argv[1:3]
    _host = f"127.0.0.1:{sys.argv[4]}"
    if server == "aiohttp":
        serve_aiohttp(client_name, int(sys.argv[3]))
    elif server.startswith("uvicorn"):
        serve_uvicorn(server.split("-")[1], client_name, int(sys.argv[3]))
    else:
        serve_granian(server.split("-")[1], client_name, int(sys.argv[3]))
