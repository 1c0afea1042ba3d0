"""Our own form, which keeps every fact of a record, and OpenAI's form for fine-tuning.

{"id", "request", "response", "metadata", "at", "protocol", "end_user", "key_id", "upstream",
 "usage", "cost_usd", "latency_ms", "status", "role"}      all after `response` may be absent
{"messages": [..., assistant], "tools", ...}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from ownweights.core.chat import Usage
from ownweights.traffic.chat import answer_fault, request_fault
from ownweights.traffic.formats.incoming import (
    Incoming,
    Skip,
    amount_of,
    name_of,
    protocol_of,
    role_of,
    said_of,
    skip_if,
    status_of_fields,
    text_of,
    usage_of_fields,
)
from ownweights.traffic.record import Record, moment, usage_of

_SAMPLING_FIELDS = ("tools", "functions", "parallel_tool_calls", "response_format")
_NOT_REQUEST = ("messages", "metadata", "id", "model")


def read_own(value: Mapping[str, Any]) -> Incoming:
    """A value of our own form."""
    request, response = value["request"], value.get("response")
    if not isinstance(request, dict):
        raise Skip("not_chat", f"'request' is a {type(request).__name__}, not an object")
    protocol, status = protocol_of(value), status_of_fields(value)
    if protocol == "chat":
        skip_if(request_fault(cast("dict[str, Any]", request).get("messages")))
    is_whole = status in (None, "ok")
    if protocol == "chat" and is_whole:
        skip_if(answer_fault(response))
    elif not (isinstance(response, dict) or (response is None and not is_whole)):
        raise Skip("no_answer", "'response' is not an object")
    given = value.get("usage")
    if given is not None and not isinstance(given, dict):
        raise Skip("bad_fact", "'usage' is not an object")
    usage = cast("dict[str, Any] | None", given)
    return Incoming(
        cast("dict[str, Any]", request),
        cast("dict[str, Any] | None", response),
        protocol=protocol,
        status=status,
        role=role_of(value),
        end_user=text_of(value, "end_user"),
        key_id=text_of(value, "key_id"),
        upstream=text_of(value, "upstream") or "",
        usage=usage_of_fields(usage, "prompt_tokens", "completion_tokens") if usage else None,
        cost_usd=amount_of(value, "cost_usd"),
        latency_ms=amount_of(value, "latency_ms"),
        **_common(value),
    )


def export_own(record: Record) -> dict[str, Any]:
    """A record in our own form."""
    named = {"workload": record.workload, "session": record.session}
    line: dict[str, Any] = {
        "id": record.source_id or record.id,
        "request": record.request,
        "response": record.response,
        "metadata": {**record.metadata, **{k: v for k, v in named.items() if v is not None}},
    }
    if record.is_timed:
        line["at"] = record.at
    usage = record.usage
    facts: dict[str, tuple[Any, Any]] = {  # what it is, and what is not worth saying
        "protocol": (record.protocol, "chat"),
        "end_user": (record.end_user, None),
        "key_id": (record.key_id, None),
        "upstream": (record.upstream, ""),
        "cost_usd": (record.cost_usd, None),
        "latency_ms": (record.latency_ms, None),
    }
    line |= {name: value for name, (value, nothing) in facts.items() if value != nothing}
    line |= said_of(record)
    if usage not in (usage_of(record.response), Usage()):
        line["usage"] = {
            "prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens
        }  # fmt: skip
    return line


def read_openai(value: Mapping[str, Any]) -> Incoming:
    """A value of OpenAI's form: the last message is the answer to those before it."""
    messages = value["messages"]
    skip_if(request_fault(messages))
    *asked, answer = messages
    if answer["role"] != "assistant" or not asked:
        raise Skip("wrong_roles", "the last of 'messages' must be the assistant's answer")
    if answer.get("weight") == 0:
        raise Skip("wrong_roles", "the last answer has weight 0: nothing is to be learned from it")
    model = value.get("model") if isinstance(value.get("model"), str) else ""
    fields = {k: v for k, v in value.items() if k not in _NOT_REQUEST}
    ended = "tool_calls" if answer.get("tool_calls") else "stop"
    choice = {"index": 0, "message": answer, "finish_reason": ended}
    request = {"model": model, "messages": asked, **fields}
    response: dict[str, Any] = {"model": model, "choices": [choice]}
    skip_if(request_fault(asked))
    skip_if(answer_fault(response))
    return Incoming(request, response, **_common(value))


def export_openai(record: Record) -> dict[str, Any] | None:
    """A record in OpenAI's form; None for one that is not a whole answer in a chat."""
    messages: Any = record.request.get("messages")
    if record.protocol != "chat" or record.status != "ok":
        return None
    if request_fault(messages) or answer_fault(record.response):
        return None
    fields = {k: record.request[k] for k in _SAMPLING_FIELDS if k in record.request}
    return {"messages": [*messages, {"role": "assistant", **record.message}], **fields}


def _common(value: Mapping[str, Any]) -> dict[str, Any]:
    given = value.get("metadata")
    metadata = cast("dict[str, Any]", given) if isinstance(given, dict) else {}
    return {
        "id": name_of(value.get("id")),
        "at": moment(value.get("at")),
        "workload": metadata.get("workload"),
        "session": name_of(metadata.get("session")),
        "metadata": metadata,
    }
