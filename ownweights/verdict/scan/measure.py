"""From what was gathered to what a scan says: units, agreement, cost, bounds, needs.

  agreement  two recorded answers to one request, drawn by hash, one pair a unit, compared by the
             check that a verdict would choose. With s the share that agrees: a student that is one
             more draw of the teacher agrees in s, and none that sees the request alone in more than
             √s, since for each request the likeliest answer has p ≤ √Σp², and the mean of a root is
             at most the root of the mean (test_ceiling_holds_for_the_best_student). A request that
             was recorded several times may match any of its answers: there is no such bound for it
  coverage   at most e, the share of the requests that some student could answer as asked. Nothing
             measured bounds those asked once: the pairs are of those asked twice. Beside it an
             extrapolation, as if a, the bound above, held for them too: e·a + α or e·a/(1-β), the
             smaller, α and β the claim's, for a student that knew where it agrees
             (test_coverage_holds_for_an_oracle, test_scan_bound_does_not_borrow_agreement)
  cost       tokens as recorded; where they were not, characters over the characters that a recorded
             token has here, or over CHARS_PER_TOKEN
  needs      units as a refusal counts them, every coverable request being served; traffic to come
             is taken to bring units at the rate of the past, which repeats make optimistic

Invariant: certify holds as many units as the dataset built from the same records
(test_scan_units_match_the_dataset_built).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ownweights.core.chat import Usage
from ownweights.dataset.near import near_pairs
from ownweights.dataset.split import SPLITS
from ownweights.teacher.prices import CHARS_PER_TOKEN
from ownweights.verdict.certificate import Claim
from ownweights.verdict.scan.values import (
    DAYS_PER_MONTH,
    Agreement,
    Cost,
    Coverage,
    Need,
    Period,
    Prices,
    Repeats,
    TokenCount,
    Units,
    WorkloadScan,
)
from ownweights.verdict.statistics import (
    Limits,
    attempt_delta,
    clopper_pearson_interval,
    units_needed,
)

if TYPE_CHECKING:
    from ownweights.verdict.scan.gather import Gathered

DAY_S = 86_400.0
MIN_PERIOD_S = 3_600.0  # less makes no rate
HARM_RATES = (0.0, 0.01, 0.02, 0.05)
Hashes = NDArray[np.uint64]


@dataclass(slots=True)
class TokenSums:
    """Tokens as recorded, their characters, and the characters of what has no tokens recorded."""

    answers: int = 0
    recorded: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    recorded_chars: int = 0
    chars_in: int = 0
    chars_out: int = 0

    def add(self, usage: Usage | None, chars_in: int, chars_out: int) -> None:
        self.answers += 1
        if usage is None:
            self.chars_in += chars_in
            self.chars_out += chars_out
            return
        self.recorded += 1
        self.tokens_in += usage.prompt_tokens
        self.tokens_out += usage.completion_tokens
        self.recorded_chars += chars_in + chars_out

    def count(self, chars_per_token: float) -> tuple[float, float]:
        """Tokens in and out, with the characters turned into tokens."""
        return (
            self.tokens_in + self.chars_in / chars_per_token,
            self.tokens_out + self.chars_out / chars_per_token,
        )

    @property
    def chars_per_token(self) -> float:
        """What recorded tokens measure here."""
        total = self.tokens_in + self.tokens_out
        return self.recorded_chars / total if total and self.recorded_chars else CHARS_PER_TOKEN


def measure(one: Gathered) -> WorkloadScan:
    """What a scan says of one workload."""
    unit, split = _columns(one)
    agreement = _agreement(one, unit, split)
    coverage = _coverage(one, agreement, one.plan.claim)
    certify = np.unique(unit[split == SPLITS.index("certify")]).size
    by = one.split_by
    period = _period(one)
    units = Units(by.name, by.reason, int(np.unique(unit).size), int(certify))
    rate = one.tokens.chars_per_token
    return WorkloadScan(
        workload=one.workload,
        records=one.num_records,
        by_student=one.by_student,
        errors=one.errors,
        models=tuple(sorted(one.models)),
        period=period,
        repeats=_repeats(one),
        units=units,
        agreement=agreement,
        tokens=TokenCount(
            *one.tokens.count(rate), one.tokens.recorded / max(1, one.tokens.answers), rate
        ),
        coverage=coverage,
        cost=_cost(one, coverage, period, rate),
        needs=_needs(one, coverage, units, period),
    )


def agreement_ceiling(agree_frac: float) -> float:
    """How often any student can agree with a fresh answer of a teacher that agrees so often."""
    return math.sqrt(agree_frac)


def coverage_bound(coverable_frac: float, agree_frac: float, claim: Claim) -> float:
    """The share of requests that can be served at most within the claim's limits, where answers
    agree so often at best.
    """
    agreeing = coverable_frac * agree_frac
    return min(coverable_frac, agreeing + claim.alpha, agreeing / (1.0 - claim.beta))


def _columns(one: Gathered) -> tuple[Hashes, NDArray[np.int8]]:
    units, splits = one.units
    return np.asarray(units, np.uint64), np.asarray(splits, np.int8)


def _repeats(one: Gathered) -> Repeats:
    requests, questions = (np.asarray(column, np.uint64) for column in (one.request, one.question))
    distinct = np.unique(requests).size
    near: set[int] | None = None
    if one.questions is not None:
        near = set()
        for left, right in near_pairs(sorted(one.questions)):
            near.update(left.tolist(), right.tolist())
    return Repeats(
        distinct,
        1.0 - distinct / one.num_kept if one.num_kept else 0.0,
        np.unique(questions).size,
        None if near is None else len(near),
    )


def _check(one: Gathered, split: NDArray[np.int8]) -> str:
    """The check that a verdict would choose by what develop holds."""
    is_json, studied = (np.asarray(c, bool) for c in (one.is_json, one.is_studied))
    develop = studied & (split == SPLITS.index("develop"))
    seen = is_json[develop if develop.any() else studied]
    return "json" if seen.size and seen.all() else "exact"


def _agreement(one: Gathered, unit: Hashes, split: NDArray[np.int8]) -> Agreement:
    check = _check(one, split)
    keys = np.asarray(one.json_key if check == "json" else one.exact_key, np.uint64)
    studied = np.asarray(one.is_studied, bool)
    request, draw = (np.asarray(column, np.uint64) for column in (one.request, one.draw))
    first, second = drawn_pairs(unit[studied], request[studied], draw[studied])
    left, right = keys[studied][first], keys[studied][second]
    is_read = left != 0  # a check that cannot read the reference cannot judge
    n, agree = int(is_read.sum()), int((left == right)[is_read].sum())
    low, high = clopper_pearson_interval(agree, n, 0.05) if n else (0.0, 1.0)
    coverable = np.asarray(one.is_coverable, bool)
    _, place, counts = np.unique(request, return_inverse=True, return_counts=True)
    once = counts[place][coverable] == 1
    return Agreement(
        check, n, agree, agree / n if n else None, low, high, agreement_ceiling(high),
        float(once.mean()) if once.size else 1.0,
    )  # fmt: skip


def drawn_pairs(
    unit: Hashes, request: Hashes, draw: Hashes
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each unit the places of two records of one request: the lowest lots among those asked
    twice.

    Shapes: (n,) each → two of (units that hold such a request,)
    """
    order = np.lexsort((draw, request, unit))
    same = (unit[order][1:] == unit[order][:-1]) & (request[order][1:] == request[order][:-1])
    is_first = same & ~np.append(False, same[:-1])  # the first of its request, and not the last
    places = np.flatnonzero(is_first)
    by_lot = places[np.lexsort((draw[order[places]], unit[order[places]]))]
    units = unit[order[by_lot]]
    chosen = by_lot[np.append(True, units[1:] != units[:-1])] if by_lot.size else by_lot
    return order[chosen], order[chosen + 1]


def _coverage(one: Gathered, agreement: Agreement, claim: Claim) -> Coverage:
    coverable = float(np.asarray(one.is_coverable, bool).mean()) if one.num_kept else 0.0
    reasons = dict(sorted(one.kept_back.items(), key=lambda pair: (-pair[1], pair[0])))
    if agreement.frac is None:
        return Coverage(coverable, None, reasons)
    once = agreement.once_frac
    best = once * agreement.ceiling + (1.0 - once)
    return Coverage(coverable, coverage_bound(coverable, best, claim), reasons)


def _period(one: Gathered) -> Period:
    if not one.times:
        return Period(0, None, None, None, None)
    first, last = one.times
    days = (last - first) / DAY_S
    is_rate = last - first >= MIN_PERIOD_S
    return Period(one.num_timed, first, last, days, one.num_timed / days if is_rate else None)


def _cost(one: Gathered, coverage: Coverage, period: Period, rate: float) -> Cost | None:
    prices: Prices | None = one.plan.prices
    if prices is None:
        return None
    usd = prices.usd(*one.tokens.count(rate))
    saving = prices.usd(*one.coverable_tokens.count(rate))
    extrapolated = None
    if coverage.extrapolated_frac is not None and coverage.coverable_frac:
        extrapolated = saving * coverage.extrapolated_frac / coverage.coverable_frac
    a_month = None
    if period.per_day is not None and one.num_records:
        a_month = DAYS_PER_MONTH * period.per_day / one.num_records
    return Cost(
        usd, saving, None if a_month is None else a_month * usd,
        None if a_month is None else a_month * saving, extrapolated, prices.source,
    )  # fmt: skip


def _needs(one: Gathered, coverage: Coverage, units: Units, period: Period) -> tuple[Need, ...]:
    claim = one.plan.claim
    delta = claim.delta_each(attempt_delta(claim.delta, 1))
    limits = Limits(claim.alpha, claim.beta, delta)
    units_per_record = units.certify / one.num_records if one.num_records else 0.0
    needs: list[Need] = []
    for rate in HARM_RATES:
        found = units_needed(rate, coverage.coverable_frac, 0.0, limits)
        records = days = None
        if found.units is not None and units_per_record:
            records = math.ceil(found.units / units_per_record)
            days = records / period.per_day if period.per_day else None
        needs.append(Need(rate, found.units, records, days, found.reason))
    return tuple(needs)
