"""The texts of a body: all that a person or a program wrote in it, wherever it stands.

In: decoded JSON. Out: its texts in a fixed order, or the same JSON with other texts in their place.
Text that is itself JSON (the arguments of a tool call, an answer in JSON) is opened, so that an
escape never hides what it says, and written again in its own style only where something changed.
Keys and whole numbers count as texts where the caller is free to choose them: in metadata, tool
arguments and JSON inside texts. What the protocol fixes is left: roles, types, model names, ids.
Base64 of images, audio and files is no text: nothing can look into it.
Invariant: other texts that are the same texts give the same JSON
(test_with_texts_always_gives_back_what_it_got).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, cast

import msgspec

MIN_NUMBER = 1_000_000  # a shorter number names nobody
MIN_DATA_CHARS = 256
_PROTOCOL_FIELDS = frozenset(
    ("role", "type", "object", "model", "finish_reason", "stop_reason", "service_tier", "id",
     "tool_call_id", "call_id", "tool_use_id", "response_id", "previous_response_id", "item_id",
     "system_fingerprint", "encoding_format", "format", "detail", "status", "media_type",
     "mime_type", "object", "signature")
)  # fmt: skip
_FREE_FIELDS = frozenset(("metadata", "arguments", "input", "args", "parsed", "user"))
_DATA_FIELDS = frozenset(("data", "file_data", "b64_json", "image_url", "url"))
_ID = re.compile(r"[\w.:/-]{1,200}")
_DATA_URL = re.compile(r"data:[\w.+/-]{0,100}(?:;[\w=.-]{1,100}){0,4};base64,")
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{256}")


class Texts:
    """Collects the texts of bodies, and puts others in their place in the same order."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self.data: list[str] = []  # base64, each under its place among the data

    def collect(self, value: Any, *, is_free: bool = False) -> None:
        """Add the texts of a JSON value."""
        _walk(value, self._take, self._take_data, is_free)

    def replaced(
        self, value: Any, texts: Iterator[str], data: Iterator[str], *, is_free: bool = False
    ) -> Any:
        """The value with the next of `texts` for each text, and of `data` for each data."""
        return _walk(value, lambda _: next(texts), lambda _: next(data), is_free)

    def _take(self, text: str) -> str:
        self.found.append(text)
        return text

    def _take_data(self, text: str) -> str:
        self.data.append(text)
        return text


_Take = Callable[[str], str]


def _walk(value: Any, take: _Take, take_data: _Take, is_free: bool) -> Any:
    kind = type(value)
    if kind is str:
        return _text(value, take, take_data)
    if kind is dict:
        return _object(value, take, take_data, is_free)
    if kind is list:
        if value and type(value[0]) is float:  # an embedding
            return value
        return [_walk(inner, take, take_data, is_free) for inner in value]
    if kind is int and is_free and abs(value) >= MIN_NUMBER:
        text = str(value)
        told = take(text)
        return value if told == text else told
    return value


def _object(value: dict[str, Any], take: _Take, take_data: _Take, is_free: bool) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, inner in value.items():
        name = take(key) if is_free else key
        if type(inner) is str:
            if key in _DATA_FIELDS and is_data(inner):
                made[name] = take_data(inner)
            elif not is_free and key in _PROTOCOL_FIELDS and _ID.fullmatch(inner):
                made[name] = inner
            else:
                made[name] = _text(inner, take, take_data)
        else:
            made[name] = _walk(inner, take, take_data, is_free or key in _FREE_FIELDS)
    return made


def _text(text: str, take: _Take, take_data: _Take) -> str:
    inner = _opened(text)
    if inner is None:
        return take(text)
    made = _walk(inner, take, take_data, True)
    return text if made == inner else _written_like(text, made)


def _opened(text: str) -> Any:
    """The list or object that a text is in JSON; None where it is none."""
    if text[:1] not in ("{", "[", " ", "\n", "\t", "\r") or text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        return msgspec.json.decode(text)
    except (ValueError, UnicodeEncodeError, RecursionError):
        return None


def _written_like(text: str, value: Any) -> str:
    """A value as JSON, in the style of a text that it was before."""
    indent = re.match(r"\s*[\[{]\n([ \t]+)", text)
    is_wide = '": ' in text or '", "' in text
    return json.dumps(
        value,
        ensure_ascii="\\u" in text,
        indent=indent[1] if indent else None,
        separators=(",", ": ") if indent else (", ", ": ") if is_wide else (",", ":"),
    )


def is_data(text: str) -> bool:
    """Whether text is base64 of something, as a data URL or bare."""
    if text.startswith("data:"):
        return _DATA_URL.match(text) is not None
    return len(text) >= MIN_DATA_CHARS and _BASE64.match(text) is not None


def without_logprobs(response: dict[str, Any]) -> dict[str, Any]:
    """A response less the log-probabilities of its tokens, which spell the text out again."""
    choices = response.get("choices")
    if not isinstance(choices, list):
        return response
    thin = [
        {**cast("dict[str, Any]", choice), "logprobs": None}
        if isinstance(choice, dict) and cast("dict[str, Any]", choice).get("logprobs")
        else choice
        for choice in cast("list[Any]", choices)
    ]
    return {**response, "choices": thin}
