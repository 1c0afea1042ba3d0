"""What certifying would give and cost, as far as develop can tell: to be read before spending.

In: a claim, the judged develop rows, how many fresh certify units there are, and the attempt they
would be spent on. Out: the coverage to expect, and the units that the claim needs. Nothing of
certify is looked at and nothing is spent, so it may be read as often as one likes; nor does it
promise anything. Invariants: a preview that expects a certificate is right most of the time where
certify is like develop (test_preview_expects_what_then_comes).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ownweights.verdict.certificate import Claim, Examples
from ownweights.verdict.judged import ANSWERED, FAILED, Judged
from ownweights.verdict.statistics import (
    Limits,
    binomial_p_value,
    develop_thresholds,
    hoeffding_bentkus_p_value,
    start_of_walk,
    units_needed,
)
from ownweights.verdict.statistics.fixed_sequence import expected_p_values


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
    needed: Examples  # for a certificate at the rates of develop

    def sentence(self) -> str:
        """The preview in words."""
        if not self.n:
            return "there is no certify unit left that an attempt has not looked at: fresh traffic"
        outlook = (
            f"to expect: a certificate that covers about {self.coverage_frac:.0%}"
            if self.coverage_frac
            else "to expect: a refusal"
        )
        return (
            f"attempt {self.attempt} would spend {self.delta_spent:.4g} on {self.n:,} certify"
            f" units; {self.harm_frac:.1%} of {self.num_answered:,} develop answers come to harm;"
            f" {outlook}; needed: {self.needed.reason}"
        )


def preview(
    claim: Claim,
    develop: Sequence[Judged],
    *,
    n: int,
    attempt: int,
    delta_spent: float,
    num_used: int = 0,
    is_graded: bool = False,
) -> Preview:
    """What `n` certify units would show, were they like develop."""
    scores = np.array([row.score for row in develop], np.float64)
    harms = np.array([row.counted_harm for row in develop], np.float64)
    answered = [row.counted_harm for row in develop if row.status == ANSWERED]
    losses_frac = sum(row.status == FAILED for row in develop) / max(1, len(develop))
    limits = Limits(claim.alpha, claim.beta, delta_spent)
    thresholds = develop_thresholds(scores, claim.min_coverage_frac)
    coverage, needed = 0.0, Examples(None, None, "an answer that may be served")
    if len(thresholds):
        test = hoeffding_bentkus_p_value if is_graded else binomial_p_value
        given = (thresholds, scores, harms, limits)
        first = start_of_walk(*given, n=n, losses_frac=losses_frac, test=test)
        p_values = expected_p_values(*given, n=n, losses_frac=losses_frac, test=test)
        passes = p_values[first:] <= delta_spent
        num = int(passes.argmin()) if not passes.all() else len(passes)
        coverage = float(np.mean(scores >= thresholds[first + num - 1])) if num else 0.0
        needed = _needed(scores, harms, thresholds[first], losses_frac, limits)
    return Preview(
        attempt, delta_spent, n, num_used, len(develop), len(answered),
        float(np.mean(answered)) if answered else 0.0, coverage, needed,
    )  # fmt: skip


def _needed(
    scores: np.ndarray, harms: np.ndarray, threshold: float, losses_frac: float, limits: Limits
) -> Examples:
    """Units for the claim at the rates that develop shows at the first threshold."""
    is_served = scores >= threshold
    rate, coverage = float(harms[is_served].mean()), float(is_served.mean())
    found = units_needed(rate, coverage, losses_frac, limits)
    return Examples(found.units, None, found.reason)
