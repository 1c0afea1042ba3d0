"""When to say that harm has risen above what was certified: the e-SR detector.

In: audited outcomes in [0, 1] (1 = harm), one by one, the certified limit, and the run length: how
many steps false alarms must be apart on average. Out: evidence that at some step the mean rose
above the limit, and an alarm once it reaches the run length. Every step starts a gambler who bets
on harm; the evidence is the sum of their stakes, averaged over sizes of bet.

    steps      1    2    3    4    5         an alarm is never taken back: a detector that
    stakes     1 ─ .9 ─ 2.1 ─ 1.9 ─ 4        has raised one looks at nothing more
                    1 ─ 1.3 ─ 1.2 ─ 2
                         1 ── .9 ── 2

Invariants: while the mean is within the limit, alarms come after `run_length` steps on average or
later (test_detector_runs_at_least_its_length); one step at a time gives what all at once give
(test_detector_matches_all_at_once); equal to the sum of stakes (test_detector_matches_naive_sum).
Where requests are audited with unequal chances q, each request is a step, its outcome is that of
`weigh_audit`, and the limit is the smallest q times the certified one.
Source: Shin, Ramdas and Rinaldo, E-detectors (arXiv:2203.03532), Shiryaev-Roberts form.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from ownweights.core.errors import InputError
from ownweights.verdict.statistics.binomial import Floats

BETS = (0.5, 1.0, 2.0, 4.0, 8.0)
MAX_STAKE_FRAC = 0.9  # of a stake: what a step without harm may cost
LARGEST = 1e300  # one more step cannot overflow


@dataclass(frozen=True, slots=True)
class Detector:
    """Evidence of a rise above `limit`, one number for each size of bet."""

    limit: float
    run_length: float
    num_seen: int = 0
    evidence: tuple[float, ...] = (0.0,) * len(BETS)

    @classmethod
    def start(cls, limit: float, run_length: float) -> Detector:
        _check_limit(limit)
        assert 1.0 <= run_length < math.inf, f"a run length is at least 1, got {run_length}"
        return cls(limit, run_length)

    @property
    def mean_evidence(self) -> float:
        return math.fsum(self.evidence) / len(self.evidence)

    @property
    def is_alarmed(self) -> bool:
        """Whether the last step seen raised the alarm."""
        return self.mean_evidence >= self.run_length

    def after(self, outcome: float) -> Detector:
        """The detector once one more outcome is known; unchanged after an alarm."""
        assert 0.0 <= outcome <= 1.0, f"an outcome lies in [0, 1], got {outcome}"
        if self.is_alarmed:
            return self
        excess, bets = outcome - self.limit, detector_bets(self.limit)
        grown = ((1.0 + r) * (1.0 + b * excess) for r, b in zip(self.evidence, bets, strict=True))
        return dataclasses.replace(self, num_seen=self.num_seen + 1, evidence=tuple(grown))

    def to_json(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "evidence": list(self.evidence)}

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> Detector:
        """What `to_json` wrote. Raises: InputError when it is something else."""
        names = [field.name for field in dataclasses.fields(cls)]
        if set(table) != set(names):
            raise InputError(f"a detector has the keys {names}, got {sorted(table)}")
        evidence: Any = table["evidence"]
        if not isinstance(evidence, list) or len(cast(list[Any], evidence)) != len(BETS):
            raise InputError(f"evidence must be {len(BETS)} numbers, got {evidence!r}")
        numbers = [table["limit"], table["run_length"], table["num_seen"], *evidence]
        for value in numbers:
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or not math.isfinite(value):
                raise InputError(f"a detector holds finite numbers, got {value!r}")
        state = cls(table["limit"], table["run_length"], table["num_seen"], tuple(evidence))
        is_possible = 0.0 < state.limit < 1.0 <= state.run_length and min(evidence) >= 0.0
        if not is_possible or not isinstance(state.num_seen, int) or state.num_seen < 0:
            raise InputError(f"no outcomes lead to the detector {dict(table)}")
        return state


def detector_bets(limit: float) -> tuple[float, ...]:
    """Sizes of bet: each is sharpest where harm rises by about that many times the limit."""
    return tuple(min(bet, MAX_STAKE_FRAC / limit) for bet in BETS)


def detector_evidence(outcomes: Floats, limit: float) -> Floats:
    """Mean evidence after each outcome, going on past any alarm.

    Shapes: outcomes (..., n) → (..., n)
    """
    _check_limit(limit)
    assert ((outcomes >= 0.0) & (outcomes <= 1.0)).all(), "an outcome lies in [0, 1]"
    bets = np.array(detector_bets(limit))
    evidence = np.zeros((*outcomes.shape[:-1], len(bets)))
    means = np.empty(outcomes.shape)
    for t in range(outcomes.shape[-1]):
        evidence = (1.0 + evidence) * (1.0 + bets * (outcomes[..., t, None] - limit))
        evidence = np.minimum(evidence, LARGEST)
        means[..., t] = evidence.mean(axis=-1)
    return means


def weigh_audit(harm: float | None, audit_frac: float, min_audit_frac: float) -> float:
    """The outcome of a request audited with chance `audit_frac`; `harm` is None if it was not.

    Its mean is `min_audit_frac` times the mean harm, whatever the chances hang on.
    """
    assert 0.0 < min_audit_frac <= audit_frac <= 1.0, (
        f"audited with chance {audit_frac}, but no less than {min_audit_frac} was promised"
    )
    return 0.0 if harm is None else harm * min_audit_frac / audit_frac


def _check_limit(limit: float) -> None:
    assert 0.0 < limit < 1.0, f"a limit lies between 0 and 1, got {limit}"
