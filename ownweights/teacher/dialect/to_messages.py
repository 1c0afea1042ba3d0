"""A chat-completions request as a Messages request.

In: the caller's decoded body. Out: the body for /v1/messages, and the hints that were left out; or
Inexpressible with the field that Messages cannot say. Turns keep their order and their number:
Messages itself reads neighbours of one role as one turn. Invariants: what comes out satisfies
Anthropic's own types (test_messages_request_always_satisfies_the_client_types), and back it is the
request that went in (test_chat_request_always_undoes_messages_request).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ownweights.core.errors import Inexpressible
from ownweights.teacher.dialect.chat_fields import CHAT, CHAT_CHOICES, CHAT_FORMATS, CHAT_TOOLS
from ownweights.teacher.dialect.fields import Reader, check_shape, one_of, type_of, wrong
from ownweights.teacher.dialect.turns_to_messages import Turns
from ownweights.teacher.dialect.words import EFFORTS, NO_EFFORT, TIER_OF_CHAT

# the API version whose fields are written: the last one that has temperature and top_p
ANTHROPIC_VERSION = "2023-06-01"


@dataclass(frozen=True, slots=True)
class Translation:
    """A request in the other dialect, and the names of the hints it does without."""

    body: dict[str, Any]
    left_out: tuple[str, ...] = ()


def messages_request(body: Any, *, max_tokens: int | None = None) -> Translation:
    """The Messages request that asks the same; `max_tokens` is for callers who name no limit.

    Raises: Inexpressible, also for a caller without a limit where `max_tokens` is None
    """
    reader = Reader(CHAT)
    asked = reader.read("request", body, "")
    turns = Turns(reader, asked["messages"])
    out: dict[str, Any] = {"model": asked["model"], "max_tokens": _limit(asked, max_tokens)}
    if turns.system:
        out["system"] = turns.system
    out["messages"] = turns.messages
    for name in ("temperature", "top_p", "stream"):
        if name in asked:
            out[name] = asked[name]
    if stops := _stops(asked.get("stop", [])):
        out["stop_sequences"] = stops
    if "tools" in asked:
        out["tools"] = _tools(reader, asked["tools"])
    if choice := _tool_choice(reader, asked):
        out["tool_choice"] = choice
    if user := _user(asked):
        out["metadata"] = {"user_id": user}
    if "service_tier" in asked:
        out["service_tier"] = one_of(TIER_OF_CHAT, asked["service_tier"], "service_tier")
    reader.read("stream_options", asked.get("stream_options", {}), "stream_options")
    reader.read("metadata", asked.get("metadata", {}), "metadata")
    out |= _output(reader, asked)
    return Translation(out, tuple(sorted(reader.left_out)))


def _limit(asked: Mapping[str, Any], default: int | None) -> int:
    newer, older = asked.get("max_completion_tokens"), asked.get("max_tokens")
    if newer is not None and older is not None and newer != older:
        raise Inexpressible("max_tokens", "differs from max_completion_tokens")
    limit = newer or older or default
    if limit is None:
        raise Inexpressible(
            "max_completion_tokens",
            "is missing, and Messages answers no request without a limit",
            hint="send max_completion_tokens, or let the operator set a limit for such callers",
        )
    return limit


def _stops(asked: str | list[Any]) -> list[str]:
    stops = [asked] if isinstance(asked, str) else asked
    for index, stop in enumerate(stops):
        check_shape("text", stop, f"stop[{index}]")
        if not stop.strip():
            raise Inexpressible(f"stop[{index}]", "Messages does not stop at blanks alone")
    return list(stops)


def _tools(reader: Reader, tools: list[Any]) -> list[dict[str, Any]]:
    return [_tool(reader, tool, f"tools[{index}]") for index, tool in enumerate(tools)]


def _tool(reader: Reader, tool: Any, where: str) -> dict[str, Any]:
    type_of(tool, CHAT_TOOLS, where)
    place = f"{where}.function"
    function = reader.read("function", reader.read("tool", tool, where)["function"], place)
    schema = function.get("parameters", {"properties": {}})
    if schema.get("type", "object") != "object":
        raise Inexpressible(f"{place}.parameters.type", "the input of a tool is always an object")
    out = {"name": function["name"], "input_schema": {"type": "object", **schema}}
    return out | {name: function[name] for name in ("description", "strict") if name in function}


def _tool_choice(reader: Reader, asked: Mapping[str, Any]) -> dict[str, Any] | None:
    choice = asked.get("tool_choice")
    found: dict[str, Any] | None = None
    if isinstance(choice, str):
        kinds = {"none": "none", "auto": "auto", "required": "any"}
        found = {"type": one_of(kinds, choice, "tool_choice")}
    elif choice is not None:
        if not isinstance(choice, Mapping):
            raise wrong("tool_choice", "a word or an object", choice)
        type_of(choice, CHAT_CHOICES, "tool_choice")
        named = reader.read("named tool", choice, "tool_choice")["function"]
        name = reader.read("chosen function", named, "tool_choice.function")["name"]
        found = {"type": "tool", "name": name}
    if asked.get("parallel_tool_calls", True):
        return found
    if "tools" not in asked:
        raise Inexpressible("parallel_tool_calls", "there are no tools to call")
    found = found or {"type": "auto"}
    return found if found["type"] == "none" else found | {"disable_parallel_tool_use": True}


def _user(asked: Mapping[str, Any]) -> str | None:
    user, safety = asked.get("user"), asked.get("safety_identifier")
    if user is not None and safety is not None and user != safety:
        raise Inexpressible("safety_identifier", "differs from user; Messages names one user")
    return user or safety


def _output(reader: Reader, asked: Mapping[str, Any]) -> dict[str, Any]:
    """`output_config` and `thinking`, where they are asked for."""
    config: dict[str, Any] = {}
    effort = asked.get("reasoning_effort")
    if effort is not None and effort != NO_EFFORT:
        config["effort"] = one_of({**EFFORTS, NO_EFFORT: ""}, effort, "reasoning_effort")
    if (schema := _schema(reader, asked.get("response_format"))) is not None:
        config["format"] = {"type": "json_schema", "schema": schema}
    out: dict[str, Any] = {"output_config": config} if config else {}
    return out | ({"thinking": {"type": "disabled"}} if effort == NO_EFFORT else {})


def _schema(reader: Reader, wanted: Any) -> dict[str, Any] | None:
    if wanted is None:
        return None
    kind = type_of(wanted, CHAT_FORMATS, "response_format")
    fields = reader.read(f"{kind} format", wanted, "response_format")
    if kind == "text":
        return None
    place = "response_format.json_schema"
    return reader.read("json_schema", fields["json_schema"], place)["schema"]
