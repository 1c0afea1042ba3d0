"""The optional claims C and D: is the student not worse than the teacher by more than a margin m?

    C   E[q(S) - q(T)] ≥ -m          quality: a judge's win 1, tie 0, loss -1; with a check, -harm
    D   P(S ≠ T) ≤ P(T' ≠ T) + m     noise: beside the teacher, asked the same once more

In: the judged rows of certify, one difference a unit, in the order of the units' hashes. Out: for
each claim a PairedClaim: not worse, worse, undecided, or says nothing. Decided by two stakes that
hold at every look (statistics/e_process.py); Tango's test stands beside, and certifies nothing.

Which slice? The requests served at the deployed threshold; after a refusal, all that were answered.
As certify chose that threshold, its stake alone would be too sure. So the slices are tested in an
order that develop alone fixed, beginning where develop expects the walk to end and going outwards,
and a claim counts as far as *every* slice on the way has passed: were it false at the deployed
one, the first false slice on the way would have had to fail first. Hence the stake of a claim is
the smallest on its way (test_claims_err_within_delta_whatever_threshold_is_deployed).

    strict ──────────────────────────────── loose   answered
       8    6    4    2   (1)   3    5    7    9       order of the tests, 1 expected by develop

Claim D says nothing where the teacher is so noisy that a student which never agrees would pass as
well: then the same test, asked about that student, must refuse it first
(test_claim_d_says_nothing_of_a_teacher_that_never_agrees_with_itself).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from ownweights.core.errors import InputError
from ownweights.verdict.certificate import Claim, Conclusion, PairedClaim, Verdict
from ownweights.verdict.judged import ANSWERED, Judged, draw_one_per_unit
from ownweights.verdict.statistics.binomial import Floats
from ownweights.verdict.statistics.bounded import BET_CAP
from ownweights.verdict.statistics.budget import attempt_delta
from ownweights.verdict.statistics.e_process import (
    LARGEST_LOG,
    confidence_sequence,
    not_worse_log_stakes,
    worse_log_stakes,
)
from ownweights.verdict.statistics.e_values import e_bh
from ownweights.verdict.statistics.paired import tango_p_value

POWER = 0.9
MAX_UNITS = 2_000_000


@dataclass(frozen=True, slots=True)
class Ladder:
    """The slices that a certificate may be about: thresholds, strict to loose, then all answered.

    `expected` is where develop expects to deploy; `deployed` is None for a refusal.
    """

    thresholds: tuple[float, ...]
    expected: int
    deployed: float | None

    def way(self) -> list[float | None]:
        """The slices to test, the deployed one last; None stands for all answered."""
        slices: list[float | None] = [*self.thresholds, None]
        order = sorted(range(len(slices)), key=lambda j: (abs(j - self.expected), j))
        at = slices.index(self.deployed)
        return [slices[j] for j in order[: order.index(at) + 1]]


@dataclass(frozen=True, slots=True)
class _Stakes:
    """Logs of the smallest stakes on the way: their peaks decide, the last one is an e-value."""

    not_worse: float
    worse: float
    last: float


def decide_claims(
    claim: Claim, rows: Sequence[Judged], ladder: Ladder, delta: float
) -> tuple[PairedClaim, ...]:
    """What the rows prove of the claims asked for; each may err with probability `delta`."""
    way = ladder.way()
    return tuple(
        _decide(name, claim.margin, delta, paired_rows(rows, name), way) for name in claim.paired
    )


def paired_rows(rows: Iterable[Judged], name: str) -> list[Judged]:
    """One answered row a unit of certify that bears on claim `name`, in the order of the units."""
    usable = (row for row in rows if row.split == "certify")
    if name == "D":
        usable = (row for row in usable if row.pair is not None)
    return [row for row in draw_one_per_unit(usable) if row.status == ANSWERED]


def difference_of(row: Judged, name: str) -> float:
    """Student - teacher, from -1 to 1, as claim `name` counts it.

    Raises: InputError when the row holds a number beyond that
    """
    again, student = row.pair or (0.0, 0.0)
    found = again - student if name == "D" else row.counted_difference
    if not -1.0 <= found <= 1.0 or not (0.0 <= again <= 1.0 and 0.0 <= student <= 1.0):
        raise InputError(
            f"judged request {row.id} differs by {found}, expected -1 to 1",
            hint="the rows of this verdict were changed, or its judge is not one of ours",
        )
    return found


def slice_of(rows: Iterable[Judged], threshold: float | None) -> list[Judged]:
    """The rows served at a threshold; for None all of them."""
    return [row for row in rows if threshold is None or row.score >= threshold]


def proved_together(verdicts: Iterable[Verdict], delta: float) -> dict[str, bool]:
    """For each workload whose newest verdict decided claim C: whether it stands among them all.

    At most a share `delta` of those that stand is false on average (e-BH), however workloads hang
    together and however many attempts led to the newest: attempt k counts 6/(π²k²) of its stake.
    """
    stakes: dict[str, float] = {}
    for verdict in verdicts:  # oldest first
        for one in verdict.paired:
            if one.name == "C":
                counted = one.e_value * attempt_delta(1.0, verdict.attempt)
                stakes[verdict.subject.workload] = counted
    if not stakes:
        return {}
    return dict(zip(stakes, map(bool, e_bh(list(stakes.values()), delta)), strict=True))


def paired_assumptions(claim: Claim) -> tuple[str, ...]:
    """What claims C and D rest on besides."""
    shared = (
        f"the attempt's error is shared equally by A with B, {', '.join(claim.paired)}: all that is"
        " proved here holds at once with the confidence stated",
    )
    noise = (
        "claim D is about requests that the teacher was recorded to answer more than once; its"
        " answers to one request are taken for independent draws, and a cache that repeated one"
        " would make the claim harder, not easier",
    )
    return (*(shared if claim.paired else ()), *(noise if "D" in claim.paired else ()))


def _decide(
    name: str, margin: float, delta: float, rows: Sequence[Judged], way: Sequence[float | None]
) -> PairedClaim:
    deployed = slice_of(rows, way[-1])
    found = np.array([difference_of(row, name) for row in deployed], np.float64)
    stakes = _stakes_on(way, rows, name, margin)
    low, high = confidence_sequence(found, delta) if len(found) else ((-1.0,), (1.0,))
    mean = float(found.mean()) if len(found) else 0.0
    conclusion = _conclusion(stakes, delta)
    if conclusion == "not_worse" and name == "D" and not _tells_useless(deployed, margin, delta):
        conclusion = "says_nothing"
    again, student = _noise(deployed) if name == "D" and deployed else (None, None)
    return PairedClaim(
        name=name,
        conclusion=conclusion,
        reason=_reason(name, conclusion, len(found)),
        margin=margin,
        delta=delta,
        among="answered" if way[-1] is None else "served",
        n=len(found),
        better=int((found > 0).sum()),
        worse=int((found < 0).sum()),
        mean=mean,
        low=float(low[-1]),
        high=float(high[-1]),
        e_value=math.exp(min(stakes.last, LARGEST_LOG)),
        p_value=math.exp(-stakes.not_worse),
        p_worse=math.exp(-stakes.worse),
        num_tests=len(way),
        tango=_tango(found, margin),
        teacher_frac=again,
        student_frac=student,
        units=units_to_prove(found, margin, delta),
    )


def _stakes_on(
    way: Sequence[float | None], rows: Sequence[Judged], name: str, margin: float
) -> _Stakes:
    """The smallest stakes over all slices on the way."""
    differences = np.array([difference_of(row, name) for row in rows], np.float64)
    scores = np.array([row.score for row in rows], np.float64)
    smallest = _Stakes(math.inf, math.inf, math.inf)
    for threshold in way:
        inside = differences if threshold is None else differences[scores >= threshold]
        stake = np.append(0.0, not_worse_log_stakes(inside, margin))
        against = np.append(0.0, worse_log_stakes(inside, margin))
        smallest = _Stakes(
            min(smallest.not_worse, float(stake.max())),
            min(smallest.worse, float(against.max())),
            min(smallest.last, float(stake[-1])),
        )
    return smallest


def _conclusion(stakes: _Stakes, delta: float) -> Conclusion:
    """As NonInferiority concludes, with the smallest stakes on the way."""
    enough = -math.log(delta)
    if stakes.worse >= enough:
        return "worse"
    return "not_worse" if stakes.not_worse >= enough else "undecided"


def _tells_useless(rows: Sequence[Judged], margin: float, delta: float) -> bool:
    """Whether the same test refuses a student that never agrees with the teacher."""
    useless = np.array([row.pair[0] - 1.0 for row in rows if row.pair is not None], np.float64)
    return bool(worse_log_stakes(useless, margin).max(initial=0.0) >= -math.log(delta))


def _noise(rows: Sequence[Judged]) -> tuple[float, float]:
    """How often the teacher, and how often the student, differs from the teacher's first answer."""
    pairs = np.array([row.pair for row in rows if row.pair is not None], np.float64)
    return float(pairs[:, 0].mean()), float(pairs[:, 1].mean())


def _tango(found: Floats, margin: float) -> float | None:
    if not len(found) or not np.isin(found, (-1.0, 0.0, 1.0)).all():
        return None
    return tango_p_value(int((found > 0).sum()), int((found < 0).sum()), len(found), margin)


def units_to_prove(found: Floats, margin: float, delta: float) -> int | None:
    """About how many units a proof would take if the rest were like those seen; None: no number.

    The larger of what a normal test needs for its power, and what the stake needs to grow at the
    greatest bet that is allowed.
    """
    if not len(found) or (room := float(found.mean()) + margin) <= 0:
        return None
    quantiles = -special.ndtri(delta) + special.ndtri(POWER)
    normal = float(quantiles**2 * found.var() / room**2)
    fastest = -math.log(delta) / math.log1p(BET_CAP * room / (1.0 - margin))
    units = math.ceil(max(normal, fastest))
    return units if units <= MAX_UNITS else None


def _reason(name: str, conclusion: Conclusion, n: int) -> str:
    if not n and name == "D":
        return "no request of certify that the teacher answered twice is in this slice"
    if not n:
        return "no answer of certify is in this slice"
    return {
        "not_worse": "proved",
        "worse": "the opposite is proved: the student is worse by more than the margin",
        "undecided": "neither this nor its opposite is proved",
        "says_nothing": "the teacher agrees with itself so rarely that a student which never agrees"
        " would pass too",
    }[conclusion]
