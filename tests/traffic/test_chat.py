"""What is a chat, and what is not: every odd body has a name, and none raises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from ownweights.core.project import Project
from ownweights.traffic import TrafficStore, import_file
from ownweights.traffic.chat import answer_fault, messages_fault, request_fault
from ownweights.traffic.exporter import export_file
from tests.core.test_jsonl import JSON_VALUES
from tests.traffic.odd import VALUES, odd_records
from tests.traffic.samples import answer, ask

REASONS = {"bad_messages", "wrong_roles", "no_answer", "empty_answer"}


@given(value=JSON_VALUES)
def test_faults_are_named_and_never_raised(value: Any) -> None:
    bodies = [value, [value], [{"role": "user", "content": value}], {"choices": value},
              {"choices": [value]}, {"choices": [{"message": value}]}, answer(value)]  # fmt: skip
    for body in bodies:
        faults = [messages_fault(body), request_fault(body), answer_fault(body)]
        assert {fault.reason for fault in faults if fault is not None} <= REASONS


def test_a_chat_has_no_fault() -> None:
    assert request_fault(ask()["messages"]) is None
    assert answer_fault(answer()) is None


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({"content": [{"type": "text", "text": ""}]}, "empty_answer"),
        ({"content": [{"type": "text", "text": " \n"}, {"text": ""}]}, "empty_answer"),
        ({"content": [{"type": "text", "text": None}]}, "empty_answer"),
        ({"content": [{}]}, "empty_answer"),
        ({"content": [{"type": "text", "text": ""}], "refusal": "no"}, None),
        ({"content": [{"type": "text", "text": "a"}]}, None),
        ({"content": [{"type": "refusal", "refusal": "no"}]}, None),
        ({"content": "a", "role": "user"}, "wrong_roles"),
        ({"content": {"a": 1}}, "bad_messages"),
    ],
)
def test_answer_fault_is(message: dict[str, Any], reason: str | None) -> None:
    fault = answer_fault({"choices": [{"message": message}]})
    assert (fault.reason if fault else None) == reason


def test_store_keeps_every_odd_body(store: TrafficStore) -> None:
    records = odd_records()
    assert len(records) > 40 * len(VALUES)
    assert store.add(records) == (len(records), 0)
    assert list(store.records()) == records
    assert store.verify().is_sound


def test_export_openai_leaves_out_what_an_import_would_skip(tmp_path: Path) -> None:
    count = export_file(odd_records(), tmp_path / "x.jsonl", "openai")
    with TrafficStore.open(Project(tmp_path / "p")) as store:
        report = import_file(tmp_path / "x.jsonl", store)
    assert (report.added, report.skipped) == (count, {})
    assert 200 < count < len(odd_records())
