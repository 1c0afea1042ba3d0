"""Server-sent events, cut anywhere."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownweights.teacher.sse import EventCutter, SseDecoder, decode_events, event_data

STREAM = (
    b": a comment\n\n"
    b'data: {"a": 1}\n\n'
    b"event: note\r\ndata: line one\r\ndata: line two\r\n\r\n"
    b"data:no space\n\n"
    b"id: 7\n\n"
    b"data: [DONE]\n\n"
)
EVENTS = [b'{"a": 1}', b"line one\nline two", b"no space", b"[DONE]"]


def test_event_data_reads_each_event() -> None:
    assert event_data(STREAM) == EVENTS


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_sse_any_split_same_events(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    decoder = SseDecoder()
    found: list[bytes] = []
    for start, end in itertools.pairwise(edges):
        found += decoder.feed(STREAM[start:end])
    assert found == EVENTS
    assert decoder.tail == b""


def test_sse_decoder_keeps_an_unfinished_event_back() -> None:
    decoder = SseDecoder()
    assert decoder.feed(b"data: a\n\ndata: b\n") == [b"a"]
    assert decoder.tail == b"data: b\n"
    assert decoder.feed(b"\n") == [b"b"]


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r"])
def test_cutter_knows_every_line_end(end: bytes) -> None:
    cutter = EventCutter()
    assert cutter.feed(b"data: x" + end + b"data: y") == b"data: x" + end
    assert cutter.tail == b"data: y"
    assert cutter.feed(end[:-1]) == b""
    assert cutter.feed(end[-1:] + b"d") == b"data: y" + end
    assert cutter.tail == b"d"


def test_cutter_without_an_end_keeps_everything() -> None:
    cutter = EventCutter()
    assert cutter.feed(b"data: x\n") == b""
    assert cutter.tail == b"data: x\n"


def test_decode_events_leaves_out_what_is_not_json() -> None:
    events, is_done = decode_events([b'{"a": 1}', b"{half", b"\xff", b"[" * 200_000, b"[DONE]"])
    assert events == [{"a": 1}]
    assert is_done


def test_decode_events_without_done_says_so() -> None:
    assert decode_events([b"1"]) == ([1], False)
