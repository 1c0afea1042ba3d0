"""LiteLLM's spend logs: rows of its table LiteLLM_SpendLogs, from a dump, a CSV or its API.

In: one row. Out: a chat. The request is in `proxy_server_request` (its body) or, in older versions,
in `messages`; both and `response` are empty unless `store_prompts_in_spend_logs` was on (reason
no_content), and long texts in them were cut in the middle (reason truncated: not what was asked).
`spend` 0 is LiteLLM's word for a cost nobody knows.
Source: github.com/BerriAI/litellm, schema.prisma and spend_tracking_utils.py (2026-11).
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

_CUT = "litellm_truncated"
_CHAT_CALLS = ("completion", "acompletion", "")
_ROUTING = ("litellm_call_id", "litellm_logging_obj", "proxy_server_request", "secret_fields")
_KEPT = "ownweights"


def is_litellm(value: Mapping[str, Any]) -> bool:
    """Whether a value is a row of the spend logs."""
    return "request_id" in value and "startTime" in value and "spend" in value


def read_litellm(value: Mapping[str, Any]) -> Incoming:
    """One row of the spend logs."""
    if value.get("status") == "failure":
        raise Skip("no_answer", "the call failed")
    if (call := value.get("call_type", "")) not in _CHAT_CALLS:
        raise Skip("not_chat", f"it is a call of type {str(call)[:30]!r}")
    metadata = object_of(value.get("metadata"))
    kept = object_of(metadata.pop(_KEPT, None))
    request, response = _request(value), decoded(value.get("response"))
    if not request.get("messages") or not response:
        what = "it holds no request and answer (store_prompts_in_spend_logs was off)"
        raise Skip("no_content", what)
    if _CUT in encode_json([request, response]).decode("utf-8", "replace"):
        raise Skip("truncated", "LiteLLM cut a long text out of it")
    skip_if(request_fault(request["messages"]))
    skip_if(answer_fault(response))
    return Incoming(
        {
            "model": name_of(value.get("model_group")) or name_of(value.get("model")) or "",
            **request,
        },
        {"model": name_of(value.get("model")) or "", **cast("dict[str, Any]", response)},
        id=name_of(value.get("request_id")),
        at=moment_of(value, "startTime"),
        workload=kept.get("workload"),
        session=name_of(value.get("session_id")),
        metadata=metadata,
        end_user=name_of(value.get("end_user")) or name_of(value.get("user")),
        key_id=_key(value),
        upstream=name_of(value.get("custom_llm_provider")) or "",
        usage=Usage(tokens_of(value, "prompt_tokens"), tokens_of(value, "completion_tokens")),
        cost_usd=amount_of(value, "spend") or None,
        latency_ms=amount_of(kept, "latency_ms") if kept else _latency_ms(value),
        status=status_of_fields(kept),
        role=role_of(kept),
    )


def export_litellm(record: Record) -> dict[str, Any] | None:
    """A record as a row of the spend logs; None for what is not a chat that was answered."""
    if record.protocol != "chat" or answer_fault(record.response):
        return None
    end = iso_of(record.at + (record.latency_ms or 0.0) / 1000)
    kept = {"workload": record.workload, "latency_ms": record.latency_ms, **said_of(record)}
    usage = record.usage
    return {
        "request_id": record.source_id or record.id,
        "call_type": "acompletion",
        "api_key": record.key_id or "",
        "spend": record.cost_usd or 0.0,
        "total_tokens": usage.total_tokens,
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "startTime": iso_of(record.at),
        "endTime": end,
        "completionStartTime": end,
        "model": record.model,
        "model_id": "",
        "model_group": record.request.get("model", ""),
        "custom_llm_provider": record.upstream,
        "api_base": "",
        "user": "",
        "metadata": {**record.metadata, _KEPT: {k: v for k, v in kept.items() if v is not None}},
        "cache_hit": "False",
        "cache_key": "",
        "request_tags": [],
        "end_user": record.end_user or "",
        "messages": {},
        "response": record.response,
        "session_id": record.session,
        "status": "success",
        "proxy_server_request": record.request,
    }


def _request(value: Mapping[str, Any]) -> dict[str, Any]:
    body = object_of(value.get("proxy_server_request"))
    body = object_of(body["body"]) if isinstance(body.get("body"), dict | str) else body
    if not body.get("messages"):
        body = {**body, "messages": decoded(value.get("messages"))}
    return {name: one for name, one in body.items() if name not in _ROUTING}


def _key(value: Mapping[str, Any]) -> str | None:
    """The hash of the key; a key that was not hashed is left behind."""
    found = name_of(value.get("api_key"))
    return None if found is None or found.startswith("sk-") else found


def _latency_ms(value: Mapping[str, Any]) -> float | None:
    if (told := amount_of(value, "request_duration_ms")) is not None:
        return told
    start, end = moment_of(value, "startTime"), moment_of(value, "endTime")
    return None if start is None or end is None else max(0.0, 1000 * (end - start))
