"""What an endpoint can do, by asking it once: who answers, how fast, and which options it takes.

In: a Completer that speaks to the endpoint. Out: a Probe; None is "could not tell". One tiny
request asks for everything; only where that is refused are the options tried one by one
(test_probe_tries_options_alone_where_all_are_refused). Invariant: an option that is taken in
silence and not honoured counts as not there, where that shows (test_probe_sees_what_is_ignored).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from ownweights.core.chat import ChatRequest, Completion
from ownweights.core.completer import Completer
from ownweights.core.errors import CompleterError, CompleterRefused

QUESTION = [{"role": "user", "content": 'Answer with this JSON object alone: {"hello": "world"}'}]
OPTIONS: dict[str, dict[str, Any]] = {
    "logprobs": {"logprobs": True},
    "seed": {"seed": 7},
    "json": {"response_format": {"type": "json_object"}},
}
UNFIT = (400, 422)  # statuses that say the endpoint does not take an option
NOT_FOUND = 404  # a replay teacher's, that knows no such request: says nothing of the option
MAX_TOKENS = 16


@dataclass(frozen=True, slots=True)
class Probe:
    """`answered_by` and `fingerprint` as the answer says; of `seed` only that it is taken."""

    answered_by: str
    fingerprint: str | None
    latency_s: float
    logprobs: bool | None
    seed: bool | None
    json: bool | None


async def probe_endpoint(completer: Completer, model: str) -> Probe:
    """Ask for one short answer, and see what came.

    Raises: CompleterError where not even a plain request is answered
    """
    everything = {name: value for part in OPTIONS.values() for name, value in part.items()}
    try:
        done, latency_s = await _ask(completer, model, **everything)
        taken = {name: _shows(name, done) for name in OPTIONS}
    except CompleterRefused as error:
        if error.status not in (*UNFIT, NOT_FOUND):
            raise
        done, latency_s = await _ask(completer, model)
        taken = {name: await _takes(completer, model, name) for name in OPTIONS}
    fingerprint = (done.body or {}).get("system_fingerprint")
    named = fingerprint if isinstance(fingerprint, str) and fingerprint else None
    return Probe(done.model, named, round(latency_s, 3), **taken)


async def _ask(completer: Completer, model: str, **fields: Any) -> tuple[Completion, float]:
    asked_s = time.perf_counter()
    request = ChatRequest.of(QUESTION, model, max_tokens=MAX_TOKENS, **fields)
    done = await completer.complete(request)
    return done, time.perf_counter() - asked_s


async def _takes(completer: Completer, model: str, name: str) -> bool | None:
    try:
        done, _ = await _ask(completer, model, **OPTIONS[name])
    except CompleterRefused as error:
        return False if error.status in UNFIT else None
    except CompleterError:
        return None
    return _shows(name, done)


def _shows(name: str, done: Completion) -> bool:
    """Whether an answer to a request with the option is what was asked for."""
    if name == "logprobs":
        choices = (done.body or {}).get("choices") or [{}]
        found = choices[0].get("logprobs") if isinstance(choices[0], Mapping) else None
        return isinstance(found, Mapping) and bool(found.get("content"))
    if name == "json":
        try:
            return isinstance(msgspec.json.decode((done.text or "").encode()), dict)
        except (ValueError, RecursionError):
            return False
    return True
