"""What is written to a connection in one turn of the event loop leaves in one piece.

In: writes. Out: one write at the end of the turn: a head and its body, or events that came
together, cost one system call instead of several. Invariants: bytes leave in the order they were
written, before the end of the connection (test_cork_keeps_order_and_end); nothing large is held
(test_cork_holds_little); what is held is counted among what is unread
(test_cork_counts_what_it_holds).
"""

from __future__ import annotations

import asyncio
from typing import Any

MOST_HELD_BYTES = 64 * 2**10


class Cork:
    """A transport that gathers what is written to it; for the rest it is the one it was given."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._call_soon = asyncio.get_running_loop().call_soon
        self._held: list[bytes] = []
        self._held_bytes = 0
        # these are asked with every request
        self.is_closing, self.get_extra_info = transport.is_closing, transport.get_extra_info
        self.pause_reading, self.resume_reading = transport.pause_reading, transport.resume_reading

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Write at the end of this turn."""
        if not data:
            return
        if not self._held:
            self._call_soon(self.flush)
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes > MOST_HELD_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what is held."""
        if self._held:
            data = self._held[0] if len(self._held) == 1 else b"".join(self._held)
            self._held.clear()
            self._held_bytes = 0
            if not self._transport.is_closing():
                self._transport.write(data)

    def get_write_buffer_size(self) -> int:
        """How many bytes the other side has not taken."""
        return self._transport.get_write_buffer_size() + self._held_bytes

    def write_eof(self) -> None:
        """Write what is held, then that nothing more comes."""
        self.flush()
        self._transport.write_eof()

    def close(self) -> None:
        """Write what is held, and end the connection once it is read."""
        self.flush()
        self._transport.close()

    def abort(self) -> None:
        """End the connection at once."""
        self._held.clear()
        self._held_bytes = 0
        self._transport.abort()
