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
import string
from collections.abc import Sequence
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
_BASE64 = re.compile(rf"[A-Za-z0-9+/_-]{{{MIN_DATA_CHARS}}}")
_IN_BASE64 = (string.ascii_letters + string.digits + "+/_-=%\r\n").encode()


class Texts:
    """Collects the texts of JSON values, in the order in which they stand."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.keys: set[int] = set()  # which of the texts are keys; their values come next
        self.data: list[str] = []  # base64

    def text(self, text: str) -> str:
        self.texts.append(text)
        return text

    def key(self, key: str) -> str:
        self.keys.add(len(self.texts))
        return self.text(key)

    def blob(self, blob: str) -> str:
        self.data.append(blob)
        return blob


class OtherTexts:
    """Gives other texts, one after the other, in the place of those collected."""

    def __init__(self, texts: Sequence[str], data: Sequence[str]) -> None:
        self._texts, self._data = iter(texts), iter(data)

    def text(self, _: str) -> str:
        return next(self._texts)

    key = text

    def blob(self, _: str) -> str:
        return next(self._data)


def with_texts(value: Any, visit: Texts | OtherTexts, *, is_free: bool = False) -> Any:
    """A JSON value with what `visit` gives for each of its texts, keys and data.

    `is_free`: its keys and numbers are the caller's own choice, too.
    """
    kind = type(value)
    if kind is str:
        return _text(value, visit)
    if kind is dict:
        return _object(value, visit, is_free)
    if kind is list:
        if value and type(value[0]) is float and set(map(type, value)) == {float}:
            return value  # an embedding
        return [with_texts(inner, visit, is_free=is_free) for inner in value]
    if kind is int and is_free and abs(value) >= MIN_NUMBER:
        digits = str(value)
        told = visit.text(digits)
        return value if told == digits else told
    return value


def _object(value: dict[str, Any], visit: Texts | OtherTexts, is_free: bool) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, inner in value.items():
        name = visit.key(key) if is_free else key
        while name in made:  # two spellings of one value are still two keys
            name += "_"
        if type(inner) is not str:
            made[name] = with_texts(inner, visit, is_free=is_free or key in _FREE_FIELDS)
        elif key in _DATA_FIELDS and is_data(inner):
            made[name] = visit.blob(inner)
        elif not is_free and key in _PROTOCOL_FIELDS and _ID.fullmatch(inner):
            made[name] = inner
        else:
            made[name] = _text(inner, visit)
    return made


def _text(text: str, visit: Texts | OtherTexts) -> str:
    inner = _opened(text)
    if inner is None:
        return visit.text(text)
    made = with_texts(inner, visit, is_free=True)
    return text if made == inner else _written_like(text, made)


def _opened(text: str) -> Any:
    """The list or object that a text is in JSON; None where it is none, or says a key twice."""
    if text[:1] not in ("{", "[", " ", "\n", "\t", "\r") or text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        value = msgspec.json.decode(text)
        json.loads(text, object_pairs_hook=_once)
        return value
    except (ValueError, UnicodeEncodeError, RecursionError):
        return None


def _once(pairs: list[tuple[str, Any]]) -> None:
    """Refuses a key that comes twice: what it said first would not be seen."""
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a key comes twice")


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
    begin = _DATA_URL.match(text)
    if begin is None and not _BASE64.match(text):
        return False
    start = begin.end() if begin else 0
    return text.isascii() and not text.encode()[start:].translate(None, _IN_BASE64)


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
