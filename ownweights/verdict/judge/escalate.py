"""Who decides what a judge leaves open: a stronger judge, then a person.

In: judges, weakest first, and labels by people. Out: comparisons that say by whom. A pair goes up
when it is undecided or could not be judged, never because of what it was decided to be; the first
decision stands (test_cascade_asks_the_stronger_judge_only_what_is_open).

Being consistent is not being right, so which judgements may be trusted can be tested: given how
sure a judge was and whether people agreed, trust_threshold finds how sure is sure enough, by
fixed-sequence testing from the surest down. The chance that the trusted ones disagree with people
more often than allowed is at most delta (test_trust_threshold_holds_in_simulation).
Source: Jung et al., Trust or Escalate (arXiv:2407.18370).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ownweights.core.errors import InputError
from ownweights.verdict.judge.agreement import majority
from ownweights.verdict.judge.judge import Comparison, Judge, Pair, Progress, Spent
from ownweights.verdict.statistics.binomial import binomial_p_value
from ownweights.verdict.statistics.fixed_sequence import develop_thresholds

MIN_TRUSTED_FRAC = 0.1  # the surest tenth is where the walk begins


class Cascade:
    """Judges in turn: each sees only what those before it left open."""

    def __init__(self, judges: Sequence[Judge]) -> None:
        assert judges, "a cascade needs a judge"
        self.judges = tuple(judges)

    @property
    def identity(self) -> dict[str, Any]:
        """The first judge's, and those above it."""
        first, *above = (judge.identity for judge in self.judges)
        return {**first, "above": above} if above else first

    @property
    def answered_by(self) -> tuple[str, ...]:
        return tuple(sorted({name for judge in self.judges for name in judge.answered_by}))

    @property
    def spent(self) -> Spent:
        """What all of them cost; no dollars where one has no price."""
        parts = [judge.spent for judge in self.judges]
        prices = [part.usd for part in parts if part.usd is not None]
        counts = {
            name: sum(getattr(part, name) for part in parts)
            for name in ("calls", "cached", "failed", "prompt_tokens", "completion_tokens")
        }
        return Spent(**counts, usd=sum(prices) if len(prices) == len(parts) else None)

    async def compare(
        self, pairs: Sequence[Pair], *, on_progress: Progress | None = None
    ) -> list[Comparison]:
        """The outcome of each pair, by the first judge who could decide it."""
        found: list[Comparison] = []
        for judge in self.judges:
            waiting = [i for i in range(len(pairs)) if not found or found[i].is_open]
            asked = [pairs[i] for i in waiting]
            if asked or not found:
                news = await judge.compare(asked, on_progress=on_progress)
                found = found or list(news)
                for i, one in zip(waiting, news, strict=True):
                    found[i] = one
        return found


def decide_by_people(
    comparisons: Sequence[Comparison], labels: Mapping[str, Sequence[str]]
) -> list[Comparison]:
    """The comparisons, those left open decided by what most people said."""
    return [
        dataclasses.replace(one, outcome=label, why="", by="people")
        if one.is_open and (label := majority(labels.get(one.id, ())))
        else one
        for one in comparisons
    ]


def trust_threshold(
    sureness: ArrayLike, agrees: ArrayLike, *, max_error_frac: float, delta: float = 0.05
) -> float | None:
    """How sure a judge must be for its word to be taken; None when that cannot be shown.

    Shapes: (n,) each, of independent pairs with a human label; agrees is whether people agree
    """
    sure, right = np.asarray(sureness, np.float64), np.asarray(agrees, np.bool_)
    if sure.shape != right.shape or sure.ndim != 1 or np.isnan(sure).any():
        raise InputError(f"{sure.size} numbers and {right.size} labels: expected as many of each")
    trusted: float | None = None
    for threshold in develop_thresholds(sure, MIN_TRUSTED_FRAC):
        is_in = sure >= threshold
        wrong = int((~right[is_in]).sum())
        if binomial_p_value(wrong, int(is_in.sum()), max_error_frac) > delta:
            break
        trusted = float(threshold)
    return trusted
