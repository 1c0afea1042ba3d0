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


class SseDecoder:
    """Collects events; `tail` holds the bytes of one that has not ended yet."""

    def __init__(self) -> None:
        self.tail = b""

    def feed(self, chunk: bytes) -> list[bytes]:
        """The data of every event that `chunk` completes."""
        whole, self.tail = split_events(self.tail + chunk)
        return event_data(whole)


def split_events(buffer: bytes) -> tuple[bytes, bytes]:
    """`buffer` cut after its last whole event: (whole events, the rest)."""
    marks = (b"\n\n", b"\r\n\r\n", b"\r\r")
    ends = (buffer.rfind(mark) + len(mark) for mark in marks if mark in buffer)
    cut = max(ends, default=0)
    return buffer[:cut], buffer[cut:]


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
