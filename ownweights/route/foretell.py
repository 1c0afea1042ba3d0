"""How soon a jump of harm would be caught, said before a route is followed.

In: a route. Out: for a canary and for `served`, how many audits from the jump to the rollback, half
of the time and nine times in ten, simulated with the detector that will watch: in `served` with its
two chances of an audit, and requests that are not audited between them. Presumed are units that are
independent and harm that is as likely near the threshold as elsewhere. Invariant: nine runs in ten
are over in the number said (test_foretell_holds_for_nine_in_ten).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ownweights.route.rollout import NEAR_TIMES, Stage
from ownweights.route.route import Route
from ownweights.verdict.statistics.binomial import Floats
from ownweights.verdict.statistics.detector import alarm_delays, detector_bets

NEAR_FRAC = 0.25  # of the answers served lie near the threshold, as promotion puts it
TRIALS = 400
MOST_AUDITS = 20_000  # a jump that takes longer is not caught
SETTLED_AUDITS = 10.0  # times one over the limit: the evidence has settled before the jump


@dataclass(frozen=True, slots=True)
class Foretold:
    """Audits until a rollback, were harm to jump to `harm`: half of the time, and nine in ten."""

    stage: Stage
    harm: float
    median: int | None
    p90: int | None


def foretell(route: Route, harms: tuple[float, ...] = (0.25, 0.5)) -> list[Foretold]:
    """How soon a jump of harm would be caught, in audits, for a student at half its limit."""
    risen = [harm for harm in harms if harm > route.beta]
    canary = [Foretold("canary", harm, *_in_canary(route, harm)) for harm in risen]
    return canary + [Foretold("served", harm, *_in_served(route, harm)) for harm in risen]


def _in_canary(route: Route, harm: float) -> tuple[int | None, ...]:
    return alarm_delays(
        route.beta, route.run_length, before=route.beta / 2, after=harm, trials=TRIALS
    )


def _in_served(route: Route, harm: float) -> tuple[int | None, ...]:
    """Audits, one after the other, with the requests before each that were not audited."""
    near_frac = 0.0 if route.near is None else NEAR_FRAC
    chances = np.array([route.audit_frac, min(1.0, NEAR_TIMES * route.audit_frac)])
    shares = np.array([1.0 - near_frac, near_frac]) * chances
    limit, run_length = route.audit_frac * route.beta, route.run_length / route.audit_frac
    rng, settled = np.random.default_rng(0), math.ceil(SETTLED_AUDITS / route.beta)
    evidence = np.zeros((TRIALS, len(detector_bets(limit))))
    delays = list[float]()
    for t in range(1 - settled, MOST_AUDITS + 1):
        is_near = rng.random((len(evidence), 1)) < shares[1] / shares.sum()
        weights = route.audit_frac / np.where(is_near, chances[1], chances[0])
        is_harm = rng.random(is_near.shape) < (harm if t > 0 else route.beta / 2)
        quiet = (rng.geometric(shares.sum(), is_near.shape) - 1).astype(np.float64)
        evidence = _after(evidence, quiet, weights * is_harm, limit)
        is_alarm = evidence.mean(axis=1) >= run_length
        delays += [float(t)] * int(is_alarm.sum()) if t > 0 else []  # false alarms are left out
        evidence = evidence[~is_alarm]
        if not len(evidence):
            break
    if not delays:
        return None, None
    found = np.quantile([*delays, *[np.inf] * len(evidence)], (0.5, 0.9), method="higher")
    return tuple(int(value) if math.isfinite(value) else None for value in found)


def _after(evidence: Floats, quiet: Floats, outcomes: Floats, limit: float) -> Floats:
    """Detectors after some outcomes of 0 and one more; `Detector.after_quiet`, many at once.

    Shapes: evidence (n, bets), quiet and outcomes (n, 1) → (n, bets)
    """
    bets = np.array(detector_bets(limit))
    kept = 1.0 - bets * limit
    waited = evidence * kept**quiet + kept * (1.0 - kept**quiet) / (1.0 - kept)
    return (1.0 + waited) * (1.0 + bets * (outcomes - limit))
