"""How a record's bodies become one item of a segment, with system prompts and tools taken out.

An item is JSON `{"v": [request, response], "p": [[path, hash], ...]}`: at each path the value was
replaced by null and stored once under its hash. Invariant: decoding gives back exactly what was
encoded (test_encode_bodies_always_round_trips).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import msgspec

from ownweights.core.jsonl import encode_json

MAX_DEPTH = 200  # of lists and objects in each other: more than any chat has
MIN_PART_BYTES = 64  # a shorter value costs less in place than its hash and path
_SHARED_FIELDS = ("tools", "functions", "response_format")

Path = list[str | int]


@dataclass(frozen=True, slots=True)
class EncodedBodies:
    """The item to store, the shared parts it refers to by hash, and the hash of the content."""

    item: bytes
    parts: Mapping[str, bytes]
    content_hash: str


def encode_bodies(request: Mapping[str, Any], response: Mapping[str, Any] | None) -> EncodedBodies:
    """Encode a request with its response for storing.

    Raises: TypeError for values that JSON has no word for, ValueError as `check_depth`
    """
    check_depth([request, response])
    parts: dict[str, bytes] = {}
    paths: list[tuple[Path, str]] = []
    thin = dict(request)
    for name in _SHARED_FIELDS:
        if name in thin:
            thin[name] = _take(thin[name], [name], parts, paths)
    messages = thin.get("messages")
    if isinstance(messages, list):
        thin["messages"] = _without_system(cast("list[Any]", messages), parts, paths)
    item = encode_json({"v": [thin, response], "p": paths})
    return EncodedBodies(item, parts, content_hash(request, response))


def decode_bodies(
    item: bytes, part: Callable[[str], bytes]
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The request and response of an item; `part` gives the bytes stored under a hash."""
    stored = decode_stored(item)
    request, response = stored["v"]
    for path, digest in stored["p"]:
        holder: Any = request
        for step in path[:-1]:
            holder = holder[step]
        holder[path[-1]] = decode_stored(part(digest))
    return request, response


def parts_of(item: bytes) -> set[str]:
    """The hashes of the shared parts that an item needs."""
    return {digest for _, digest in decode_stored(item)["p"]}


def part_hash(raw: bytes) -> str:
    """The hash under which a shared part is stored."""
    return hashlib.blake2b(raw, digest_size=16).hexdigest()


def content_hash(request: Mapping[str, Any], response: Mapping[str, Any] | None) -> str:
    """A hash that two records share exactly when request and response are equal as JSON."""
    try:
        raw = msgspec.json.encode([request, response], order="deterministic")
    except UnicodeEncodeError:
        raw = json.dumps([request, response], sort_keys=True).encode()
    return hashlib.blake2b(raw, digest_size=16).hexdigest()


def decode_stored(raw: bytes) -> Any:
    """The value of JSON that `encode_json` wrote, lone surrogates included."""
    try:
        return msgspec.json.decode(raw)
    except ValueError:
        return json.loads(raw)


def check_depth(value: Any) -> None:
    """Raise ValueError for lists and objects nested deeper than MAX_DEPTH, which some reader with
    little of the stack left could not take."""
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level for inner in _holders_in(outer)]
        if not level:
            return
    raise ValueError(f"nested deeper than {MAX_DEPTH} levels")


def _holders_in(outer: Any) -> list[Any]:
    inner: Any = outer.values() if isinstance(outer, dict) else outer
    return [one for one in inner if isinstance(one, dict | list)]


def _without_system(
    messages: list[Any], parts: dict[str, bytes], paths: list[tuple[Path, str]]
) -> list[Any]:
    thin = list(messages)
    for index, message in enumerate(messages):
        if isinstance(message, dict) and message.get("role") in ("system", "developer"):
            path: Path = ["messages", index, "content"]
            content = cast("dict[str, Any]", message).get("content")
            kept = _take(content, path, parts, paths)
            if kept is not content:
                thin[index] = {**message, "content": kept}
    return thin


def _take(value: Any, path: Path, parts: dict[str, bytes], paths: list[tuple[Path, str]]) -> Any:
    """Move a value out to `parts`, leaving null; a short one stays."""
    raw = encode_json(value)
    if len(raw) < MIN_PART_BYTES:
        return value
    digest = part_hash(raw)
    parts[digest] = raw
    paths.append((path, digest))
    return None
