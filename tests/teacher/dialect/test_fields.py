"""The tables name what the official clients name; the reader drops nothing."""

from __future__ import annotations

from typing import Any, get_args, get_type_hints

import pytest
from anthropic import types as messages_types
from anthropic.types import message_create_params
from openai.types import chat as chat_types
from openai.types import shared_params
from openai.types.chat import (
    chat_completion_content_part_image_param as image_param,
)
from openai.types.chat import (
    chat_completion_content_part_param as part_param,
)
from openai.types.chat import (
    chat_completion_message_function_tool_call_param as call_param,
)
from openai.types.chat import (
    chat_completion_named_tool_choice_param as named_param,
)
from openai.types.chat import completion_create_params
from openai.types.shared_params import response_format_json_schema
from typing_extensions import is_typeddict

from ownweights.core.errors import Inexpressible, InputError
from ownweights.teacher.dialect import chat_fields, messages_fields
from ownweights.teacher.dialect.chat_fields import CHAT
from ownweights.teacher.dialect.fields import Reader, Table, inside, kept, refused, table
from ownweights.teacher.dialect.messages_fields import MESSAGES

CHAT_KINDS = {
    "request": completion_create_params.CompletionCreateParamsNonStreaming,
    "stream_options": chat_types.ChatCompletionStreamOptionsParam,
    "system message": chat_types.ChatCompletionSystemMessageParam,
    "user message": chat_types.ChatCompletionUserMessageParam,
    "assistant message": chat_types.ChatCompletionAssistantMessageParam,
    "tool message": chat_types.ChatCompletionToolMessageParam,
    "text part": chat_types.ChatCompletionContentPartTextParam,
    "image_url part": chat_types.ChatCompletionContentPartImageParam,
    "image_url": image_param.ImageURL,
    "file part": part_param.File,
    "file": part_param.FileFile,
    "tool call": call_param.ChatCompletionMessageFunctionToolCallParam,
    "called function": call_param.Function,
    "tool": chat_types.ChatCompletionFunctionToolParam,
    "function": shared_params.FunctionDefinition,
    "named tool": chat_types.ChatCompletionNamedToolChoiceParam,
    "chosen function": named_param.Function,
    "text format": shared_params.ResponseFormatText,
    "json_schema format": shared_params.ResponseFormatJSONSchema,
    "json_schema": response_format_json_schema.JSONSchema,
}
MESSAGES_KINDS = {
    "request": message_create_params.MessageCreateParamsNonStreaming,
    "message": messages_types.UserMessageParam,
    "metadata": messages_types.MetadataParam,
    "text block": messages_types.TextBlockParam,
    "image block": messages_types.ImageBlockParam,
    "base64 source": messages_types.Base64ImageSourceParam,
    "url source": messages_types.URLImageSourceParam,
    "document block": messages_types.DocumentBlockParam,
    "tool_use block": messages_types.ToolUseBlockParam,
    "tool_result block": messages_types.ToolResultBlockParam,
    "tool": messages_types.ToolParam,
    "tool_choice": messages_types.ToolChoiceToolParam,
    "output_config": messages_types.OutputConfigParam,
    "json_schema format": messages_types.JSONOutputFormatParam,
    "disabled thinking": messages_types.ThinkingConfigDisabledParam,
}
# what the tables know beyond the clients' types
CHAT_BEYOND = {"assistant message": {"annotations"}}  # clients send an answer back as it came
MESSAGES_BEYOND = {"request": {"temperature", "top_p", "top_k"}}  # of API version 2023-06-01


def names(kinds: Table, kind: str) -> set[str]:
    return set(kinds[kind].fields)


def test_table_names_every_field_of_chat() -> None:
    assert set(CHAT) - set(CHAT_KINDS) == {"metadata"}  # an object of the caller's own words
    for kind, typed in CHAT_KINDS.items():
        known = set(get_type_hints(typed)) | CHAT_BEYOND.get(kind, set())
        assert names(CHAT, kind) == known, kind


def test_table_names_every_field_of_messages() -> None:
    assert set(MESSAGES) == set(MESSAGES_KINDS)
    for kind, typed in MESSAGES_KINDS.items():
        known = set(get_type_hints(typed)) | MESSAGES_BEYOND.get(kind, set())
        assert names(MESSAGES, kind) == known, kind


def test_developer_messages_are_like_system_messages() -> None:
    developer = get_type_hints(chat_types.ChatCompletionDeveloperMessageParam)
    assert names(CHAT, "system message") == set(developer)


def tags(union: Any) -> set[str]:
    """The `type` of each object in a union of a client's types."""
    found: set[str] = set()
    for one in get_args(union):
        if is_typeddict(one):
            found |= {tag for tag in get_args(get_type_hints(one)["type"]) if tag}
    return found


def test_tables_name_every_type_of_part_block_tool_and_choice() -> None:
    said = chat_types.chat_completion_assistant_message_param.ContentArrayOfContentPart
    parts = tags(chat_types.ChatCompletionContentPartParam) | tags(said)
    assert set(chat_fields.CHAT_PARTS) == parts
    assert set(chat_fields.CHAT_TOOLS) == tags(chat_types.ChatCompletionToolUnionParam)
    choices = tags(chat_types.ChatCompletionToolChoiceOptionParam)
    assert set(chat_fields.CHAT_CHOICES) == choices
    assert set(chat_fields.CHAT_FORMATS) == tags(completion_create_params.ResponseFormat)
    blocks = {*messages_fields.USER_BLOCKS, *messages_fields.ASSISTANT_BLOCKS}
    assert blocks == tags(messages_types.ContentBlockParam)
    result = messages_types.tool_result_block_param.Content
    assert set(messages_fields.RESULT_BLOCKS) == tags(result)
    images = tags(messages_types.image_block_param.Source)
    assert set(messages_fields.IMAGE_SOURCES) == images
    documents = tags(messages_types.document_block_param.Source)
    assert set(messages_fields.DOCUMENT_SOURCES) == documents
    assert set(messages_fields.THINKING) == tags(messages_types.ThinkingConfigParam)
    assert set(messages_fields.TOOL_CHOICES) == tags(messages_types.ToolChoiceParam)


TINY = table(
    {
        "thing": (
            kept("name", "label", "text", must=True),
            kept("count", "number", "count"),
            refused("loud", "it is quiet here", False, 0),
        )
    }
)


def test_reader_gives_what_is_translated() -> None:
    asked = {"name": "x", "count": 2, "loud": False}
    assert Reader(TINY).read("thing", asked, "") == {"name": "x", "count": 2}


def test_reader_takes_null_for_nothing_said() -> None:
    assert Reader(TINY).read("thing", {"name": "x", "count": None, "loud": None}, "") == {
        "name": "x"
    }


@pytest.mark.parametrize(
    ("asked", "param", "says"),
    [
        ({"name": "x", "loud": True}, "at.loud", "it is quiet here"),
        ({"name": "x", "loud": 1}, "at.loud", "it is quiet here"),
        ({"name": "x", "colour": 1}, "at.colour", "not a field"),
        ({"name": "x", "cuont": 1}, "at.cuont", "did you mean 'count'?"),
        ({"name": "x", "count": 0}, "at.count", "expected a whole number above 0, got 0"),
        ({"name": "x", "count": True}, "at.count", "got bool"),
        ({"name": "x", "count": 1.5}, "at.count", "got 1.5"),
        ({"name": 3}, "at.name", "expected text, got 3"),
        ({"name": None}, "at.name", "is missing"),
        ({}, "at.name", "is missing"),
        ([], "at", "expected an object, got list"),
    ],
)
def test_reader_refuses(asked: Any, param: str, says: str) -> None:
    with pytest.raises(Inexpressible, match=says.replace("?", r"\?")) as caught:
        Reader(TINY).read("thing", asked, "at")
    assert caught.value.param == param
    assert isinstance(caught.value, InputError)


def test_reader_refuses_unknown_fields() -> None:
    for kinds in (CHAT, MESSAGES):
        for kind in kinds:
            with pytest.raises(Inexpressible) as caught:
                Reader(kinds).read(kind, {"brand_new": 1}, "")
            assert caught.value.param == "brand_new"


def test_reader_shows_no_text_of_the_callers() -> None:
    with pytest.raises(Inexpressible) as caught:
        Reader(TINY).read("thing", {"name": "x", "count": "my secret"}, "")
    assert "secret" not in str(caught.value)


def test_inside_cuts_a_long_name() -> None:
    assert inside("", "x" * 1000) == "x" * 80


def test_tables_say_why_of_everything() -> None:
    for kinds in (CHAT, MESSAGES):
        for name, kind in kinds.items():
            assert all(field.becomes for field in kind.fields.values()), name
