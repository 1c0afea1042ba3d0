"""Which score to go by: the one that sorts the develop answers best, unless it costs more.

In: develop's answers, harms and units. Out: a Confidence, the scores that develop is to be judged
by, and what every kind of score would have been. The measure is the area under the risk-coverage
curve from `min_coverage_frac` up, over all answers there are; one that a score refuses to serve
comes last. Learned kinds are compared by cross-fitting: every unit is scored by a fit that has not
seen it. Develop is judged in the order of these scores, for requests to come will be sorted no
better (test_tune_scores_develop_as_it_will_score_others).

    free       plain and logistic: one answer, which is there anyway        the smallest area wins
    gate       the prompt alone, no answer: can be streamed  ┐ must be better than the winner by
    agreement  1 + samples answers                           ┘ MARGIN standard errors of the gain

The gate must be better although it is the cheapest in time, because serving fewer requests costs
more than waiting for them; who wants streams says so (`Wanted.streaming`), and gets the gate.
Invariants: test_tune_does_not_flatter_noise, test_tune_prefers_neither_for_nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ownweights.core.chat import Completion
from ownweights.core.errors import UsageError
from ownweights.verdict.confidence.fit import (
    FOLDS,
    NUM_GROUPS,
    Floats,
    Ints,
    cross_fit,
    fit_logistic,
    gain_of,
    risk_coverage_area,
    unit_part,
)
from ownweights.verdict.confidence.gate import fit_gate, gate_confidence
from ownweights.verdict.confidence.score import (
    AGREEMENT,
    GATE,
    LOGISTIC,
    PLAIN_KINDS,
    Confidence,
    columns,
)

MARGIN = 2.0  # standard errors by which a score must be better than one that is free


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the score is for, and which kinds may be had."""

    answers: str = "text"
    min_coverage_frac: float = 0.0
    samples: int = 0  # answers drawn beside the greedy one; 0: no agreement
    check: str = ""  # what compared them
    streaming: bool = False  # only a score that is known before the answer will do


@dataclass(frozen=True, slots=True)
class Compared:
    """What one kind of score would have been on develop, and what it costs."""

    kind: str
    area: float  # mean harm among the surest: smaller is better
    calls: int  # of the student, for one request
    wait_tokens: float  # generated, on average, before the first may be sent
    is_chosen: bool = False

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclass(frozen=True, slots=True)
class Tuned:
    """The chosen score; `develop_scores` has one number a request, -inf for what is not served."""

    confidence: Confidence
    develop_scores: Floats
    compared: tuple[Compared, ...] = ()


def tune_confidence(
    completions: Sequence[Completion | None],
    harms: Floats,
    units: Sequence[str],
    *,
    answers: str = "text",
    min_coverage_frac: float = 0.0,
) -> Confidence:
    """The score that sorts the develop answers best; `tune` says more."""
    return tune(completions, harms, units, Wanted(answers, min_coverage_frac)).confidence


def tune(
    completions: Sequence[Completion | None],
    harms: Floats,
    units: Sequence[str],
    wanted: Wanted | None = None,
) -> Tuned:
    """The score that sorts the develop answers best, learned ones judged out of fold.

    Shapes: completions, harms (n,) and units agree; None is a request without an answer, and
    anything that could not be judged should come as harm 1
    Raises: UsageError where streaming is wanted of a student that says nothing of its prompts
    """
    wanted = wanted or Wanted()
    table = _Table.of(completions, harms, units, wanted)
    if wanted.streaming and not table.has_states:
        raise UsageError(
            "a score that is known before the answer needs the state of the prompt, and there is"
            " no develop answer, or none with it",
            hint="own students say it; leave `streaming` out for others",
        )
    scores = table.all_scores()
    kind = _choose(scores, table)
    confidence = table.confidence(kind)
    every = np.full(len(completions), -np.inf)
    every[table.asked] = table.as_if_unseen(scores[kind], confidence) if kind in scores else -np.inf
    return Tuned(confidence, every, table.compared(scores, kind))


@dataclass(frozen=True)
class _Table:
    """Develop as rows: what was answered at all, what each kind of score may look at."""

    wanted: Wanted
    asked: Ints  # which requests have an answer: the rows of everything below
    found: list[Completion]
    harms: Floats
    units: list[str]
    min_coverage_frac: float  # of the rows

    @classmethod
    def of(
        cls,
        completions: Sequence[Completion | None],
        harms: Floats,
        units: Sequence[str],
        wanted: Wanted,
    ) -> _Table:
        asked = np.flatnonzero([done is not None for done in completions]).astype(np.int64)
        share = wanted.min_coverage_frac * len(completions) / max(1, len(asked))
        found = [done for done in completions if done is not None]
        named = [unit for unit, done in zip(units, completions, strict=True) if done is not None]
        return cls(wanted, asked, found, harms[asked], named, share)

    @property
    def has_states(self) -> bool:
        """Whether every answer came with its prompt's state, all of one width."""
        found = self._known_states()
        is_whole = bool(found) and len(found) == len(self.found)
        return is_whole and len({len(state) for state in found}) == 1

    def states(self) -> Floats:
        return np.stack(self._known_states()).astype(np.float64)

    def _known_states(self) -> list[np.ndarray]:
        states = [one.features.prompt_state for one in self.found if one.features]
        return [state for state in states if state is not None and np.isfinite(state).all()]

    def parts(self, count: int, salt: str = "") -> Ints:
        return np.array([unit_part(unit, count, salt=salt) for unit in self.units], np.int64)

    def all_scores(self) -> dict[str, Floats]:
        """The scores of every kind that can be had: plain ones as they are, learned out of fold."""
        found: dict[str, Floats] = {}
        kept, rows = self.columns(AGREEMENT) if self.wanted.samples else (None, np.empty((0, 8)))
        if kept is not None and len(kept):
            found[AGREEMENT] = self._learned(kept, rows)
        kept, rows = self.columns(LOGISTIC)
        if len(kept):
            for j, kind in enumerate(PLAIN_KINDS):
                found[kind] = self._placed(kept, rows[:, j])
            found[LOGISTIC] = self._learned(kept, rows)
        if self.has_states:
            folds = self.parts(FOLDS)
            found[GATE] = cross_fit(fit_gate, self.states(), self.harms, folds)
        return found

    def columns(self, kind: str) -> tuple[Ints, Floats]:
        """The rows that a kind would serve at all, and the numbers it looks at."""
        gate = Confidence(PLAIN_KINDS[0], self.wanted.answers)
        rows = {
            index: columns(done.features, with_agreement=kind == AGREEMENT)
            for index, done in enumerate(self.found)
            if gate.score(done.features, done.finish_reason, done.text) > -np.inf
        }
        known = {index: row for index, row in rows.items() if row is not None}
        return np.array(list(known), np.int64), np.array(list(known.values()))

    def confidence(self, kind: str) -> Confidence:
        """The kind, fitted on all of develop."""
        answers = self.wanted.answers
        if kind == GATE:
            return gate_confidence(self.states(), self.harms, answers=answers)
        if kind in PLAIN_KINDS:
            return Confidence(kind, answers)
        kept, rows = self.columns(kind)
        *numbers, bias = fit_logistic(rows, self.harms[kept])
        parts = (tuple(part.tolist()) for part in numbers)
        found = Confidence(kind, answers, *parts, bias=bias)
        if kind == LOGISTIC:
            return found
        return dataclasses.replace(found, samples=self.wanted.samples, check=self.wanted.check)

    def as_if_unseen(self, scores: Floats, confidence: Confidence) -> Floats:
        """The final score's own values, in the order of the fits that had not seen the units.

        Fits on fewer units are on scales of their own: a threshold among their values might serve
        nobody by the final one. So each fold's values are sorted as its unseen scores are.
        """
        final = np.array([
            confidence.score(done.features, done.finish_reason, done.text) for done in self.found
        ])  # fmt: skip
        found, folds = scores.copy(), self.parts(FOLDS)
        for fold in np.unique(folds):
            held = np.flatnonzero((folds == fold) & np.isfinite(scores))
            found[held[np.argsort(scores[held], kind="stable")]] = np.sort(final[held])
        return found

    def compared(self, scores: dict[str, Floats], chosen: str) -> tuple[Compared, ...]:
        """What every kind would have been, best first."""
        lengths = [len(one.features.token_ids) for one in self.found if one.features]
        length = float(np.mean(lengths)) if lengths else 0.0
        table = [
            Compared(
                kind, self.area(found), 1 + (kind == AGREEMENT) * self.wanted.samples,
                1.0 if kind == GATE else length, kind == chosen,
            )
            for kind, found in scores.items()
        ]  # fmt: skip
        return tuple(sorted(table, key=lambda one: (one.area, one.kind)))

    def area(self, scores: Floats) -> float:
        return risk_coverage_area(_finite(scores), self.harms, self.min_coverage_frac)

    def _learned(self, kept: Ints, rows: Floats) -> Floats:
        harms, folds = self.harms[kept], self.parts(FOLDS)[kept]
        return self._placed(kept, cross_fit(fit_logistic, rows, harms, folds))

    def _placed(self, kept: Ints, scores: Floats) -> Floats:
        found = np.full(len(self.found), -np.inf)
        found[kept] = scores
        return found


def _choose(scores: dict[str, Floats], table: _Table) -> str:
    if table.wanted.streaming:
        return GATE
    free = [kind for kind in (*PLAIN_KINDS, LOGISTIC) if kind in scores]
    if not free:
        return PLAIN_KINDS[0]
    best = min(free, key=lambda kind: table.area(scores[kind]))
    groups = table.parts(NUM_GROUPS, "ownweights-margin-1")
    for kind in (GATE, AGREEMENT):
        if kind in scores:
            gain, error = gain_of(
                _finite(scores[kind]), _finite(scores[best]), table.harms, groups,
                min_coverage_frac=table.min_coverage_frac,
            )  # fmt: skip
            best = kind if gain > MARGIN * error else best
    return best


def _finite(scores: Floats) -> Floats:
    """The same order, with what is never served as one tie at the end."""
    known = scores[np.isfinite(scores)]
    return np.where(np.isfinite(scores), scores, known.min() - 1.0 if len(known) else 0.0)
