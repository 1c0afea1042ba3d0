"""What can be read off a record."""

from __future__ import annotations

from typing import Any

import pytest

from ownweights.traffic.record import make_record, status_of
from tests.traffic.samples import answer, ask, make


def test_make_record_fills_in_what_can_be_derived() -> None:
    record = make_record(ask(), answer(), role="student", at=1_700_000_000.5)
    assert record.id.startswith("018bcfe5-69f4-7")  # the milliseconds of `at`
    assert (record.status, record.model, record.metadata) == ("ok", "big-1", {})
    assert record.workload == f"auto-{record.prompt_hash[:8]}"
    assert make_record(ask(), None, role="teacher").model == "big"


@pytest.mark.parametrize(
    ("response", "status"),
    [
        (answer(), "ok"),
        (answer(None, finish_reason="tool_calls"), "ok"),
        (answer(finish_reason="length"), "partial"),
        (answer(finish_reason="content_filter"), "partial"),
        (None, "error"),
        ({"error": {"message": "no"}}, "error"),
        ({"choices": []}, "error"),
        ({"choices": "x"}, "error"),
        ({"choices": ["x"]}, "error"),
        ({"choices": [{"message": "x", "finish_reason": "stop"}]}, "error"),
    ],
)
def test_status_of_follows_the_answer(response: Any, status: str) -> None:
    assert status_of(response) == status


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("hi", "hi"),
        ("", ""),
        (None, None),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "ab"),
        ([{"type": "refusal", "refusal": "no"}], ""),
        (7, None),
        ({"a": 1}, None),
        ([1, None], None),
    ],
)
def test_answer_text_is_none_without_content_of_a_known_kind(
    content: Any, text: str | None
) -> None:
    record = make_record(ask(), answer(content), role="teacher")
    assert record.answer_text == text


def test_record_without_an_answer_has_no_text_and_no_reason() -> None:
    record = make_record(ask(), {"choices": [{"message": None}]}, role="teacher")
    assert (record.answer_text, record.finish_reason, dict(record.message)) == (None, None, {})


@pytest.mark.parametrize(
    ("created", "role", "expected"),
    [
        (1_700_000_000, "imported", 1_700_000_000.0),
        (None, "imported", None),
        (0, "imported", None),
        ("soon", "teacher", 5.0),
        (True, "teacher", 5.0),
        (10**400, "teacher", 5.0),
        (253_402_300_800, "imported", None),
        (None, "teacher", 5.0),
    ],
)
def test_answered_at_is_what_somebody_knows(
    created: Any, role: Any, expected: float | None
) -> None:
    response = {**answer(), "created": created}
    assert make_record(ask(), response, role=role, at=5.0).answered_at == expected


def test_record_ids_sort_by_time() -> None:
    ids = [make(at=at).id for at in (1.0, 2.0, 3.0)]
    assert ids == sorted(ids)
    assert make(at=1.0).id != ids[0]
