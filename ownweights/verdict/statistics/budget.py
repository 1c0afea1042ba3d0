"""How much error an attempt may spend, so that all attempts together stay within δ.

Attempt k of a workload spends δ_k = δ·6/(π²k²); the series sums to δ, however many attempts follow
(test_budget_never_exceeds_delta). Spending is only half of it: an attempt also needs data that no
earlier attempt has seen, or its student may have been made to fit them (verdict/ledger.py).
"""

from __future__ import annotations

import math


def attempt_delta(delta: float, attempt: int) -> float:
    """The share of `delta` that attempt number `attempt` (from 1) may spend."""
    assert attempt >= 1, f"attempts count from 1, got {attempt}"
    return delta * 6.0 / (math.pi**2 * attempt**2)
