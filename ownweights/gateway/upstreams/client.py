"""The one HTTP client through which the gateway speaks to teachers.

In: a request in bytes. Out: a `Reply` whose head has come and whose body is read as it comes, still
packed as it was sent. Nothing is added to a request but `host` and its length, nothing is unpacked,
followed or retried here. Invariants: what goes wrong on the way is an HttpError in words that a
caller can read (test_forward_teacher_down_is_502); a connection whose answer was not read to its
end is never used again (test_forward_after_a_half_read_answer_uses_a_new_connection); a head that
our server cannot say to a caller is an error (test_gateway_teachers_headers_break_nothing).
Which library, and what the others measured: docs/design/0004-gateway-libraries.md.
"""

from __future__ import annotations

import functools
import io
import re
from dataclasses import dataclass

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from ownweights.teacher.asgi import Headers, HttpError

MAX_HEAD_BYTES = 64 * 2**10  # of one line of an answer's head
KEEPALIVE_S = 30.0
LARGE_BODY_BYTES = 2**19
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110, section 5.6.2
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_ADDED_BY_CLIENTS = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")


@dataclass(frozen=True, slots=True)
class Call:
    """One request to an upstream, ready to be sent; a GET where there is no content."""

    url: str
    headers: Headers
    content: bytes | None = None


class Unreachable(HttpError):
    """The upstream could not be reached, or left before it said anything: another may be asked."""


class Reply:
    """An answer whose head has come."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status
        self.headers: Headers = [(name.lower(), value) for name, value in response.raw_headers]

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300

    def can_be_passed_on(self) -> bool:
        """Whether our server can say this head to a caller."""
        is_token = all(_is_token(name) for name, _ in self.headers)
        values = b"".join([value for _, value in self.headers])
        return 200 <= self.status < 600 and is_token and not _CONTROL.search(values)

    def header(self, name: bytes) -> str:
        """One header as text; empty where there is none."""
        return next((v.decode("latin-1") for k, v in self.headers if k == name), "")

    @property
    def coding(self) -> str:
        """How the body is packed."""
        return self.header(b"content-encoding").strip().lower() or "identity"

    async def part(self) -> bytes:
        """The next of the body, as it comes, empty at its end; HttpError where it breaks off."""
        with as_http_errors:
            return await self._response.content.readany()

    def rest(self) -> bytes | None:
        """All of the body that is not read yet, where it has come to its end."""
        content = self._response.content
        if not content.is_eof():
            return None
        with as_http_errors:
            return content.read_nowait()

    def close(self) -> None:
        """Let go of the connection; kept for the next request if it was read to its end."""
        if self._response.content.at_eof():
            self._response.release()
        else:
            self._response.close()


@functools.lru_cache(4096)
def _is_token(name: bytes) -> bool:
    return _TOKEN.fullmatch(name) is not None


class Client:
    """Keeps connections open between requests. Made inside the event loop it is used in."""

    def __init__(self, *, connect_timeout_s: float) -> None:
        connector = aiohttp.TCPConnector(
            limit=0, keepalive_timeout=KEEPALIVE_S, ttl_dns_cache=10, use_dns_cache=True
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout_s),
            auto_decompress=False,
            skip_auto_headers=_ADDED_BY_CLIENTS,
            max_line_size=MAX_HEAD_BYTES,
            max_field_size=MAX_HEAD_BYTES,
        )

    async def send(self, call: Call) -> Reply:
        """The head of the answer.

        Raises: HttpError, Unreachable where nothing was said
        """
        with as_http_errors:
            response = await self._session.request(
                "GET" if call.content is None else "POST",
                URL(call.url, encoded=True),
                headers=_as_text(call.headers),
                data=_as_data(call.content),
                allow_redirects=False,
            )
        reply = Reply(response)
        if not reply.can_be_passed_on():
            reply.close()
            raise garbled("the teacher's answer has a status or a header that is not HTTP")
        return reply

    async def close(self) -> None:
        """Let go of every connection."""
        await self._session.close()


class _AsHttpErrors:
    """Says what the connection to a teacher did, in an error the caller can read."""

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            return
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            raise _unreachable() from None
        if isinstance(error, TimeoutError):
            raise timed_out() from None
        if isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError):
            raise _lost(error) from None
        if isinstance(error, aiohttp.ClientPayloadError | aiohttp.ClientResponseError):
            raise garbled("the teacher's answer broke off or is not HTTP") from None
        if isinstance(error, aiohttp.ClientError | OSError | ValueError):
            raise _unreachable() from None


as_http_errors = _AsHttpErrors()


def timed_out() -> HttpError:
    """What the caller gets where the teacher is too slow."""
    what, code = "the teacher did not answer in time", "teacher_timeout"
    return HttpError(504, what, code=code, kind="upstream_error")


def garbled(what: str) -> HttpError:
    """What the caller gets for an answer that is none."""
    return HttpError(502, what, code="teacher_garbled", kind="upstream_error")


def _unreachable() -> Unreachable:
    what, code = "the teacher cannot be reached", "teacher_unreachable"
    return Unreachable(502, what, code=code, kind="upstream_error")


def _lost(error: Exception) -> HttpError:
    if isinstance(error, aiohttp.ClientConnectorError):
        return _unreachable()
    what = "the teacher's answer broke off or is not HTTP"
    return Unreachable(502, what, code="teacher_garbled", kind="upstream_error")


def _as_data(content: bytes | None) -> bytes | io.BytesIO | None:
    """A body as the client takes it: a large one as a file, so that it leaves in pieces."""
    return io.BytesIO(content) if content and len(content) > LARGE_BODY_BYTES else content


def _as_text(headers: Headers) -> CIMultiDict[str]:
    """Headers as the client takes them; HttpError 400 for what it cannot write as it came."""
    try:
        return CIMultiDict((name.decode("ascii"), value.decode()) for name, value in headers)
    except UnicodeDecodeError:
        what = "one of the request's headers cannot be passed on: it is not UTF-8 text"
        raise HttpError(400, what, code="invalid_header") from None
