"""What certifying would give and cost, as far as develop can tell: to be read before spending.

In: a claim, the judged develop rows, and the attempt that the ledger would open. Out: the coverage
to expect, the units that the claim needs, and whether any outcome could certify at all. Nothing of
certify is looked at and nothing is spent, so it may be read as often as one likes; nor does it
promise anything. It is about A and B; what C and D will come to, it does not say. Invariants: a
preview that expects a certificate is right most of the time where certify is like develop
(test_preview_expects_what_then_comes); where it says that no outcome could certify, none does
(test_preview_blocks_only_what_no_outcome_certifies).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ownweights.verdict.certificate import Claim, Examples, Slice
from ownweights.verdict.judged import ANSWERED, FAILED, Judged, draw_one_per_unit
from ownweights.verdict.ledger import Opened
from ownweights.verdict.slices import slice_table
from ownweights.verdict.statistics import (
    Limits,
    binomial_p_value,
    develop_thresholds,
    hoeffding_bentkus_p_value,
    served_without_harm,
    start_of_walk,
    units_needed,
)
from ownweights.verdict.statistics.fixed_sequence import Floats, expected_p_values

NUM_TRIED = 10  # thresholds for which the units needed are worked out


@dataclass(frozen=True, slots=True)
class Preview:
    """What an attempt would be, and what to expect of it."""

    attempt: int
    delta_spent: float
    n: int  # certify units that nobody has looked at yet
    num_used: int
    num_develop: int
    num_answered: int
    harm_frac: float  # of develop's answers, served or not
    coverage_frac: float  # to expect of a certificate; 0: a refusal
    fewest: int  # units that it takes even if no answer does harm and all are served
    needed: Examples  # at the rates of develop; its records: fresh traffic for what is missing
    blocked: str | None = None  # why no outcome whatever could certify
    verdict_id: str | None = None  # where this very plan was judged before
    slices: tuple[Slice, ...] = ()  # where develop's answers do most harm

    def sentence(self) -> str:
        """The preview in words."""
        answers = f"{self.harm_frac:.1%} of {self.num_answered:,} develop answers come to harm"
        if self.verdict_id:
            return f"{self.attempt_in_words()}; {answers}"
        return (
            f"{self.attempt_in_words()} on {self.n:,} certify units; {answers};"
            f" to expect: {self.outlook()}; needed: {self.needs()}"
        )

    def attempt_in_words(self) -> str:
        """Which attempt it would be, and what it would spend."""
        if self.verdict_id:
            return f"attempt {self.attempt} has judged exactly this: verdict {self.verdict_id}"
        return f"attempt {self.attempt} would spend {self.delta_spent:.4g} of the error budget"

    def outlook(self) -> str:
        """What to expect of certifying."""
        if self.verdict_id:
            return f"verdict {self.verdict_id} again; asking for it spends nothing"
        if self.blocked:
            return f"no outcome could certify: {self.blocked}"
        if self.coverage_frac:
            return f"a certificate that covers about {self.coverage_frac:.0%}"
        return "a refusal"

    def needs(self) -> str:
        """How many units a certificate takes, and the fresh traffic that brings those missing."""
        records = self.needed.records
        more = f"; about {records:,} fresh requests bring those missing" if records else ""
        fewest = f" (never fewer than {self.fewest:,})" if self.needed.units else ""
        return f"{self.needed.reason}{fewest}{more}"


def preview(
    claim: Claim,
    develop: Sequence[Judged],
    would: Opened,
    is_graded: bool = False,
    units_per_record: float = 0.08,
) -> Preview:
    """What the attempt that would be opened shows, were its units like develop."""
    n, fewest = len(would.units), fewest_units(claim, would.delta_spent)
    scores = np.array([row.score for row in develop], np.float64)
    harms = np.array([row.counted_harm for row in develop], np.float64)
    answered = [row.counted_harm for row in develop if row.status == ANSWERED]
    losses_frac = sum(row.status == FAILED for row in develop) / max(1, len(develop))
    limits = Limits(claim.alpha, claim.beta, claim.delta_each(would.delta_spent))
    thresholds = develop_thresholds(scores, claim.min_coverage_frac)
    coverage, needed = 0.0, Examples(None, None, "a student whose answers may be served")
    if len(thresholds):
        test = hoeffding_bentkus_p_value if is_graded else binomial_p_value
        given = (thresholds, scores, harms, limits)
        first = start_of_walk(*given, n=n, losses_frac=losses_frac, test=test)
        p_values = expected_p_values(*given, n=n, losses_frac=losses_frac, test=test)
        passes = p_values[first:] <= limits.delta
        num = int(passes.argmin()) if not passes.all() else len(passes)
        coverage = float(np.mean(scores >= thresholds[first + num - 1])) if num else 0.0
        needed = _needed(*given, losses_frac=losses_frac)
    return Preview(
        would.k, would.delta_spent, n, would.num_used, len(develop), len(answered),
        float(np.mean(answered)) if answered else 0.0, coverage, fewest,
        _with_records(needed, n, units_per_record), _blocked(claim, thresholds, n, fewest),
        would.verdict_id, slice_table(draw_one_per_unit(develop), claim.beta),
    )  # fmt: skip


def fewest_units(claim: Claim, delta_spent: float) -> int:
    """Units without which nothing can be proved, were all of them served without a harm."""
    delta = claim.delta_each(delta_spent)
    return max(served_without_harm(limit, delta) for limit in (claim.alpha, claim.beta))


def _blocked(claim: Claim, thresholds: Floats, n: int, fewest: int) -> str | None:
    """Why the walk must fail at its first threshold, whatever certify shows; None: it need not."""
    if not len(thresholds):
        return (
            "too few of the develop requests got an answer that may be served; the strictest"
            f" threshold needs {claim.min_coverage_frac:.1%}"
        )
    if n < fewest:
        return (
            f"there are {n:,} certify units that no attempt has looked at, and the claim takes at"
            f" least {fewest:,} even if no answer does harm"
        )
    return None


def _needed(
    thresholds: Floats, scores: Floats, harms: Floats, limits: Limits, *, losses_frac: float
) -> Examples:
    """The fewest units for the claim at any threshold, at the rates that develop shows there.

    Half a harm is added, as where the walk begins: seeing none does not mean that there are none.
    """
    places = np.unique(np.linspace(0, len(thresholds) - 1, NUM_TRIED).round().astype(int))
    found: list[Examples] = []
    for threshold in thresholds[places]:
        is_served = scores >= threshold
        rate = float(harms[is_served].sum() + 0.5) / int(is_served.sum())
        one = units_needed(rate, float(is_served.mean()), losses_frac, limits)
        found.append(Examples(one.units, None, one.reason))
    return min(found, key=lambda one: math.inf if one.units is None else one.units)


def _with_records(needed: Examples, n: int, units_per_record: float) -> Examples:
    if needed.units is None:
        return needed
    missing = max(0, needed.units - n)
    return Examples(needed.units, math.ceil(missing / units_per_record), needed.reason)
