"""How often the teacher differs from itself, and the student from the teacher, on one request.

In: examples with what the student answered. Out: for one request of each unit that the teacher
answered at least twice, two shares: among its recorded answers, how often a second one differs from
a first, and how often the student's differs from that first. Both are measured against the very
same first answers, so that a student that is one more draw of the teacher has equal shares.

    recorded answers   t1  t2  t3     firsts t1 t2 t3 in turn
    teacher            t2≠t1 t3≠t1  t1≠t2 t3≠t2  t1≠t3 t2≠t3      mean → how noisy it is
    student            s≠t1         s≠t2         s≠t3             mean → how far it is

The records themselves are drawn from, never a list of distinct answers: that would make a teacher
that nearly always says the same look as if it never did (test_draw_twins_keeps_multiplicities).
Which request and which answers, a hash of unit and record decides, blind to what they say
(test_draw_twins_is_blind_to_the_answers). "Could not judge" counts against the student on both
sides: the teacher is taken to agree with itself, the student to differ
(test_floor_counts_what_nobody_could_judge_against_the_student).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ownweights.core.chat import Completion
from ownweights.dataset.prompt import request_key
from ownweights.verdict.asked import Asked
from ownweights.verdict.judged import lot

MAX_ANSWERS = 8  # of one request: more cost comparisons and say little more
Outcome = Completion | str


@dataclass(frozen=True, slots=True)
class Beside:
    """An example with one recorded answer alone to compare with."""

    id: str
    unit: str
    request: Mapping[str, Any]
    messages: Sequence[Mapping[str, Any]]
    target: str
    references: tuple[str, ...]
    model: str
    metadata: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Twins:
    """Asked answers to one request; `index` is the example whose answer stands first."""

    index: int
    answers: tuple[str, ...]


HarmOf = Callable[[Sequence[Beside], Sequence[Completion]], Awaitable[Sequence[float | None]]]


def draw_twins(examples: Sequence[Asked], max_answers: int = MAX_ANSWERS) -> list[Twins]:
    """For each unit the first request, by lot, that was answered twice, with its answers by lot."""
    units: defaultdict[str, list[int]] = defaultdict(list)
    for index, example in enumerate(examples):
        if example.references:
            units[example.unit].append(index)
    found: list[Twins] = []
    for unit in sorted(units):
        indices = sorted(units[unit], key=lambda i: lot(unit, examples[i].id))
        groups: defaultdict[str, list[int]] = defaultdict(list)
        for index in indices if len(indices) > 1 else ():
            groups[request_key(examples[index].request)].append(index)
        for group in groups.values():  # in the order of their first lots
            if len(group) > 1:
                answers = tuple(examples[i].target for i in group[:max_answers])
                found.append(Twins(group[0], answers))
                break
    return found


async def measure_floor(
    examples: Sequence[Asked],
    outcomes: Sequence[Outcome],
    harm_of: HarmOf,
    *,
    one_pair: bool = False,
) -> dict[int, tuple[float, float]]:
    """For each example that stands first and was answered: the teacher's share, the student's.

    `one_pair` compares two answers alone, one of them first: for a judge that costs.
    """
    drawn = [
        (twins, done)
        for twins in draw_twins(examples, 2 if one_pair else MAX_ANSWERS)
        if isinstance(done := outcomes[twins.index], Completion)
    ]
    places: list[tuple[int, bool]] = []
    asked: list[Beside] = []
    given: list[Completion] = []
    for twins, done in drawn:
        for first, answer, is_student in _comparisons(twins, done, one_pair):
            places.append((twins.index, is_student))
            asked.append(_beside(examples[twins.index], first))
            given.append(answer)
    harms = await harm_of(asked, given)
    sums: defaultdict[tuple[int, bool], list[float]] = defaultdict(list)
    for (index, is_student), harm in zip(places, harms, strict=True):
        sums[index, is_student].append(float(is_student) if harm is None else harm)
    return {twins.index: (_mean(sums[twins.index, False]), _mean(sums[twins.index, True]))
            for twins, _ in drawn}  # fmt: skip


def _comparisons(
    twins: Twins, done: Completion, one_pair: bool
) -> Iterator[tuple[str, Completion, bool]]:
    """(first answer, what is compared with it, whether that is the student's)."""
    for i, first in enumerate(twins.answers[:1] if one_pair else twins.answers):
        for j, other in enumerate(twins.answers):
            if i != j:
                yield first, Completion(other, "stop"), False
        yield first, done, True


def _beside(example: Asked, answer: str) -> Beside:
    return Beside(
        example.id, example.unit, example.request, example.messages, answer, (answer,),
        example.model, example.metadata,
    )  # fmt: skip


def _mean(harms: Sequence[float]) -> float:
    return sum(harms) / len(harms)
