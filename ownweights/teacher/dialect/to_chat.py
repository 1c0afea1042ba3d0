"""A Messages request as a chat-completions request.

In: the caller's decoded body. Out: the body for /v1/chat/completions, and the hints that were left
out; or Inexpressible with the field that chat cannot say. A stream of Messages always ends in token
counts, so the chat stream is asked for them. Invariants: what comes out satisfies OpenAI's own
types (test_chat_request_always_satisfies_the_client_types).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ownweights.core.errors import Inexpressible
from ownweights.teacher.dialect.fields import Reader, check_shape, one_of, type_of
from ownweights.teacher.dialect.messages_fields import MESSAGES, THINKING, TOOL_CHOICES
from ownweights.teacher.dialect.to_messages import Translation
from ownweights.teacher.dialect.turns_to_chat import chat_turns
from ownweights.teacher.dialect.words import EFFORTS, NO_EFFORT, TIER_OF_MESSAGES

MAX_STOPS = 4  # of a chat request
FORMAT_NAME = "answer"  # chat wants a label on every schema


def chat_request(body: Any) -> Translation:
    """The chat request that asks the same. Raises: Inexpressible"""
    reader = Reader(MESSAGES)
    asked = reader.read("request", body, "")
    out: dict[str, Any] = {
        "model": asked["model"],
        "messages": chat_turns(reader, asked.get("system", ""), asked["messages"]),
        "max_completion_tokens": asked["max_tokens"],
    }
    for name in ("temperature", "top_p", "stream"):
        if name in asked:
            out[name] = asked[name]
    if asked.get("stream"):
        out["stream_options"] = {"include_usage": True}
    if "stop_sequences" in asked:
        out["stop"] = _stops(asked["stop_sequences"])
    if "tools" in asked:
        out["tools"] = [_tool(reader, t, f"tools[{i}]") for i, t in enumerate(asked["tools"])]
    out |= _tool_choice(reader, asked.get("tool_choice"))
    metadata = reader.read("metadata", asked.get("metadata", {}), "metadata")
    if "user_id" in metadata:
        out["user"] = metadata["user_id"]
    if "service_tier" in asked:
        out["service_tier"] = one_of(TIER_OF_MESSAGES, asked["service_tier"], "service_tier")
    out |= _output(reader, asked)
    return Translation(out, tuple(sorted(reader.left_out)))


def _stops(stops: list[Any]) -> list[str]:
    if len(stops) > MAX_STOPS:
        raise Inexpressible("stop_sequences", f"chat takes {MAX_STOPS}, not {len(stops)}")
    for index, stop in enumerate(stops):
        check_shape("text", stop, f"stop_sequences[{index}]")
    return list(stops)


def _tool(reader: Reader, tool: Any, where: str) -> dict[str, Any]:
    kind = tool.get("type") if isinstance(tool, Mapping) else None
    if kind not in (None, "custom"):
        raise Inexpressible(f"{where}.type", "chat has no tools that Anthropic defines or runs")
    fields = reader.read("tool", tool, where)
    function = {"name": fields["name"]}
    function |= {name: fields[name] for name in ("description", "strict") if name in fields}
    return {"type": "function", "function": function | {"parameters": fields["input_schema"]}}


def _tool_choice(reader: Reader, choice: Any) -> dict[str, Any]:
    if choice is None:
        return {}
    kind = type_of(choice, TOOL_CHOICES, "tool_choice")
    fields = reader.read("tool_choice", choice, "tool_choice")
    if (kind == "tool") != ("name" in fields):
        raise Inexpressible("tool_choice.name", "goes with type tool, and with no other")
    word = {"any": "required"}.get(kind, kind)
    named = {"type": "function", "function": {"name": fields.get("name")}}
    out: dict[str, Any] = {"tool_choice": named if kind == "tool" else word}
    return out | ({"parallel_tool_calls": False} if "disable_parallel_tool_use" in fields else {})


def _output(reader: Reader, asked: Mapping[str, Any]) -> dict[str, Any]:
    """`response_format` and `reasoning_effort`, where they are asked for."""
    config = reader.read("output_config", asked.get("output_config", {}), "output_config")
    out: dict[str, Any] = {}
    if "format" in config:
        out["response_format"] = _format(reader, config["format"])
    if "effort" in config:
        out["reasoning_effort"] = one_of(EFFORTS, config["effort"], "output_config.effort")
    if "thinking" in asked:
        kind = type_of(asked["thinking"], THINKING, "thinking")
        reader.read(f"{kind} thinking", asked["thinking"], "thinking")
        if "effort" in config:
            raise Inexpressible("output_config.effort", "chat knows no effort without thinking")
        out["reasoning_effort"] = NO_EFFORT
    return out


def _format(reader: Reader, wanted: Any) -> dict[str, Any]:
    where = "output_config.format"
    kind = type_of(wanted, {"json_schema": ""}, where)
    schema = reader.read(f"{kind} format", wanted, where)["schema"]
    named = {"name": FORMAT_NAME, "schema": schema, "strict": True}
    return {"type": "json_schema", "json_schema": named}
