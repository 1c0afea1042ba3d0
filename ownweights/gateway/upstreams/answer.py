"""Read a teacher's answer whole, and see that it is one.

In: an answer whose head has come. Out: its bytes, or the body they spell, or an HttpError that says
what was wrong with it. Invariants: nothing but HttpError leaves (test_forward_garbage_is_502); an
answer has a largest size, packed or not (test_forward_endless_answer_is_cut,
test_forward_bomb_is_not_unpacked, test_decoded_many_members_are_one_answer).
"""

from __future__ import annotations

import asyncio
import zlib
from typing import Any

import msgspec

from ownweights.gateway.protocols import Protocol
from ownweights.gateway.upstreams.client import Reply, as_http_errors, garbled
from ownweights.teacher.asgi import HttpError

MAX_ANSWER_BYTES = 64 * 2**20
_GZIP_MAGIC = b"\x1f\x8b"
_MAX_MEMBERS = 10_000  # of which each takes its time, however little it holds
_PIECE_BYTES = 2**16
_WINDOW_BITS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


async def read_whole(reply: Reply, left_s: float) -> bytes:
    """The rest of an answer, within the time that is left for it."""
    if (rest := reply.rest()) is not None:
        if len(rest) > MAX_ANSWER_BYTES:
            raise _too_long()
        return rest
    parts: list[bytes] = []
    size = 0
    with as_http_errors:
        async with asyncio.timeout(left_s):
            while part := await reply.part():
                parts.append(part)
                size += len(part)
                if size > MAX_ANSWER_BYTES:
                    raise _too_long()
    return b"".join(parts)


def _too_long() -> HttpError:
    return garbled(f"the teacher's answer is longer than {MAX_ANSWER_BYTES} bytes")


def whole_answer(content: bytes, protocol: Protocol) -> dict[str, Any] | None:
    """The decoded answer; None where it is no JSON object and need not be.

    Raises: HttpError 502 where a success does not carry what the protocol promises
    """
    body: Any = None
    try:
        body = msgspec.json.decode(content)
    except (ValueError, RecursionError):
        is_answer = protocol.check is None
    else:
        is_answer = protocol.is_answer(body)
    if not is_answer:
        raise garbled("the teacher said 200, but its answer is not a chat completion")
    return body if isinstance(body, dict) else None


def decoded(reply: Reply, content: bytes) -> bytes:
    """The content as it was before it was packed; HttpError 502 when it cannot be unpacked."""
    if reply.coding == "identity":
        return content
    try:
        if reply.coding in _WINDOW_BITS:
            return _inflate(content, _WINDOW_BITS[reply.coding])
    except (ValueError, zlib.error):
        raise garbled(f"the teacher's answer says it is {reply.coding}, but it is not") from None
    raise garbled("the teacher's answer has a content-encoding that was not asked for")


def _inflate(content: bytes, wbits: int) -> bytes:
    """What a packed answer holds. gzip may come in several members, one after the other (RFC 1952,
    section 2.2), and together they have the largest size of an answer."""
    plain, at = bytearray(), 0
    for _ in range(_MAX_MEMBERS):
        inflater = zlib.decompressobj(wbits)
        while not inflater.eof:
            piece = content[at : at + _PIECE_BYTES]
            if not piece:
                raise ValueError("the packed answer is cut off")
            plain += inflater.decompress(piece, MAX_ANSWER_BYTES + 1 - len(plain))
            if len(plain) > MAX_ANSWER_BYTES:
                raise garbled(f"the teacher's answer unpacks to over {MAX_ANSWER_BYTES} bytes")
            at += len(piece)
        at -= len(inflater.unused_data)
        if not content.startswith(_GZIP_MAGIC, at):
            return bytes(plain)
    raise ValueError("the packed answer has too many members")
