"""Tier 0: what an endpoint says of itself. Free, and no chance is involved.

In: replies of the baseline and of a look. Out: *changed* when an answer names a model or carries a
`system_fingerprint` that no answer of the baseline did, *could not tell* when no answer says who it
is from. An endpoint may rotate among several fingerprints, so all that the baseline saw are kept.
Headers, latency and length of answers are only noted: they change with load and with the caller.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ownweights.core.chat import Completion
from ownweights.verdict.drift.asking import Reply
from ownweights.verdict.drift.outcome import CHANGED, COULD_NOT_TELL, SAME, Finding

HEADERS = ("openai-version", "anthropic-version", "x-model-version", "server")
SLOWER = 2.0  # a median this many times longer or shorter is noted


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a number of answers said of themselves."""

    models: tuple[str, ...] = ()
    fingerprints: tuple[str, ...] = ()
    headers: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    median_s: float | None = None
    median_tokens: float | None = None


def read_metadata(replies: Iterable[Reply]) -> Metadata:
    """What the answers among `replies` say of themselves."""
    answered = [reply for reply in replies if reply.completion is not None]
    found = [reply.completion for reply in answered if reply.completion is not None]
    tokens = [one.usage.completion_tokens for one in found if one.usage.completion_tokens]
    headers = {name: _distinct(one.headers.get(name) for one in found) for name in HEADERS}
    return Metadata(
        models=_distinct(one.model for one in found),
        fingerprints=_distinct(map(_fingerprint, found)),
        headers={name: values for name, values in headers.items() if values},
        median_s=_median([reply.seconds for reply in answered]),
        median_tokens=_median(tokens),
    )


def compare_metadata(before: Metadata, after: Metadata) -> tuple[Finding, tuple[str, ...]]:
    """What the metadata say, and what is only worth a note."""
    notes = (*_header_notes(before, after), *_pace_notes(before, after))
    if not after.models and not after.fingerprints:
        what = "no answer says which model gave it"
        return Finding("metadata", COULD_NOT_TELL, what), notes
    for feature in ("models", "fingerprints"):
        known, now = getattr(before, feature), getattr(after, feature)
        if new := sorted(set(now) - set(known)) if known else []:
            what = f"{feature[:-1]} {', '.join(new)} where {', '.join(known)} was"
            return Finding("metadata", CHANGED, what, p_value=0.0, feature=feature[:-1]), notes
    return Finding("metadata", SAME, f"answers name {', '.join(after.models)}"), notes


def _fingerprint(completion: Completion) -> str:
    value = (completion.body or {}).get("system_fingerprint")
    return value if isinstance(value, str) else ""


def _distinct(values: Iterable[str | None]) -> tuple[str, ...]:
    return tuple(sorted({value for value in values if value}))


def _median(values: Sequence[float]) -> float | None:
    return float(statistics.median(values)) if values else None


def _header_notes(before: Metadata, after: Metadata) -> tuple[str, ...]:
    return tuple(
        f"header {name}: {', '.join(values)} where {', '.join(known)} was"
        for name, values in after.headers.items()
        if (known := before.headers.get(name, ())) and not set(values) <= set(known)
    )


def _pace_notes(before: Metadata, after: Metadata) -> tuple[str, ...]:
    pairs = (
        ("seconds an answer", before.median_s, after.median_s),
        ("tokens an answer, which is what it costs", before.median_tokens, after.median_tokens),
    )
    return tuple(
        f"median {name}: {now:.3g} where {then:.3g} was"
        for name, then, now in pairs
        if then and now and not 1 / SLOWER <= now / then <= SLOWER
    )
