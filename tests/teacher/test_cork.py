"""What is written in one turn of the event loop leaves in one piece."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from ownweights.teacher.cork import MOST_HELD_BYTES, Cork


class Wire:
    """A transport that keeps what is done to it."""

    def __init__(self) -> None:
        self.done: list[bytes | str] = []
        self.is_over = False
        self.pause_reading = self.resume_reading = lambda: None
        self.get_extra_info = lambda name: name

    def write(self, data: bytes) -> None:
        self.done.append(data)

    def close(self) -> None:
        self.done.append("close")

    def abort(self) -> None:
        self.done.append("abort")

    def write_eof(self) -> None:
        self.done.append("eof")

    def is_closing(self) -> bool:
        return self.is_over

    def get_write_buffer_size(self) -> int:
        return 7


def played(act: Callable[[Cork, Wire], Any]) -> list[bytes | str]:
    """What reached the wire, one turn of the loop after something was done to its cork."""

    async def play() -> list[bytes | str]:
        wire = Wire()
        act(Cork(cast("asyncio.Transport", wire)), wire)
        await asyncio.sleep(0)
        return wire.done

    return asyncio.run(play())


def test_cork_gathers_a_turn() -> None:
    def act(cork: Cork, wire: Wire) -> None:
        for part in (b"head ", b"", b"body"):
            cork.write(part)
        assert not wire.done

    assert played(act) == [b"head body"]


@pytest.mark.parametrize(("end", "told"), [("close", "close"), ("write_eof", "eof")])
def test_cork_keeps_order_and_end(end: str, told: str) -> None:
    def act(cork: Cork, wire: Wire) -> None:
        cork.write(b"a")
        cork.write(b"b")
        getattr(cork, end)()

    assert played(act) == [b"ab", told]


def test_cork_drops_what_nobody_takes() -> None:
    def act(cork: Cork, wire: Wire) -> None:
        cork.write(b"a")
        cork.abort()

    def lost(cork: Cork, wire: Wire) -> None:
        cork.write(b"a")
        wire.is_over = True

    assert played(act) == ["abort"]
    assert played(lost) == []


def test_cork_holds_little() -> None:
    large = b"x" * MOST_HELD_BYTES

    def act(cork: Cork, wire: Wire) -> None:
        cork.write(b"a")
        cork.write(large)
        assert wire.done == [b"a" + large]
        cork.write(b"b")

    assert played(act) == [b"a" + large, b"b"]


def test_cork_counts_what_it_holds() -> None:
    def act(cork: Cork, wire: Wire) -> None:
        cork.write(b"abc")
        assert cork.get_write_buffer_size() == 7 + 3
        cork.flush()
        assert cork.get_write_buffer_size() == 7

    assert played(act) == [b"abc"]


def test_cork_is_its_transport_otherwise() -> None:
    def act(cork: Cork, wire: Wire) -> None:
        assert cork.get_extra_info("peername") == "peername"
        assert cork.done is wire.done

    played(act)
