"""Server-sent events, cut from bytes as they arrive.

In: byte chunks, split anywhere. Out: the `data` of each whole event. Invariant: any split of the
same bytes gives the same events (test_sse_any_split_same_events).
Source: WHATWG HTML, "Server-sent events": lines end in LF, CR or CRLF, an empty line ends an event.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

DONE = b"[DONE]"


_ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")
_LONGEST_END = 4


class EventCutter:
    """Cuts bytes after whole events; each byte is searched once, however long an event is."""

    def __init__(self) -> None:
        self._held = bytearray()

    @property
    def tail(self) -> bytes:
        """The bytes of an event that has not ended yet."""
        return bytes(self._held)

    def feed(self, chunk: bytes) -> bytes:
        """The events that `chunk` completes, as they came; empty while there is none."""
        if not self._held and chunk.endswith(_ENDS):
            return chunk
        start = max(0, len(self._held) - _LONGEST_END + 1)  # an end may lie across two chunks
        self._held += chunk
        found = ((self._held.rfind(end, start), len(end)) for end in _ENDS)
        cut = max((place + size for place, size in found if place >= 0), default=0)
        whole = bytes(self._held[:cut])
        del self._held[:cut]
        return whole


class SseDecoder:
    """Collects events; `tail` holds the bytes of one that has not ended yet."""

    def __init__(self) -> None:
        self._cutter = EventCutter()

    @property
    def tail(self) -> bytes:
        return self._cutter.tail

    def feed(self, chunk: bytes) -> list[bytes]:
        """The data of every event that `chunk` completes."""
        return event_data(self._cutter.feed(chunk))


def event_data(whole: bytes) -> list[bytes]:
    """The data of each event in `whole`, which ends with an event; comments are left out."""
    lines = whole.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    found: list[bytes] = []
    data: list[bytes] = []
    for line in lines:
        if not line:
            if data:
                found.append(b"\n".join(data))
            data = []
        elif line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" "))
    return found


def decode_events(payloads: Iterable[bytes]) -> tuple[list[Any], bool]:
    """The JSON of each payload that is JSON, and whether [DONE] was among them."""
    events: list[Any] = []
    is_done = False
    for payload in payloads:
        if payload == DONE:
            is_done = True
            continue
        try:
            events.append(msgspec.json.decode(payload))
        except (ValueError, RecursionError):
            continue
    return events, is_done
