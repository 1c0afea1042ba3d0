"""Which recorded requests become canaries: a frozen, even sample of what users really ask.

In: recorded requests of some workloads, a count, a seed. Out: canaries, as many of each workload as
of any other while they last, no request twice, in an order that the seed alone decides
(test_pick_canaries_ignores_the_order_of_records). What was recorded as their answer is the
reference; the check is `json` where all of a workload's answers are JSON, else `exact`. Left out
are requests whose answer was no text (tool calls) and those that only a browser's stream would see
otherwise: streaming is switched off.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from ownweights.core.artefact import hash_json
from ownweights.verdict.checks import choose_check
from ownweights.verdict.drift.baseline import Canary


class Recorded(Protocol):
    """What a canary needs of a record."""

    @property
    def workload(self) -> str: ...
    @property
    def request(self) -> Mapping[str, Any]: ...
    @property
    def answer_text(self) -> str | None: ...


def pick_canaries(records: Iterable[Recorded], count: int, *, seed: int = 0) -> list[Canary]:
    """At most `count` canaries, from all workloads alike."""
    asked: dict[str, dict[str, tuple[dict[str, Any], list[str]]]] = {}
    for record in records:
        if not record.answer_text:
            continue
        body = {k: v for k, v in record.request.items() if not k.startswith("stream")}
        found = asked.setdefault(record.workload, {}).setdefault(hash_json(body), (body, []))
        found[1].append(record.answer_text)
    rows = [_of_workload(name, asked[name], seed) for name in sorted(asked)]
    turns = itertools.chain.from_iterable(itertools.zip_longest(*rows))
    return [canary for canary in turns if canary is not None][:count]


def _of_workload(
    workload: str, asked: Mapping[str, tuple[dict[str, Any], Sequence[str]]], seed: int
) -> list[Canary]:
    check = choose_check(answer for _, answers in asked.values() for answer in answers).name
    order = sorted(asked, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
    return [
        Canary(
            f"{workload}/{name[:12]}", workload, asked[name][0],
            tuple(sorted(set(asked[name][1]))), check,
        )
        for name in order
    ]  # fmt: skip
