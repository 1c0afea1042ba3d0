"""Which requests are the same kind of request."""

from __future__ import annotations

from typing import Any

import pytest

from ownweights.core.errors import InputError
from ownweights.traffic.workload import (
    check_workload_name,
    content_text,
    default_workload,
    system_texts,
    user_text,
    workload_hash,
)
from tests.traffic.samples import ask

TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"a": 1, "b": 2}}}]
REORDERED = [{"function": {"parameters": {"b": 2, "a": 1}, "name": "f"}, "type": "function"}]


def test_workload_hash_ignores_the_conversation() -> None:
    longer = ask("one")
    longer["messages"] += [
        {"role": "assistant", "content": "x"},
        {"role": "system", "content": "a reminder in mid-conversation"},
    ]
    hashes = {workload_hash(body) for body in (ask("one"), ask("two"), longer, ask(temperature=1))}
    assert len(hashes) == 1


def test_workload_hash_depends_on_each_fixed_part() -> None:
    other = ask()
    other["messages"][0] = {"role": "system", "content": "something else"}
    schema = {"type": "json_object"}
    bodies = [ask(), other, ask(tools=TOOLS), ask(response_format=schema), ask(functions=TOOLS)]
    assert len({workload_hash(body) for body in bodies}) == len(bodies)


def test_workload_hash_is_stable() -> None:
    assert workload_hash(ask()) == "526c4e1b4eec271b"


def test_workload_hash_takes_equal_spellings_for_one() -> None:
    parts = ask(tools=REORDERED)
    text = parts["messages"][0]["content"]
    parts["messages"][0] = {"role": "developer", "content": [{"type": "text", "text": text}]}
    assert workload_hash(parts) == workload_hash(ask(tools=TOOLS))
    assert workload_hash(ask(tools=[])) == workload_hash(ask()) == workload_hash(ask(tools=None))


def test_system_texts_end_where_the_conversation_starts() -> None:
    roles = ["system", "developer", "user", "system"]
    messages = [{"role": role, "content": role} for role in roles]
    assert system_texts({"messages": messages}) == ["system", "developer"]


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "a"),
        ([{"role": "user", "content": "a"}, {"role": "user", "content": "b"}], "b"),
        ([{"role": "user", "content": [{"text": "a"}, {"image_url": {}}, {"text": "b"}]}], "ab"),
        ([{"role": "assistant", "content": "b"}], ""),
        ([{"role": "user", "content": None}], ""),
        ([], ""),
    ],
)
def test_user_text_is_the_last_question(messages: list[Any], text: str) -> None:
    assert user_text({"messages": messages}) == text


@pytest.mark.parametrize("content", [None, 3, [None], [3], [{"text": 3}], {}])
def test_content_text_of_what_is_no_text_is_empty(content: Any) -> None:
    assert content_text(content) == ""


@pytest.mark.parametrize("name", ["tickets", "T.1_x-y", "0", "a" * 64])
def test_check_workload_name_takes_what_can_be_a_file_name(name: str) -> None:
    assert check_workload_name(name) == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "a b", "-a", "a" * 65, "a\n", "é", None, 3, "a'; DROP"]
)
def test_check_workload_name_refuses_the_rest(name: Any) -> None:
    with pytest.raises(InputError, match="cannot name a workload") as caught:
        check_workload_name(name)
    assert "up to 64 letters" in str(caught.value.hint)


def test_default_workload_can_name_a_workload() -> None:
    name = default_workload(workload_hash(ask()))
    assert check_workload_name(name) == name == "auto-526c4e1b"
