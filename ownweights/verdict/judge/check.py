"""A judge in the place of a check: what `run_verdict` asks for harm where no check can tell.

In: a dataset's examples and what the student answered. Out: harm 0, 1, or None for each. On develop
the judge is first put to its probes, and beside people where there are labels; a judge that fails
is refused before an attempt is booked (test_invalid_judge_spends_no_attempt). An answer that equals
a recorded one as text or as JSON is no harm, and nobody is asked; an empty one is harm.

What certificates say of the judge is in `facts`: who it is, its probes, what place and length had
to do with its verdicts, and its known error. They come from develop alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ownweights.core.chat import Completion
from ownweights.core.errors import InvalidJudge
from ownweights.verdict.asked import Answered
from ownweights.verdict.checks import check_named
from ownweights.verdict.judge.agreement import Agreement, measure_agreement, sample_pairs
from ownweights.verdict.judge.escalate import Cascade, decide_by_people
from ownweights.verdict.judge.judge import (
    LOSS,
    TIE_OUTCOME,
    WIN,
    Comparison,
    Judge,
    Pair,
    Progress,
)
from ownweights.verdict.judge.people import hash_labels, read_labels, write_queue
from ownweights.verdict.judge.probes import NUM_PROBES, measure_bias, refuse_invalid, run_probes

GAINS = {WIN: 1.0, TIE_OUTCOME: 0.0, LOSS: -1.0}  # student - teacher


@dataclass(frozen=True, slots=True)
class People:
    """The file of people's labels, and for how many answers of develop one is wanted."""

    path: Path
    num_labels: int = 0


@dataclass
class JudgeCheck:
    """Harm by comparison. `queued` counts the pairs left open that were written for people."""

    judge: Judge | Cascade
    people: People | None = None
    num_probes: int = NUM_PROBES
    name: str = "judge"
    is_graded: bool = False
    facts: dict[str, Any] = field(default_factory=dict[str, Any])
    queued: int = 0
    differences: list[float | None] = field(default_factory=list[float | None])  # of the last call

    @property
    def identity(self) -> dict[str, Any]:
        """What a plan says of the judge, before anything is asked."""
        people = self.people
        if people is None:
            return self.judge.identity
        labels = {"file": hash_labels(people.path), "num": people.num_labels}
        return {**self.judge.identity, "labels": labels}

    @property
    def spent(self) -> dict[str, Any]:
        """What judging has cost so far."""
        return dataclasses.asdict(self.judge.spent)

    async def judge_all(
        self,
        examples: Sequence[Answered],
        outcomes: Sequence[Completion | str],
        *,
        stage: str,
        on_progress: Progress | None = None,
    ) -> list[float | None]:
        """The harm of each answer; None for one that is missing or could not be judged.

        Raises: InvalidJudge on develop, when probes or labels do not bear the judge out
        """
        pairs = _pairs(examples, outcomes)
        told = ((p.id, _known_harm(p.answer, examples[int(p.id)].references)) for p in pairs)
        known = {name: harm for name, harm in told if harm is not None}
        if stage == "develop":
            await self._examine(_one_per_unit(examples, pairs), known, on_progress)
        asked = [pair for pair in pairs if pair.id not in known]
        found = await self.judge.compare(asked, on_progress=on_progress)
        if stage == "develop":
            self.facts["bias"] = dataclasses.asdict(measure_bias(asked, found))
        self.facts["answered_by"] = list(self.judge.answered_by)
        decided = self._decide(asked, found)
        harms = {**known, **{one.id: one.harm for one in decided}}
        gains = {name: -harm for name, harm in known.items()}
        gains |= {one.id: GAINS[one.outcome] for one in decided if one.outcome in GAINS}
        self.differences = [gains.get(str(index)) for index in range(len(examples))]
        return [harms.get(str(index)) for index in range(len(examples))]

    async def _examine(
        self, drawn: Sequence[Pair], known: Mapping[str, float], on_progress: Progress | None
    ) -> None:
        """Learn what the certificate will say of the judge; refuse it where that is damning."""
        self.facts = dict(self.identity)
        whole = [pair for pair in drawn if pair.answer.strip()]
        probed = sample_pairs(whole, self.num_probes)
        judges = self.judge.judges if isinstance(self.judge, Cascade) else (self.judge,)
        parts: list[dict[str, Any]] = []
        for judge in judges:
            probes = await run_probes(judge, probed, on_progress=on_progress)
            told = [dataclasses.asdict(probe) for probe in probes]
            parts.append({**judge.identity, "probes": told})
            refuse_invalid(parts[-1])
        self.facts |= parts[0] | ({"above": parts[1:]} if parts[1:] else {})
        if self.people is not None and self.people.num_labels:
            agreement = await self._ask_people(self.people, drawn, known, on_progress)
            self.facts["agreement"] = _told(agreement)
            refuse_invalid(self.facts)

    async def _ask_people(
        self,
        people: People,
        drawn: Sequence[Pair],
        known: Mapping[str, float],
        on_progress: Progress | None,
    ) -> Agreement:
        """The judge beside people, on a random draw of the answers."""
        anchors = sample_pairs(drawn, people.num_labels)
        unknown = [pair for pair in anchors if pair.id not in known]
        labels = read_labels(people.path, unknown) if people.path.exists() else {}
        missing = [pair for pair in unknown if pair.id not in labels]
        if missing:
            write_queue(people.path, missing, why="to measure the judge")
            raise InvalidJudge(
                f"{len(missing)} of the {len(anchors)} answers drawn to measure the judge by have"
                " no human label yet",
                hint=f"fill in the empty labels in {people.path}, then run this again",
            )
        found = await self.judge.compare(unknown, on_progress=on_progress)
        # nobody need be asked about what is equal, or empty
        plain = {name: LOSS if harm else TIE_OUTCOME for name, harm in known.items()}
        sure = [pair.id for pair in anchors if pair.id in plain]
        found += [Comparison(name, plain[name]) for name in sure]
        return measure_agreement(found, {**labels, **{name: [plain[name]] for name in sure}})

    def _decide(self, pairs: Sequence[Pair], found: Sequence[Comparison]) -> list[Comparison]:
        """What the judge left open decided by people, or written down for them."""
        if self.people is None:
            return list(found)
        path = self.people.path
        labels = read_labels(path, pairs) if path.exists() else {}
        decided = decide_by_people(found, labels)
        still_open = [pair for pair, one in zip(pairs, decided, strict=True) if one.is_open]
        self.queued += write_queue(path, still_open, why="the judge is undecided")
        return decided


def _pairs(examples: Sequence[Answered], outcomes: Sequence[Completion | str]) -> list[Pair]:
    """What can be compared, named by its place among the examples."""
    return [
        Pair(str(index), example.request["messages"], done.text or "", example.references[0])
        for index, (example, done) in enumerate(zip(examples, outcomes, strict=True))
        if isinstance(done, Completion) and example.references
    ]


SURE = ("exact", "json")  # checks whose "no harm" leaves nothing to judge


def _known_harm(answer: str, references: Sequence[str]) -> float | None:
    """The harm of an answer about which nobody need be asked."""
    if not answer.strip():
        return 1.0
    is_equal = any(check.harm(answer, references) == 0.0 for check in map(check_named, SURE))
    return 0.0 if is_equal else None


def _one_per_unit(examples: Sequence[Answered], pairs: Sequence[Pair]) -> list[Pair]:
    """One pair of each unit, drawn by hash: they are independent of each other."""
    by_unit: dict[str, Pair] = {}
    for pair in sample_pairs(pairs, len(pairs)):
        by_unit.setdefault(examples[int(pair.id)].unit, pair)
    return list(by_unit.values())


def _told(agreement: Agreement) -> dict[str, Any]:
    """An agreement as a certificate keeps it."""
    return {**dataclasses.asdict(agreement), "missed_high": agreement.missed_high}
