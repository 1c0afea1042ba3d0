"""Where the student fails: the traffic cut by what can be seen of it, harm counted in every part.

In: examples, then judged rows. Out: slice keys for each example (a field of the JSON target such
as `intent`, metadata with few values, the length of the request), and the table of slices, worst
first. Intervals are for each slice alone; slices point at what to look into, they certify nothing.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from ownweights.verdict.certificate import Slice
from ownweights.verdict.judged import ANSWERED, Judged
from ownweights.verdict.statistics.binomial import clopper_pearson_interval

MAX_VALUES = 100
MIN_PER_VALUE = 4  # fewer requests than this to a value, on average: not a way to cut
MAX_VALUE_CHARS = 80


class Sliceable(Protocol):
    """What slicing needs of an example."""

    @property
    def target(self) -> str: ...
    @property
    def messages(self) -> Sequence[Mapping[str, Any]]: ...
    @property
    def metadata(self) -> Mapping[str, Any]: ...


def slice_keys(examples: Sequence[Sliceable]) -> list[dict[str, str]]:
    """For each example, the slices it belongs to: key → value."""
    found = [_visible_fields(example) for example in examples]
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for fields in found:
        for key, value in fields.items():
            counts[key][value] += 1
    kept = {key for key, values in counts.items() if _is_useful(values)}
    lengths = np.array([_request_chars(example) for example in examples])
    cuts = np.quantile(lengths, [0.25, 0.5, 0.75]) if len(lengths) else np.zeros(3)
    names = [f"length {name}" for name in ("1st", "2nd", "3rd", "4th")]
    quarters = np.searchsorted(cuts, lengths, side="left")
    return [
        {key: value for key, value in fields.items() if key in kept}
        | {"request": f"{names[int(quarter)]} quarter"}
        for fields, quarter in zip(found, quarters, strict=True)
    ]


def slice_table(rows: Iterable[Judged], beta: float, *, max_rows: int = 40) -> tuple[Slice, ...]:
    """Harm of the student's answers in every slice, those that do most harm above `beta` first."""
    groups: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for row in rows:
        if row.status == ANSWERED:
            for key, value in row.slices.items():
                groups[key, value].append(row.counted_harm)
    table: list[Slice] = []
    for (key, value), harms in groups.items():
        n, k = len(harms), sum(harm > 0 for harm in harms)
        low, high = clopper_pearson_interval(k, n, 0.05)
        table.append(Slice(key, value, n, k, low, high, k > beta * n))
    table.sort(key=lambda s: (-(s.harms - beta * s.n), s.key, s.value))
    return tuple(table[:max_rows])


def _is_useful(values: Counter[str]) -> bool:
    return 2 <= len(values) <= MAX_VALUES and values.total() >= MIN_PER_VALUE * len(values)


def _visible_fields(example: Sliceable) -> dict[str, str]:
    fields = {
        f"metadata.{key}": str(value)
        for key, value in example.metadata.items()
        if isinstance(value, str | bool | int)
    }
    try:
        target = json.loads(example.target)
    except (ValueError, RecursionError):
        target = None
    if isinstance(target, dict):
        fields |= {
            f"target.{key}": str(value)
            for key, value in target.items()
            if isinstance(value, str | bool)
        }
    return {key: value for key, value in fields.items() if len(value) <= MAX_VALUE_CHARS}


def _request_chars(example: Sliceable) -> int:
    return sum(len(str(message.get("content") or "")) for message in example.messages)
