"""The turns of a chat request as those of a Messages request, and its system prompt.

In: chat's messages. Out: `system` (the system and developer messages before the first other one)
and `messages`. A later system message stays in its place. The answers of tools that follow each
other are one turn of the user's, as Messages wants them. Ids that Messages would not take are
spelled with its letters, each in one way (test_tool_ids_are_spelled_for_messages).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ownweights.core.errors import Inexpressible
from ownweights.teacher.dialect.chat_fields import CHAT_PARTS
from ownweights.teacher.dialect.fields import Reader, inside, type_of
from ownweights.teacher.dialect.words import json_object

Block = dict[str, Any]

_ODD_IN_ID = re.compile(r"[^a-zA-Z0-9_-]")
_DATA_URL = re.compile(r"data:([a-z]+/[a-z0-9.+-]+);base64,(.*)", re.DOTALL)
_IMAGES = ("image/jpeg", "image/png", "image/gif", "image/webp")
_PDF = "application/pdf"
_TEXT_ALONE = {"text": ""}
_ROLES = ("system", "developer", "user", "assistant", "tool")


class Turns:
    """`system` and `messages` of a Messages request."""

    def __init__(self, reader: Reader, messages: list[Any]) -> None:
        self.system: str | list[Block] = []
        self.messages: list[dict[str, Any]] = []
        self._reader = reader
        self._ids: dict[str, str] = {}  # as spelled for Messages → as the caller spells it
        self._results: list[Block] | None = None  # of the turn of tools that is under way
        for index, message in enumerate(messages):
            self._add(message, f"messages[{index}]")
        if not self.messages:
            raise Inexpressible("messages", "nobody asks: there is no message but system messages")
        if self.messages[-1]["role"] == "assistant":
            raise Inexpressible(
                f"messages[{len(messages) - 1}]",
                "Messages would go on with the assistant's words, and chat begins new ones",
            )

    def _add(self, message: Any, where: str) -> None:
        role = message.get("role") if isinstance(message, Mapping) else None
        if role not in _ROLES:
            raise Inexpressible(inside(where, "role"), f"is none of {', '.join(_ROLES)}")
        kind = "system" if role == "developer" else role
        fields = self._reader.read(f"{kind} message", message, where)
        results, self._results = self._results, None
        if kind == "system":
            self._add_system(fields["content"], inside(where, "content"))
        elif kind == "user":
            content = self._content(fields["content"], CHAT_PARTS, inside(where, "content"))
            self.messages.append({"role": "user", "content": content})
        elif kind == "assistant":
            self.messages.append({"role": "assistant", "content": self._said(fields, where)})
        else:
            self._add_result(fields, results, where)

    def _add_system(self, content: str | list[Any], where: str) -> None:
        if content == "":
            return  # it says nothing
        told = self._content(content, _TEXT_ALONE, where)
        if self.messages:
            self.messages.append({"role": "system", "content": told})
        elif not self.system:
            self.system = told
        else:
            self.system = _blocks(self.system) + _blocks(told)

    def _said(self, fields: Mapping[str, Any], where: str) -> str | list[Block]:
        """What the assistant said: text, then its calls."""
        content, calls = fields.get("content", ""), fields.get("tool_calls", [])
        if not calls:
            return self._content(content, _assistant_parts(), inside(where, "content"))
        said = []
        if content:
            said = _blocks(self._content(content, _assistant_parts(), inside(where, "content")))
        places = (f"{where}.tool_calls[{index}]" for index in range(len(calls)))
        return said + [self._call(call, place) for call, place in zip(calls, places, strict=True)]

    def _call(self, call: Any, where: str) -> Block:
        type_of(call, {"function": "", "custom": "Messages' tools take no plain text"}, where)
        fields = self._reader.read("tool call", call, where)
        place = f"{where}.function"
        function = self._reader.read("called function", fields["function"], place)
        given = json_object(function["arguments"])
        if given is None:
            raise Inexpressible(f"{place}.arguments", "is not a JSON object")
        spelled = self._spelled(fields["id"], f"{where}.id")
        return {"type": "tool_use", "id": spelled, "name": function["name"], "input": given}

    def _add_result(
        self, fields: Mapping[str, Any], results: list[Block] | None, where: str
    ) -> None:
        spelled = self._spelled(fields["tool_call_id"], f"{where}.tool_call_id")
        result: Block = {"type": "tool_result", "tool_use_id": spelled}
        if fields["content"]:  # a tool may say nothing
            place = f"{where}.content"
            result["content"] = self._content(fields["content"], _TEXT_ALONE, place)
        if results is None:
            results = []
            self.messages.append({"role": "user", "content": results})
        results.append(result)
        self._results = results

    def _spelled(self, call_id: str, where: str) -> str:
        spelled = _ODD_IN_ID.sub(lambda odd: f"_{ord(odd[0]):x}_", call_id)
        if not spelled or self._ids.setdefault(spelled, call_id) != call_id:
            raise Inexpressible(where, "is empty, or Messages would take it for another id")
        return spelled

    def _content(self, content: Any, kinds: Mapping[str, str], where: str) -> str | list[Block]:
        """Text as it is, parts as blocks; Messages has no empty ones."""
        if not content:
            raise Inexpressible(where, "is empty, and Messages has no empty turns")
        if isinstance(content, str):
            return content
        return [self._block(p, kinds, f"{where}[{index}]") for index, p in enumerate(content)]

    def _block(self, part: Any, kinds: Mapping[str, str], where: str) -> Block:
        kind = type_of(part, kinds, where)
        fields = self._reader.read(f"{kind} part", part, where)
        if kind == "image_url":
            place = inside(where, "image_url")
            url = self._reader.read("image_url", fields["image_url"], place)["url"]
            return {"type": "image", "source": _image_source(url, inside(place, "url"))}
        if kind == "file":
            return self._document(fields["file"], inside(where, "file"))
        if not fields["text"]:
            raise Inexpressible(inside(where, "text"), "is empty, and Messages has no empty text")
        return {"type": "text", "text": fields["text"]}

    def _document(self, file: Any, where: str) -> Block:
        fields = self._reader.read("file", file, where)
        data = _DATA_URL.fullmatch(fields["file_data"])
        if data is None or data[1] != _PDF:
            what = f"only a data URL of {_PDF} in base64 is a document of Messages"
            raise Inexpressible(inside(where, "file_data"), what)
        source = {"type": "base64", "media_type": _PDF, "data": data[2]}
        title = {"title": fields["filename"]} if "filename" in fields else {}
        return {"type": "document", "source": source, **title}


def _assistant_parts() -> Mapping[str, str]:
    return {"text": "", "refusal": CHAT_PARTS["refusal"]}


def _image_source(url: str, where: str) -> Block:
    if url.startswith(("https://", "http://")):
        return {"type": "url", "url": url}
    data = _DATA_URL.fullmatch(url)
    if data is None or data[1] not in _IMAGES:
        kinds = ", ".join(_IMAGES)
        raise Inexpressible(where, f"expected https, http, or a data URL in base64 of {kinds}")
    return {"type": "base64", "media_type": data[1], "data": data[2]}


def _blocks(content: str | list[Block]) -> list[Block]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content
