"""Which kind of request this is: the workload its caller named, else a hash of its fixed part.

The fixed part is what an application repeats with every request: the system and developer messages
before the conversation starts, the tools, and the response format. Requests that share it are one
workload whatever the user says (test_workload_hash_ignores_the_conversation).
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from ownweights.core.artefact import canonical_json
from ownweights.core.errors import InputError
from ownweights.core.strict import NAME_PATTERN, NAME_SAYS

HASH_CHARS = 16
_REMEMBERED_CHARS = 4096  # of texts whose hash is kept
_FIXED_FIELDS = {
    "chat": ("tools", "functions", "response_format"),
    "messages": ("system", "tools", "output_config", "output_format"),
    "responses": ("instructions", "tools", "text", "prompt"),
    "completions": ("model", "suffix"),
    "embeddings": ("model", "dimensions"),
}


def workload_hash(request: Mapping[str, Any], protocol: str = "chat") -> str:
    """A short stable hash of a request's fixed part; also called its prompt hash.

    What has no system prompt, a text completion or an embedding, goes by its model.
    """
    fields = _FIXED_FIELDS[protocol]
    fixed: dict[str, Any] = {name: request[name] for name in fields if request.get(name)}
    if protocol == "chat":
        texts = system_texts(request)
        if not fixed and sum(map(len, texts)) < _REMEMBERED_CHARS:
            return _hash_of_texts(tuple(texts))
        fixed["system"] = texts
    else:
        fixed["protocol"] = protocol
    return _hash_of(fixed)


@functools.lru_cache(1024)
def _hash_of_texts(texts: tuple[str, ...]) -> str:
    return _hash_of({"system": texts})


def _hash_of(fixed: dict[str, Any]) -> str:
    return hashlib.sha256(canonical_json(fixed)).hexdigest()[:HASH_CHARS]


def conversation_of(request: Mapping[str, Any], prompt_hash: str) -> str | None:
    """What tells a conversation whose session nobody named: who asks, the fixed part, and the
    first question. The turns of one conversation share it; None where there are no messages."""
    first = next((m for m in messages_of(request) if m.get("role") == "user"), None)
    if first is None:
        return None
    known = [prompt_hash, request.get("user"), first.get("content")]
    return "~" + hashlib.sha256(canonical_json(known)).hexdigest()[:HASH_CHARS]


def system_texts(request: Mapping[str, Any]) -> list[str]:
    """The texts of the system and developer messages before the first other message."""
    texts: list[str] = []
    for message in messages_of(request):
        if message.get("role") not in ("system", "developer"):
            break
        texts.append(content_text(message.get("content")))
    return texts


def user_text(request: Mapping[str, Any]) -> str:
    """The text of the last user message; empty when nobody asks."""
    for message in reversed(messages_of(request)):
        if message.get("role") == "user":
            return content_text(message.get("content"))
    return ""


def asked_text(request: Mapping[str, Any]) -> str:
    """What is asked, in any protocol: the last user message, else the input or the prompt."""
    asked: Any = request.get("input", request.get("prompt"))
    if "messages" in request or not isinstance(asked, list):
        return asked if isinstance(asked, str) else user_text(request)
    texts = (text for text in cast("list[Any]", asked) if isinstance(text, str))
    return user_text({"messages": asked}) or " ".join(texts)


def messages_of(request: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The messages of a request that are objects at all; none where it is no chat."""
    messages = request.get("messages")
    if not isinstance(messages, Sequence):
        return []
    return [message for message in cast("Sequence[Any]", messages) if isinstance(message, Mapping)]


def content_text(content: Any) -> str:
    """The text of a message's content, whether a string, null, or a list of parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence):
        return ""
    parts = cast("Sequence[Any]", content)
    texts = [part.get("text") for part in parts if isinstance(part, Mapping)]
    return "".join(text for text in texts if isinstance(text, str))


def default_workload(prompt_hash: str) -> str:
    """The name of a workload that nobody named."""
    return f"auto-{prompt_hash[:8]}"


def check_workload_name(name: Any, *, where: str = "workload") -> str:
    """The name, if it can be a table in own.toml, a file name and a URL part; else InputError."""
    if isinstance(name, str) and re.fullmatch(NAME_PATTERN, name):
        return name
    raise InputError(
        f"{name!r} cannot name a workload",
        where=where,
        hint=f"use {NAME_SAYS}",
    )
