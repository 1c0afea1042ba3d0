"""Records, masked: what of them is searched, and what stays as it was."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownweights.core.project import Project
from ownweights.traffic.record import Record, make_record
from ownweights.traffic.redact import PATTERN_KINDS, Placeholders, Redactor

MAIL, PHONE, CARD = "Ana.Diaz@example.org", "+44 20 7946 0958", "4111 1111 1111 1111"
IBAN, KEY, IP = "GB82 WEST 1234 5698 7654 32", "sk-proj-a1b2c3d4e5f6g7h8i9j0", "203.0.113.77"
ALL_OF_THEM = (MAIL, PHONE, CARD, IBAN, KEY, IP, "078-05-1120")


@pytest.fixture
def redactor(project: Project) -> Redactor:
    return Redactor(PATTERN_KINDS, Placeholders(project))


def ask(content: Any, answer: Any = "fine", **fields: Any) -> Record:
    """A record of one question and its answer."""
    request = {"model": "m", "messages": [{"role": "user", "content": content}], **fields}
    message = answer if isinstance(answer, dict) else {"role": "assistant", "content": answer}
    response = {"id": "chatcmpl-1", "choices": [{"index": 0, "message": message}]}
    return make_record(request, response, role="teacher", metadata=fields.get("metadata"))


def written(record: Record) -> str:
    """All of a record that is written down."""
    parts = [record.request, record.response, record.metadata, record.session, record.end_user,
             record.source_id]  # fmt: skip
    return json.dumps(parts, ensure_ascii=False)


@pytest.mark.parametrize("value", ALL_OF_THEM)
def test_redact_masks_a_value_wherever_it_stands(redactor: Redactor, value: str) -> None:
    parts = [{"type": "text", "text": f"it is {value}."}]
    arguments = json.dumps({"told": f"line\n{value}", value: 1})
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    answer = {"role": "assistant", "content": f"I wrote {value}", "tool_calls": [call]}
    tools = [{"type": "function", "function": {"name": "f", "description": f"not for {value}"}}]
    masked = redactor.record(
        ask(parts, answer, tools=tools, user=value, metadata={"who": value, "n": [value]})
    )
    assert value not in written(masked)
    assert len(set(PLACEHOLDERS(written(masked)))) == 1
    assert json.loads(masked.message["tool_calls"][0]["function"]["arguments"])


def PLACEHOLDERS(text: str) -> list[str]:
    from ownweights.traffic.redact.placeholder import PLACEHOLDER

    return PLACEHOLDER.findall(text)


def test_redact_gives_back_the_same_object_where_nothing_is_found(redactor: Redactor) -> None:
    record = ask("What is 2 + 2?", "4", temperature=0.5)
    assert redactor.record(record) is record


@given(
    st.lists(
        st.one_of(
            st.text(max_size=12),
            st.sampled_from(
                [*ALL_OF_THEM, "call ", "password: ", "<", ">", "\0", "\\n", "@", "://"]
            ),
        )
    )
)
def test_redact_twice_changes_nothing(tmp_path_factory: Any, pieces: list[str]) -> None:
    project = Project(tmp_path_factory.getbasetemp() / "twice")
    redactor = Redactor(PATTERN_KINDS, Placeholders(project))
    once = redactor.texts(pieces)
    assert len(once) == len(pieces)
    assert redactor.texts(once) == once
    whole = redactor.texts(["".join(pieces)])
    assert redactor.texts(whole) == whole
