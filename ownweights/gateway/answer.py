"""Read a teacher's answer whole, and see that it is one.

In: an answer whose head has come. Out: its bytes, or the completion they spell, or an HttpError
that says what was wrong with it. Invariants: nothing but HttpError leaves
(test_forward_garbage_is_502); an answer has a largest size, packed or not
(test_forward_endless_answer_is_cut, test_forward_bomb_is_not_unpacked).
"""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from collections.abc import Iterator
from typing import Any

import httpx
import msgspec

from ownweights.core.errors import CompleterGarbled
from ownweights.teacher.asgi import HttpError
from ownweights.teacher.wire import parse_completion

MAX_ANSWER_BYTES = 64 * 2**20


def garbled(what: str) -> HttpError:
    """What the caller gets for an answer that is none."""
    return HttpError(502, what, code="teacher_garbled", kind="upstream_error")


@contextlib.contextmanager
def as_http_errors() -> Iterator[None]:
    """Say what the connection to the teacher did, in an error the caller can read."""
    try:
        yield
    except (httpx.TimeoutException, TimeoutError):
        what, code = "the teacher did not answer in time", "teacher_timeout"
        raise HttpError(504, what, code=code, kind="upstream_error") from None
    except httpx.LocalProtocolError:
        what = "one of the request's headers cannot be passed on"
        raise HttpError(400, what, code="invalid_header") from None
    except httpx.RemoteProtocolError:
        raise garbled("the teacher's answer broke off or is not HTTP") from None
    except (httpx.HTTPError, httpx.InvalidURL, OSError):
        what, code = "the teacher cannot be reached", "teacher_unreachable"
        raise HttpError(502, what, code=code, kind="upstream_error") from None


_WINDOW_BITS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


async def read_whole(response: httpx.Response, left_s: float) -> bytes:
    """The rest of an answer, within the time that is left for it."""
    parts: list[bytes] = []
    size = 0
    with as_http_errors():
        async with asyncio.timeout(left_s):
            async for part in response.aiter_raw():
                parts.append(part)
                size += len(part)
                if size > MAX_ANSWER_BYTES:
                    raise garbled(f"the teacher's answer is longer than {MAX_ANSWER_BYTES} bytes")
    return b"".join(parts)


def whole_answer(content: bytes) -> dict[str, Any]:
    """The decoded answer; HttpError 502 when a success carries no completion."""
    try:
        body = msgspec.json.decode(content)
        parse_completion(body)
    except (ValueError, RecursionError, CompleterGarbled):
        what = "the teacher said 200, but its answer is not a chat completion"
        raise garbled(what) from None
    return body


def decoded(response: httpx.Response, content: bytes) -> bytes:
    """The content as it was before it was packed; HttpError 502 when it cannot be unpacked."""
    coding = coding_of(response)
    if coding == "identity":
        return content
    try:
        if coding in _WINDOW_BITS:
            return _inflate(content, _WINDOW_BITS[coding])
    except (ValueError, zlib.error):
        raise garbled(f"the teacher's answer says it is {coding}, but it is not") from None
    raise garbled("the teacher's answer has a content-encoding that was not asked for")


def coding_of(response: httpx.Response) -> str:
    """How an answer is packed."""
    return response.headers.get("content-encoding", "").strip().lower() or "identity"


def _inflate(content: bytes, wbits: int) -> bytes:
    inflater = zlib.decompressobj(wbits)
    plain = inflater.decompress(content, MAX_ANSWER_BYTES)
    if not inflater.eof:
        raise ValueError("the compressed answer is cut off or too long")
    return plain
