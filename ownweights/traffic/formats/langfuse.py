"""Langfuse's observations, as its exports and its API write them, in snake or camel case.

In: one observation of type GENERATION, with what its trace says of user and session. Out: a chat.
Other types (spans, events, tools) are steps around the calls, not calls (reason not_generation); so
is a trace alone, whose calls are its observations. `input` is a list of messages, an object with
`messages`, or a text that stands for one user message; `output` is a message, a text, or a whole
completion; both may be JSON in text.
Source: langfuse.com/docs, blob storage export field reference, observations API v2 (2026-11).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from ownweights.core.chat import Usage
from ownweights.core.jsonl import encode_json
from ownweights.traffic.chat import answer_fault, request_fault
from ownweights.traffic.formats.incoming import (
    Incoming,
    Skip,
    amount_of,
    decoded,
    iso_of,
    list_of,
    moment_of,
    name_of,
    object_of,
    role_of,
    said_of,
    skip_if,
    status_of_fields,
    tokens_of,
)
from ownweights.traffic.record import Record

_BOTH = {
    "trace_id": "traceId", "start_time": "startTime", "end_time": "endTime",
    "provided_model_name": "model", "model_parameters": "modelParameters",
    "usage_details": "usageDetails", "cost_details": "costDetails", "total_cost": "totalCost",
    "user_id": "userId", "session_id": "sessionId", "trace_name": "traceName",
}  # fmt: skip
_READ = ("input", "prompt_tokens", "promptTokens", "input_tokens")
_WRITTEN = ("output", "completion_tokens", "completionTokens", "output_tokens")
_KEPT = "ownweights"  # where our export keeps in `metadata` what the form has no field for


def is_langfuse(value: Mapping[str, Any]) -> bool:
    """Whether a value is a trace or an observation."""
    has_trace = "trace_id" in value or "traceId" in value
    return (has_trace and "type" in value) or (
        "timestamp" in value and "input" in value and "output" in value
    )


def read_langfuse(value: Mapping[str, Any]) -> Incoming:
    """One observation of type GENERATION."""
    kind = value.get("type", "TRACE")
    if kind != "GENERATION":
        raise Skip("not_generation", f"it is a {str(kind)[:20].lower()}, not a call of a model")
    given = {name: value.get(name, value.get(other)) for name, other in _BOTH.items()}
    metadata = object_of(value.get("metadata"))
    kept = object_of(metadata.pop(_KEPT, None))
    model = name_of(given["provided_model_name"]) or ""
    request = _request(value.get("input"), given, kept.get("model", model))
    response = _response(value.get("output"), model, kept)
    start, end = moment_of(given, "start_time"), moment_of(given, "end_time")
    latency = None if start is None or end is None else max(0.0, 1000 * (end - start))
    return Incoming(
        request,
        response,
        id=name_of(value.get("id")),
        at=start,
        workload=kept.get("workload"),
        session=name_of(given["session_id"]),
        metadata=metadata,
        end_user=name_of(given["user_id"]),
        key_id=name_of(kept.get("key_id")),
        upstream=name_of(kept.get("upstream")) or "",
        usage=_usage(object_of(given["usage_details"]) or object_of(value.get("usage"))),
        cost_usd=_cost(value, given),
        latency_ms=amount_of(kept, "latency_ms") if kept else latency,
        status=status_of_fields(kept),
        role=role_of(kept),
    )


def export_langfuse(record: Record) -> dict[str, Any] | None:
    """A record as an observation; None for what is not a chat that was answered."""
    if record.protocol != "chat" or answer_fault(record.response):
        return None
    asked = {
        k: v for k, v in record.request.items() if k in ("messages", "tools", "response_format")
    }
    options = {k: v for k, v in record.request.items() if k not in (*asked, "model")}
    end = record.at + (record.latency_ms or 0.0) / 1000
    name = record.source_id or record.id
    kept: dict[str, Any] = {
        "workload": record.workload, "model": record.request.get("model"),
        "key_id": record.key_id, "upstream": record.upstream, "latency_ms": record.latency_ms,
        **said_of(record),
    }  # fmt: skip
    kept = {name: value for name, value in kept.items() if value is not None}
    usage = record.usage
    return {
        "id": name,
        "trace_id": name,
        "type": "GENERATION",
        "name": record.workload,
        "start_time": iso_of(record.at),
        "end_time": iso_of(end),
        "level": "DEFAULT",
        "input": encode_json(asked).decode(),
        "output": encode_json(record.message).decode(),
        "provided_model_name": record.model,
        "model_parameters": encode_json(options).decode(),
        "usage_details": {
            "input": usage.prompt_tokens, "output": usage.completion_tokens,
            "total": usage.total_tokens,
        },
        "cost_details": {} if record.cost_usd is None else {"total": record.cost_usd},
        "total_cost": record.cost_usd,
        "user_id": record.end_user,
        "session_id": record.session,
        "metadata": {**record.metadata, _KEPT: {**kept, "finish_reason": record.finish_reason}},
    }  # fmt: skip


def _request(given: Any, said: Mapping[str, Any], model: Any) -> dict[str, Any]:
    value = decoded(given)
    request: dict[str, Any] = {"model": model if isinstance(model, str) else ""}
    if isinstance(value, str) and value.strip():
        request["messages"] = [{"role": "user", "content": value}]
    elif isinstance(value, dict):
        request |= cast("dict[str, Any]", value)
    else:
        request["messages"] = value
    if "messages" not in request:
        raise Skip("bad_messages", "its input is neither messages nor text")
    options = object_of(said["model_parameters"])
    skip_if(request_fault(request["messages"]))
    return {**request, **{k: decoded(v) for k, v in options.items() if k not in request}}


def _response(given: Any, model: str, kept: Mapping[str, Any]) -> dict[str, Any]:
    value = decoded(given)
    if isinstance(value, dict) and "choices" in value:
        response = cast("dict[str, Any]", value)
    else:
        message = _message(value)
        ended = "tool_calls" if message.get("tool_calls") else "stop"
        ended = kept.get("finish_reason", ended)
        choice = {"index": 0, "message": message, "finish_reason": ended}
        response = {"model": model, "choices": [choice]}
    skip_if(answer_fault(response))
    return response


def _message(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        return {"role": "assistant", "content": value}
    one = list_of(value)[-1] if list_of(value) else value
    if not isinstance(one, dict):
        raise Skip("no_answer", "its output is neither a message nor text")
    message = cast("dict[str, Any]", one)
    if not message.keys() & {"content", "tool_calls", "function_call", "refusal"}:
        raise Skip("no_answer", "its output is an object, but no message")
    return {"role": "assistant", **message}


def _usage(given: Mapping[str, Any]) -> Usage | None:
    read = next((name for name in _READ if given.get(name) is not None), "")
    written = next((name for name in _WRITTEN if given.get(name) is not None), "")
    if not (read or written):
        return None
    return Usage(tokens_of(given, read), tokens_of(given, written))


def _cost(value: Mapping[str, Any], given: Mapping[str, Any]) -> float | None:
    for holder, name in (
        (given, "total_cost"), (object_of(given["cost_details"]), "total"),
        (value, "calculatedTotalCost"),
    ):  # fmt: skip
        if (found := amount_of(holder, name)) is not None:
            return found
    return None
