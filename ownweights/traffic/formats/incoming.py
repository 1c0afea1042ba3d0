"""What a form says of one request, before it is a record; and the fields that forms share.

Every fact is checked as it is read: what is given and is not what it should be makes the value one
that cannot be used (reason `bad_fact`), never a guess (test_read_refuses_a_fact_that_is_none).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast, get_args

from ownweights.core.chat import Usage
from ownweights.traffic.chat import Fault
from ownweights.traffic.draft import MAX_AMOUNT
from ownweights.traffic.record import Protocol, Record, Role, Status, moment, status_of

_MAX_TOKENS = 2**31
_FAR_MS = 1e18  # later than any time, and still a float
_LAST_MOMENT = 253_402_300_799.0  # of the year 9999: a date holds no later one


class Skip(Exception):
    """A value that cannot be used, with the reason to count it under."""

    def __init__(self, reason: str, what: str) -> None:
        super().__init__(what)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Incoming:
    """One request as a form tells of it. None is what the form does not say."""

    request: dict[str, Any]
    response: dict[str, Any] | None
    id: str | None = None
    at: float | None = None
    workload: Any = None
    session: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict[str, Any])
    protocol: Protocol = "chat"
    end_user: str | None = None
    key_id: str | None = None
    upstream: str = ""
    usage: Usage | None = None
    cost_usd: float | None = None
    latency_ms: float | None = None
    status: Status | None = None
    role: Role = "imported"


def skip_if(fault: Fault | None) -> None:
    """Raise Skip where there is a fault."""
    if fault is not None:
        raise Skip(fault.reason, fault.what)


def name_of(value: Any) -> str | None:
    """A name as text; numbers count as names, and nothing is no name."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) and value else None


def text_of(given: Mapping[str, Any], field_name: str) -> str | None:
    """A text field; None where it is absent, null or empty."""
    value = given.get(field_name)
    if value is None or isinstance(value, str):
        return value or None
    raise Skip("bad_fact", f"'{field_name}' is not text")


def amount_of(given: Mapping[str, Any], field_name: str) -> float | None:
    """A cost or time of zero or more, as a number or as text (a CSV has no other)."""
    value = given.get(field_name)
    if value is None or value == "":
        return None
    try:
        number = float(value) if isinstance(value, int | float | str) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if isinstance(value, bool) or not 0 <= number < MAX_AMOUNT:
        raise Skip("bad_fact", f"'{field_name}' is no amount of zero or more")
    return number


def tokens_of(given: Mapping[str, Any], field_name: str) -> int:
    """A number of tokens, 0 where none is given."""
    number = amount_of(given, field_name) or 0
    if number != int(number) or number >= _MAX_TOKENS:
        raise Skip("bad_fact", f"'{field_name}' is no number of tokens")
    return int(number)


def usage_of_fields(given: Mapping[str, Any], read: str, written: str) -> Usage | None:
    """The tokens that two fields name; None where neither is there."""
    if given.get(read) is None and given.get(written) is None:
        return None
    return Usage(tokens_of(given, read), tokens_of(given, written))


def moment_of(given: Mapping[str, Any], field_name: str) -> float | None:
    """A time in unix seconds: a number (of seconds, or of milliseconds), or ISO text in UTC."""
    value = given.get(field_name)
    if value is None or value == "":
        return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        found = moment(value if value < 1e11 else min(value, _FAR_MS) / 1000)
    else:
        found = _iso(value) if isinstance(value, str) else None
    if found is None:
        raise Skip("bad_fact", f"'{field_name}' is no time")
    return found


def iso_of(at: float) -> str:
    """A moment as ISO text in UTC, to the microsecond; in the year 9999 at the latest."""
    return datetime.fromtimestamp(min(at, _LAST_MOMENT), UTC).isoformat(timespec="microseconds")


def protocol_of(given: Mapping[str, Any]) -> Protocol:
    """The protocol that a value names, `chat` where it names none."""
    value = given.get("protocol", "chat")
    if value not in get_args(Protocol):
        raise Skip("bad_fact", "'protocol' is none of " + ", ".join(get_args(Protocol)))
    return value


def status_of_fields(given: Mapping[str, Any]) -> Status | None:
    """The status that a value names; None where it names none."""
    value = given.get("status")
    if value is not None and value not in get_args(Status):
        raise Skip("bad_fact", "'status' is none of " + ", ".join(get_args(Status)))
    return value


def role_of(given: Mapping[str, Any]) -> Role:
    """Who answered, `imported` where a value does not say."""
    value = given.get("role", "imported")
    if value not in get_args(Role):
        raise Skip("bad_fact", "'role' is none of " + ", ".join(get_args(Role)))
    return value


def said_of(record: Record) -> dict[str, Any]:
    """Status and role of a record, where an import would not know them by itself."""
    is_cut = record.protocol == "chat" and status_of(record.response) == "partial"
    said = {"status": (record.status, "partial" if is_cut else "ok"),
            "role": (record.role, "imported")}  # fmt: skip
    return {name: value for name, (value, known) in said.items() if value != known}


def decoded(value: Any) -> Any:
    """JSON that came as text, decoded; any other value as it is."""
    if not isinstance(value, str) or value[:1] not in ("{", "[", '"'):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def object_of(value: Any) -> dict[str, Any]:
    """An object, also as JSON text; empty where there is none."""
    found = decoded(value)
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def list_of(value: Any) -> list[Any]:
    """A list; empty where there is none."""
    is_list = isinstance(value, Sequence) and not isinstance(value, str | bytes)
    return list(cast("Sequence[Any]", value)) if is_list else []


def _iso(value: str) -> float | None:
    try:
        found = datetime.fromisoformat(value.strip().replace(" UTC", "+00:00"))
    except ValueError:
        return None
    return moment((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp())
