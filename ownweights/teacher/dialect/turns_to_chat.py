"""The turns of a Messages request, and its system prompt, as chat's messages.

In: `system` and `messages` of a Messages request. Out: chat's messages. Results of tools become
messages of their own, before what the user says in the same turn.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ownweights.core.errors import Inexpressible
from ownweights.teacher.dialect.fields import Reader, inside, one_of, type_of
from ownweights.teacher.dialect.messages_fields import (
    ASSISTANT_BLOCKS,
    DOCUMENT_SOURCES,
    IMAGE_SOURCES,
    RESULT_BLOCKS,
    SYSTEM_BLOCKS,
    USER_BLOCKS,
)
from ownweights.teacher.dialect.words import json_text

Message = dict[str, Any]
Part = dict[str, Any]
_ROLES = {role: role for role in ("user", "assistant", "system")}


def chat_turns(reader: Reader, system: Any, messages: list[Any]) -> list[Message]:
    """Chat's messages. Raises: Inexpressible"""
    turns: list[Message] = []
    if system:
        told = _content(reader, system, SYSTEM_BLOCKS, "system")
        turns.append({"role": "system", "content": told})
    for index, message in enumerate(messages):
        turns += _turn(reader, message, f"messages[{index}]")
    if not messages:
        raise Inexpressible("messages", "is empty")
    if turns[-1]["role"] == "assistant":
        what = "chat cannot go on with what the assistant began to say"
        raise Inexpressible(f"messages[{len(messages) - 1}]", what)
    return turns


def _turn(reader: Reader, message: Any, where: str) -> list[Message]:
    fields = reader.read("message", message, where)
    role = one_of(_ROLES, fields["role"], inside(where, "role"))
    content, place = fields["content"], inside(where, "content")
    if isinstance(content, str) or role == "system":
        return [{"role": role, "content": _content(reader, content, SYSTEM_BLOCKS, place)}]
    if role == "assistant":
        return [_said(reader, content, place)]
    return _asked(reader, content, place)


def _asked(reader: Reader, content: list[Any], where: str) -> list[Message]:
    """The results of tools in a user's turn, then what the user says."""
    results: list[Message] = []
    for index, block in enumerate(content):
        place = f"{where}[{index}]"
        if type_of(block, USER_BLOCKS, place) != "tool_result":
            continue
        if index != len(results):
            raise Inexpressible(place, "results of tools come before all else in a turn")
        results.append(_result(reader, block, place))
    if len(results) == len(content) and results:
        return results
    parts = [_part(reader, block, f"{where}[{index}]") for index, block in enumerate(content)
             if index >= len(results)]  # fmt: skip
    if not parts:
        raise Inexpressible(where, "is empty")
    return [*results, {"role": "user", "content": parts}]


def _result(reader: Reader, block: Any, where: str) -> Message:
    fields = reader.read("tool_result block", block, where)
    content = fields.get("content") or ""
    if content:
        content = _content(reader, content, RESULT_BLOCKS, inside(where, "content"))
    return {"role": "tool", "tool_call_id": fields["tool_use_id"], "content": content}


def _said(reader: Reader, content: list[Any], where: str) -> Message:
    """What the assistant said; text after a call has no place in chat."""
    parts: list[Part] = []
    calls: list[dict[str, Any]] = []
    for index, block in enumerate(content):
        place = f"{where}[{index}]"
        if type_of(block, ASSISTANT_BLOCKS, place) == "tool_use":
            calls.append(_call(reader, block, place))
        elif calls:
            raise Inexpressible(place, "chat says nothing after the calls of a turn")
        else:
            parts.append(_part(reader, block, place))
    if not parts and not calls:
        raise Inexpressible(where, "is empty")
    if not calls:
        return {"role": "assistant", "content": parts}
    text = parts[0]["text"] if len(parts) == 1 else parts or None
    return {"role": "assistant", "content": text, "tool_calls": calls}


def _call(reader: Reader, block: Any, where: str) -> dict[str, Any]:
    fields = reader.read("tool_use block", block, where)
    function = {"name": fields["name"], "arguments": json_text(fields["input"])}
    return {"id": fields["id"], "type": "function", "function": function}


def _content(
    reader: Reader, content: Any, kinds: Mapping[str, str], where: str
) -> str | list[Part]:
    """Text as it is, blocks as parts."""
    if not content:
        raise Inexpressible(where, "is empty")
    if isinstance(content, str):
        return content
    parts: list[Part] = []
    for index, block in enumerate(content):
        type_of(block, kinds, f"{where}[{index}]")
        parts.append(_part(reader, block, f"{where}[{index}]"))
    return parts


def _part(reader: Reader, block: Any, where: str) -> Part:
    kind = block["type"]
    fields = reader.read(f"{kind} block", block, where)
    if kind == "image":
        return {"type": "image_url", "image_url": {"url": _image_url(reader, fields, where)}}
    if kind == "document":
        return {"type": "file", "file": _file(reader, fields, where)}
    if not fields["text"]:
        raise Inexpressible(inside(where, "text"), "is empty")
    return {"type": "text", "text": fields["text"]}


def _image_url(reader: Reader, fields: Mapping[str, Any], where: str) -> str:
    source, place = fields["source"], inside(where, "source")
    kind = type_of(source, IMAGE_SOURCES, place)
    found = reader.read(f"{kind} source", source, place)
    return found["url"] if kind == "url" else _data_url(found)


def _file(reader: Reader, fields: Mapping[str, Any], where: str) -> dict[str, Any]:
    place = inside(where, "source")
    kind = type_of(fields["source"], DOCUMENT_SOURCES, place)
    found = reader.read(f"{kind} source", fields["source"], place)
    title = {"filename": fields["title"]} if "title" in fields else {}
    return {**title, "file_data": _data_url(found)}


def _data_url(source: Mapping[str, Any]) -> str:
    return f"data:{source['media_type']};base64,{source['data']}"
