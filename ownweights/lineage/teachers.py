"""Who answered what is about to be studied, and whether their terms let it be.

In: (model, moment) of every answer. Out: one TeacherUse for each model and wording of its terms,
for the card. A denied teacher is refused unless overridden by its exact name, and the override
stays visible on the card (test_check_teachers_records_an_override).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ownweights.core.errors import TermsRefused
from ownweights.lineage.terms import TermsFact, day_of, teacher_terms

UNNAMED = "(unnamed)"


@dataclass(frozen=True, slots=True)
class TeacherUse:
    """Answers of one model under one wording of its terms: how many, when, on what grounds."""

    terms: TermsFact
    num_answers: int
    first_day: str | None
    last_day: str | None
    is_overridden: bool

    @property
    def warning(self) -> str | None:
        """What to tell whoever trains on this; None when there is nothing to say."""
        name, terms = self.terms.model, self.terms
        if self.is_overridden:
            return f"{name}: {terms.licence} denies training on its answers; overridden by name"
        if terms.trains == "unknown":
            return (
                f"{name}: whether its answers may be trained on is not known ({terms.why}); "
                "find out before you distribute anything"
            )
        return f"{name}: {terms.note}" if terms.note else None

    def to_json(self) -> dict[str, Any]:
        """The use as it stands on a card."""
        return {
            **self.terms.to_json(), "num_answers": self.num_answers, "first_day": self.first_day,
            "last_day": self.last_day, "is_overridden": self.is_overridden,
        }  # fmt: skip


def check_teachers(
    answers: Iterable[tuple[str, float | None]],
    *,
    allow: Sequence[str] = (),
    declared: Mapping[str, str] | None = None,
) -> list[TeacherUse]:
    """Every model with its terms, the most used first.

    `allow` overrides by exact name; `declared` maps names to ids of terms.
    Raises: TermsRefused when the terms of a model that is not in `allow` deny it
    """
    uses = _uses(answers, frozenset(allow), declared or {})
    refused = [use for use in uses if use.terms.trains == "denied" and not use.is_overridden]
    if refused:
        raise _refusal([use.terms for use in refused])
    return uses


def _uses(
    answers: Iterable[tuple[str, float | None]], allow: frozenset[str], declared: Mapping[str, str]
) -> list[TeacherUse]:
    by_day: dict[tuple[str, str | None], tuple[float | None, int]] = {}
    for model, at in answers:
        key = (model or UNNAMED, None if at is None else day_of(at).isoformat())
        by_day[key] = (at, by_day.get(key, (at, 0))[1] + 1)
    found: dict[TermsFact, list[tuple[str | None, int]]] = {}
    for (model, day), (at, count) in by_day.items():
        fact = teacher_terms(model, at, declared.get(model))
        found.setdefault(fact, []).append((day, count))
    uses = [_use(fact, days, allow) for fact, days in found.items()]
    return sorted(uses, key=lambda use: (-use.num_answers, use.terms.model, use.terms.as_of))


def _use(
    fact: TermsFact, days: Sequence[tuple[str | None, int]], allow: frozenset[str]
) -> TeacherUse:
    known = sorted(day for day, _ in days if day is not None)
    return TeacherUse(
        terms=fact,
        num_answers=sum(count for _, count in days),
        first_day=known[0] if known else None,
        last_day=known[-1] if known else None,
        is_overridden=fact.trains == "denied" and fact.model in allow,
    )


def _refusal(facts: Sequence[TermsFact]) -> TermsRefused:
    names = tuple(dict.fromkeys(fact.model for fact in facts))
    reasons = "; ".join(
        f"{fact.model} ({fact.licence}, as of {fact.as_of}): {fact.why}" for fact in facts
    )
    flags = " ".join(f"--allow-teacher {name}" for name in names)
    return TermsRefused(
        f"the terms of {', '.join(names)} deny training on the answers. {reasons}",
        teachers=names,
        hint=f"if you have the right all the same, say so by name: {flags}",
    )
