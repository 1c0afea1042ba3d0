"""Identifiers: valid UUIDs of version 7 that sort by time."""

from __future__ import annotations

import uuid

from hypothesis import given
from hypothesis import strategies as st

from ownweights.core.ids import new_id

LAST_MS = (1 << 48) - 1


@given(st.integers(0, LAST_MS))
def test_new_id_always_is_a_version_7_uuid_of_its_time(milliseconds: int) -> None:
    # halves keep the conversion to seconds and back away from rounding
    value = uuid.UUID(new_id((milliseconds + 0.5) / 1000))
    assert (value.version, value.variant) == (7, uuid.RFC_4122)
    assert abs((value.int >> 80) - milliseconds) <= 1


@given(st.integers(0, LAST_MS - 10), st.integers(2, 10))
def test_new_id_always_sorts_by_time(milliseconds: int, later: int) -> None:
    assert new_id(milliseconds / 1000) < new_id((milliseconds + later) / 1000)


def test_new_id_never_repeats_within_one_millisecond() -> None:
    assert len({new_id(1_700_000_000.0) for _ in range(2000)}) == 2000


def test_new_id_without_a_time_is_after_the_past() -> None:
    assert new_id() > new_id(1_600_000_000.0)
