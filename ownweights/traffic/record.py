"""One request with its answer, as it passed the gateway or came from a file."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from ownweights.core.chat import Usage
from ownweights.core.ids import new_id
from ownweights.traffic.chat import answer_message, first_choice, is_content
from ownweights.traffic.workload import content_text, default_workload, workload_hash

Status = Literal["ok", "partial", "error"]
Role = Literal["teacher", "student", "imported"]
Protocol = Literal["chat", "completions", "embeddings", "responses", "messages"]
DERIVED = "~"  # begins a session that nobody named, known by how its conversation begins
_END_OF_TIME = 253_402_300_800  # the year 10000, which a date cannot hold


@dataclass(frozen=True, slots=True)
class Record:
    """A request and its response, kept whole, as bodies of the `protocol` they were spoken in.

    `status` is partial when the answer was cut off, error when there is none; only ok records are
    learned from. `role` says who answered, `model` as the response names it. `source_id` is the id
    that a file gave; `at` is when it passed, in unix seconds (for a file that does not say: when it
    was imported). `end_user` is whom the request names as its user, `key_id` the gateway's key it
    came with, `upstream` the teacher's name in own.toml. `cost_usd` and `latency_ms` are None where
    nobody knows.
    """

    id: str
    at: float
    workload: str
    session: str | None
    metadata: dict[str, Any]
    request: dict[str, Any]
    response: dict[str, Any] | None
    status: Status
    role: Role
    model: str
    source_id: str | None
    prompt_hash: str
    protocol: Protocol = "chat"
    end_user: str | None = None
    key_id: str | None = None
    upstream: str = ""
    usage: Usage = field(default_factory=Usage)
    cost_usd: float | None = None
    latency_ms: float | None = None

    @property
    def named_session(self) -> str | None:
        """The session as its caller or file named it; None for one told by its beginning."""
        return None if (self.session or "").startswith(DERIVED) else self.session

    @property
    def message(self) -> Mapping[str, Any]:
        """The answer's message; empty when there is no answer."""
        return answer_message(self.response) or {}

    @property
    def answer_text(self) -> str | None:
        """The answer's text; None when it has none (a tool call, an error, content of no kind)."""
        content = self.message.get("content")
        return None if content is None or not is_content(content) else content_text(content)

    @property
    def finish_reason(self) -> str | None:
        """Why the answer ended, as the response says."""
        reason = first_choice(self.response).get("finish_reason")
        return reason if isinstance(reason, str) else None

    @property
    def is_timed(self) -> bool:
        """Whether `at` is when it passed; an import that did not know has an id of time 0."""
        try:
            return uuid.UUID(self.id).int >> 80 > 0
        except ValueError:
            return True

    @property
    def answered_at(self) -> float | None:
        """When the model answered, in unix seconds; None where nobody knows (most imports)."""
        created = moment(self.response.get("created")) if self.response else None
        return created or (None if self.role == "imported" else self.at)


def make_record(
    request: dict[str, Any],
    response: dict[str, Any] | None,
    *,
    role: Role,
    workload: str | None = None,
    session: str | None = None,
    metadata: dict[str, Any] | None = None,
    status: Status | None = None,
    at: float | None = None,
) -> Record:
    """A Record with what can be derived filled in: id, hash, workload, status and model."""
    prompt_hash = workload_hash(request)
    moment = time.time() if at is None else at
    return Record(
        id=new_id(moment),
        at=moment,
        workload=workload or default_workload(prompt_hash),
        session=session,
        metadata=metadata or {},
        request=request,
        response=response,
        status=status or status_of(response),
        role=role,
        model=model_of(response) or model_of(request),
        source_id=None,
        prompt_hash=prompt_hash,
        end_user=user_of(request, metadata),
        usage=usage_of(response),
    )


def status_of(response: Mapping[str, Any] | None) -> Status:
    """ok for a whole answer, partial for one that was cut off, error when there is none."""
    if answer_message(response) is None:
        return "error"
    choice = first_choice(response)
    return "partial" if choice.get("finish_reason") in ("length", "content_filter") else "ok"


def model_of(body: Mapping[str, Any] | None) -> str:
    """The model a body names; empty when it names none."""
    model = body.get("model") if body else None
    return model if isinstance(model, str) else ""


def user_of(request: Mapping[str, Any], metadata: Mapping[str, Any] | None) -> str | None:
    """Whom a request names as its user: OpenAI's `user`, or `metadata.user`."""
    for named in (request.get("user"), (metadata or {}).get("user")):
        if isinstance(named, str) and named:
            return named
    return None


def usage_of(response: Mapping[str, Any] | None) -> Usage:
    """The tokens that an answer says it took; none where it does not say."""
    said = response.get("usage") if response else None
    if not isinstance(said, Mapping):
        return Usage()
    counts = cast("Mapping[str, Any]", said)
    read = counts.get("prompt_tokens", counts.get("input_tokens"))
    written = counts.get("completion_tokens", counts.get("output_tokens"))
    return Usage(_count(read), _count(written))


def _count(value: Any) -> int:
    is_count = isinstance(value, int) and not isinstance(value, bool)
    return value if is_count and 0 <= value < 2**31 else 0


def moment(value: Any) -> float | None:
    """A time in unix seconds, if it is one that can be written as a date."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 0 < value < _END_OF_TIME else None
