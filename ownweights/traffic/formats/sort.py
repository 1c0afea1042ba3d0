"""Which form a value has, told from its fields; and a record in the form that is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from reprlib import repr as brief
from typing import Any, Literal, cast, get_args

from ownweights.traffic.formats.incoming import Incoming, Skip, list_of, object_of
from ownweights.traffic.formats.langfuse import export_langfuse, is_langfuse, read_langfuse
from ownweights.traffic.formats.litellm import export_litellm, is_litellm, read_litellm
from ownweights.traffic.formats.own import export_openai, export_own, read_openai, read_own
from ownweights.traffic.record import Record

ExportFormat = Literal["own", "openai", "langfuse", "litellm"]
EXPORT_FORMATS: tuple[str, ...] = get_args(ExportFormat)
_EXPORTS: Mapping[str, Callable[[Record], dict[str, Any] | None]] = {
    "own": export_own, "openai": export_openai, "langfuse": export_langfuse,
    "litellm": export_litellm,
}  # fmt: skip


def read(value: Mapping[str, Any]) -> Incoming:
    """What one value of a file says.

    Raises: Skip with the reason for a value that is no chat, or not a whole one
    """
    if "request" in value:
        return read_own(value)
    if is_litellm(value):
        return read_litellm(value)
    if is_langfuse(value):
        return read_langfuse(value)
    if "messages" in value:
        return read_openai(value)
    keys = ", ".join(sorted(map(brief, value))[:6])
    raise Skip("not_chat", f"has neither 'request' nor 'messages' among its keys {keys}")


def export(record: Record, export_format: ExportFormat) -> dict[str, Any] | None:
    """A record as one value of a form; None where the form cannot hold it."""
    return _EXPORTS[export_format](record)


def unwrap(value: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The values inside of one that holds several: a page of an API, or a trace with what it
    observed; else the value itself."""
    if "request" in value or "messages" in value:
        yield dict(value)
    elif isinstance(value.get("data"), list):
        for one in list_of(value["data"]):
            if isinstance(one, dict):
                yield from unwrap(cast("dict[str, Any]", one))
    elif isinstance(value.get("observations"), list):
        trace = {**value, **object_of(value.get("trace"))}
        for one in list_of(value["observations"]):
            if isinstance(one, dict):
                yield _with_trace(cast("dict[str, Any]", one), trace)
    else:
        yield dict(value)


def _with_trace(observation: dict[str, Any], trace: Mapping[str, Any]) -> dict[str, Any]:
    """An observation with the user and session of its trace."""
    found = dict(observation)
    found.setdefault("traceId", trace.get("id"))
    for snake, camel in (("user_id", "userId"), ("session_id", "sessionId")):
        if found.get(snake) is None and found.get(camel) is None:
            found[camel] = trace.get(camel, trace.get(snake))
    return found
