"""Each row of the tables is what happens to that field, wherever in a request it stands."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from ownweights.core.errors import Inexpressible
from ownweights.teacher.dialect import Translation, chat_request, messages_request
from ownweights.teacher.dialect.chat_fields import CHAT
from ownweights.teacher.dialect.fields import Field, Table
from ownweights.teacher.dialect.messages_fields import MESSAGES
from tests.teacher.dialect.oracles import check_chat_request, check_messages_request
from tests.teacher.dialect.worlds import Json

# requests that hold an object of every kind; the path to each kind follows
PDF = "data:application/pdf;base64,AAAA"
FULL_CHAT: Json = {
    "model": "m",
    "max_completion_tokens": 9,
    "stream_options": {"include_usage": True},
    "stream": True,
    "metadata": {"workload": "w"},
    "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}},
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
    "messages": [
        {"role": "system", "content": "s"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "t"},
                {"type": "image_url", "image_url": {"url": "https://x.test"}},
                {"type": "file", "file": {"file_data": PDF}},
            ],
        },
        {
            "role": "assistant",
            "content": "a",
            "tool_calls": [
                {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
            ],
        },
        {"role": "tool", "tool_call_id": "c", "content": "r"},
    ],
}
CHAT_PATHS = {
    "request": "",
    "stream_options": "stream_options",
    "metadata": "metadata",
    "system message": "messages[0]",
    "user message": "messages[1]",
    "assistant message": "messages[2]",
    "tool message": "messages[3]",
    "text part": "messages[1].content[0]",
    "image_url part": "messages[1].content[1]",
    "image_url": "messages[1].content[1].image_url",
    "file part": "messages[1].content[2]",
    "file": "messages[1].content[2].file",
    "tool call": "messages[2].tool_calls[0]",
    "called function": "messages[2].tool_calls[0].function",
    "tool": "tools[0]",
    "function": "tools[0].function",
    "named tool": "tool_choice",
    "chosen function": "tool_choice.function",
    "json_schema format": "response_format",
    "json_schema": "response_format.json_schema",
}
IMAGE: Json = {"type": "base64", "media_type": "image/png", "data": "AAAA"}
FULL_MESSAGES: Json = {
    "model": "m",
    "max_tokens": 9,
    "metadata": {"user_id": "u"},
    "tool_choice": {"type": "tool", "name": "f"},
    "tools": [{"name": "f", "input_schema": {"type": "object"}}],
    "output_config": {"format": {"type": "json_schema", "schema": {}}},
    "thinking": {"type": "disabled"},
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "t"},
                {"type": "image", "source": IMAGE},
                {"type": "image", "source": {"type": "url", "url": "https://x.test"}},
                {
                    "type": "document",
                    "source": {"type": "base64", "media_type": "application/pdf", "data": "A"},
                },
            ],
        },
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "c", "name": "f", "input": {}}],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c"}]},
    ],
}
MESSAGES_PATHS = {
    "request": "",
    "message": "messages[0]",
    "metadata": "metadata",
    "text block": "messages[0].content[0]",
    "image block": "messages[0].content[1]",
    "base64 source": "messages[0].content[1].source",
    "url source": "messages[0].content[2].source",
    "document block": "messages[0].content[3]",
    "tool_use block": "messages[1].content[0]",
    "tool_result block": "messages[2].content[0]",
    "tool": "tools[0]",
    "tool_choice": "tool_choice",
    "output_config": "output_config",
    "json_schema format": "output_config.format",
    "disabled thinking": "thinking",
}
Translate = Callable[[Any], Translation]
TABLES: list[tuple[Translate, Json, Table, dict[str, str]]] = [
    (messages_request, FULL_CHAT, CHAT, CHAT_PATHS),
    (chat_request, FULL_MESSAGES, MESSAGES, MESSAGES_PATHS),
]


def rows(verdict: str) -> list[Any]:
    """Each row of both tables with this verdict, and where it stands."""
    return [
        pytest.param(translate, body, path, field, id=f"{translate.__name__}: {kind}.{field.name}")
        for translate, body, table, paths in TABLES
        for kind, path in paths.items()
        for field in table[kind].fields.values()
        if field.verdict == verdict
    ]


def with_field(body: Json, path: str, name: str, value: Any) -> Json:
    """The request with one field set."""
    found = copy.deepcopy(body)
    place: Any = found
    for step in path.replace("[", ".").replace("]", "").split(".") if path else ():
        place = place[int(step) if step.isdigit() else step]
    place[name] = value
    return found


def param_of(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def test_full_requests_hold_every_kind() -> None:
    assert set(CHAT_PATHS) == set(CHAT) - {"text format"}
    assert set(MESSAGES_PATHS) == set(MESSAGES)
    check_chat_request(FULL_CHAT)
    check_messages_request(FULL_MESSAGES)
    check_messages_request(messages_request(FULL_CHAT).body)
    check_chat_request(chat_request(FULL_MESSAGES).body)


@pytest.mark.parametrize(("translate", "body", "path", "field"), rows("refused"))
def test_refused_field_is_refused_in_its_place(
    translate: Translate, body: Json, path: str, field: Field
) -> None:
    with pytest.raises(Inexpressible) as caught:
        translate(with_field(body, path, field.name, {"some": "value"}))
    assert caught.value.param == param_of(path, field.name)
    assert field.becomes in str(caught.value)
    for same in (None, *field.same):
        asked = with_field(body, path, field.name, same)
        assert translate(asked) == translate(body)


@pytest.mark.parametrize(("translate", "body", "path", "field"), rows("hint"))
def test_hint_is_left_out_in_its_place_and_named(
    translate: Translate, body: Json, path: str, field: Field
) -> None:
    found = translate(with_field(body, path, field.name, {"some": "value"}))
    assert found.body == translate(body).body
    assert found.left_out == (field.name,)


@pytest.mark.parametrize(
    ("translate", "body", "path", "field"),
    [row for row in rows("kept") if row.values[3].shape != "any"],  # any value will do for these
)
def test_kept_field_is_refused_in_its_place_where_it_makes_no_sense(
    translate: Translate, body: Json, path: str, field: Field
) -> None:
    with pytest.raises(Inexpressible) as caught:
        translate(with_field(body, path, field.name, 3.5))
    place = param_of(path, field.name)
    assert caught.value.param == place or (path and caught.value.param == f"{path}.type")


@pytest.mark.parametrize(("translate", "body", "path"), [
    pytest.param(translate, body, path, id=f"{translate.__name__}: {kind}")
    for translate, body, _, paths in TABLES for kind, path in paths.items()
])  # fmt: skip
def test_unknown_field_is_refused_in_its_place(translate: Translate, body: Json, path: str) -> None:
    with pytest.raises(Inexpressible) as caught:
        translate(with_field(body, path, "brand_new", 1))
    assert caught.value.param == param_of(path, "brand_new")
