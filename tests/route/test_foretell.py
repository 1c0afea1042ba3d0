"""How soon a jump of harm is caught: what is said beforehand, against the evidence of a route."""

from __future__ import annotations

import numpy as np
import pytest

from ownweights.route.evidence import Audit, Evidence
from ownweights.route.foretell import foretell
from ownweights.route.live import watch_of
from ownweights.route.rollout import NEAR_TIMES, Stage
from tests.route.samples import route_of

ROUTE = route_of(check="exact", beta=0.10, near=0.5)
RUNS = 60


def chance_and_quiet(rng, stage: Stage) -> tuple[float, int]:
    """Request after request, until one is audited."""
    quiet = 0
    while stage == "served":
        chance = ROUTE.audit_frac * (NEAR_TIMES if rng.random() < 0.25 else 1.0)
        if rng.random() < chance:
            return chance, quiet
        quiet += 1
    return 1.0, 0


def delay(rng, stage: Stage, harm: float, most: int) -> int:
    """Audits from the jump to the alarm of the evidence that a gateway folds."""
    watch = watch_of(ROUTE)
    evidence = Evidence.start(watch)
    for i in range(60 + most):
        rate = ROUTE.beta / 2 if i < 60 else harm
        chance, quiet = chance_and_quiet(rng, stage)
        one = Audit(f"q{i}", 0.0, stage, "audit", float(rng.random() < rate), chance, quiet)
        evidence = evidence.after(one, watch)
        if evidence.detector.is_alarmed:
            return i - 59
    return most + 1


@pytest.mark.parametrize("stage", ["canary", "served"])
def test_foretell_holds_for_nine_in_ten(stage: Stage) -> None:
    """And says no more than it must: half of the runs take about the median."""
    rng = np.random.default_rng(1)
    said = next(one for one in foretell(ROUTE) if (one.stage, one.harm) == (stage, 0.5))
    assert said.p90 is not None
    assert said.median is not None
    delays = [delay(rng, stage, 0.5, 2 * said.p90) for _ in range(RUNS)]
    assert np.mean([one <= said.p90 for one in delays]) >= 0.8
    assert 0.7 * said.median <= np.median(delays) <= 1.4 * said.median


def test_foretell_says_audits_until_a_rollback() -> None:
    canary, served = foretell(ROUTE)[:2], foretell(ROUTE)[2:]
    for stage, (quarter, half) in (("canary", canary), ("served", served)):
        assert (quarter.stage, quarter.harm, half.harm) == (stage, 0.25, 0.5)
        assert quarter.median is not None
        assert quarter.p90 is not None
        assert half.p90 is not None
        assert half.p90 < quarter.median < quarter.p90
    assert [one.p90 for one in (*canary, *served)] == [121, 28, 162, 34], "as the docs say"
    assert served[1].p90 > canary[1].p90, "two of three audits near the threshold weigh a third"
    assert foretell(route_of(check="exact", beta=0.6)) == []
