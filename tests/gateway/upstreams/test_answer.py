"""Answers that come packed: what they hold, and when they are none."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from typing import Any

import pytest

from ownweights.gateway.upstreams import answer as module
from ownweights.gateway.upstreams.answer import decoded
from ownweights.teacher.asgi import HttpError

PLAIN = b'{"id": "1", "text": "' + bytes(range(97, 123)) * 40 + b'"}'


@dataclass(frozen=True, slots=True)
class Packed:
    """As much of a reply as is looked at."""

    coding: str


def unpack(content: bytes, coding: str = "gzip") -> bytes:
    reply: Any = Packed(coding)
    return decoded(reply, content)


@pytest.mark.parametrize("piece_bytes", [1, 7, 2**16])
@pytest.mark.parametrize("num_members", [1, 2, 7])
def test_decoded_many_members_are_one_answer(
    monkeypatch: pytest.MonkeyPatch, num_members: int, piece_bytes: int
) -> None:
    monkeypatch.setattr(module, "_PIECE_BYTES", piece_bytes)
    step = -(-len(PLAIN) // num_members)
    parts = [PLAIN[start : start + step] for start in range(0, len(PLAIN), step)]
    packed = b"".join(map(gzip.compress, parts))
    assert unpack(packed) == gzip.decompress(packed) == PLAIN
    assert unpack(packed + b"\0" * 9) == PLAIN  # padding is no member
    assert unpack(gzip.compress(b"") + packed) == PLAIN


def test_decoded_deflate_is_unpacked() -> None:
    assert unpack(zlib.compress(PLAIN), "deflate") == PLAIN
    assert unpack(PLAIN, "identity") == PLAIN


@pytest.mark.parametrize("kept", [0, 1, 9, 20, -8, -1])
@pytest.mark.parametrize("before", [b"", gzip.compress(b"{", mtime=0)])
def test_decoded_answer_that_is_cut_off_is_garbled(kept: int, before: bytes) -> None:
    packed = before + gzip.compress(PLAIN)[:kept]
    if before and kept < 2 and kept >= 0:
        assert unpack(packed) == b"{"  # nothing, or too little to be a member
        return
    with pytest.raises(HttpError, match="says it is gzip, but it is not"):
        unpack(packed)


@pytest.mark.parametrize("num_members", [1, 3])
def test_decoded_bomb_says_that_it_is_too_large(
    monkeypatch: pytest.MonkeyPatch, num_members: int
) -> None:
    monkeypatch.setattr(module, "MAX_ANSWER_BYTES", 9000)
    fits = [gzip.compress(b" " * (9000 // num_members))] * num_members
    assert unpack(b"".join(fits)) == b" " * 9000
    with pytest.raises(HttpError, match="unpacks to over 9000 bytes"):
        unpack(b"".join([*fits, gzip.compress(b" ")]))
    with pytest.raises(HttpError, match="unpacks to over 9000 bytes"):
        unpack(gzip.compress(b" " * 10_000_000))


def test_decoded_members_that_hold_nothing_end() -> None:
    empty = gzip.compress(b"")
    assert unpack(empty * 10_000) == b""
    with pytest.raises(HttpError, match="says it is gzip, but it is not"):
        unpack(empty * 10_001)


def test_decoded_other_coding_is_garbled() -> None:
    with pytest.raises(HttpError, match="was not asked for"):
        unpack(PLAIN, "br")
