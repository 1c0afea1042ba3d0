"""Old and new answers to the same prompts, one pair after the other: has anything shifted?

In: features of the answers before and after (readings.py), prompts in an order fixed beforehand,
and the error each channel may spend. Out: a Finding for each channel. While an endpoint is the
same, a prompt's two answers could as well have come the other way round: of the pairs that differ
in a feature, half differ either way. Each channel stakes on more than that, pair by pair, and may
be looked at after every one; a channel of several features holds the mean of their stakes.

    pairs that differ   +  +  −  +  +  +  +       "+": the new answer is the longer one
    stake               1  1.5 .8  …              ≥ 1/limit: changed, whatever comes after

Invariants: an endpoint that is the same is called changed with at most the error given, however
the prompts are chosen (test_paired_alarms_falsely_within_its_limit); as many one-sided pairs as
`needed` says, and no fewer, raise an alarm (test_paired_needs_exactly_so_many_pairs).
Source: the anytime form of McNemar's test, statistics/e_process.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

import numpy as np
from scipy import special

from ownweights.verdict.drift.outcome import CHANGED, COULD_NOT_TELL, SAME, Finding
from ownweights.verdict.drift.readings import CHANNEL_FEATURES, FEATURES
from ownweights.verdict.statistics.binomial import Floats
from ownweights.verdict.statistics.e_process import mcnemar_log_e_value

MIN_READABLE_FRAC = 0.5
POWER = 0.9
_WORDS = {
    "length": "median characters", "fence": "answers with a code fence",
    "json": "answers that are a JSON object or list", "list": "answers with a list",
    "script": "answers in the script of the prompt",
    "wrapped": "answers that pass only without their wrapping",
    "refusal": "answers that decline", "score": "answers that pass the check",
}  # fmt: skip


def compare_paired(
    before: Floats, after: Floats, limits: Mapping[str, float]
) -> tuple[Finding, ...]:
    """What each channel in `limits` says. Shapes: before, after (n, F), a row for each prompt."""
    assert before.shape == after.shape and before.shape[1:] == (len(FEATURES),), "one row a prompt"
    return tuple(
        _finding(channel, before, after, limits[channel])
        for channel in CHANNEL_FEATURES
        if channel in limits
    )


def paired_log_evidence(before: Floats, after: Floats, channel: str) -> Floats:
    """log of a channel's stake after each prompt. Shapes: (..., n, F) → (..., n)"""
    columns = [FEATURES.index(name) for name in CHANNEL_FEATURES[channel]]
    signs = np.nan_to_num(np.sign(after - before)[..., columns])
    more = np.cumsum(signs > 0, axis=-2)
    less = np.cumsum(signs < 0, axis=-2)
    stakes = mcnemar_log_e_value(more, less)
    return cast(Floats, special.logsumexp(stakes, axis=-1) - math.log(len(columns)))


def needed(channel: str, limit: float) -> int:
    """How many pairs that all differ the same way raise an alarm; fewer never can."""
    counts = np.arange(1, 10_000)
    stakes = mcnemar_log_e_value(counts, 0) - math.log(len(CHANNEL_FEATURES[channel]))
    return int(counts[(stakes >= -math.log(limit)).argmax()])


def detectable_frac(channel: str, limit: float, num_pairs: int) -> float | None:
    """The share of answers that must shift one way to be seen with probability 0.9, if any."""
    least = needed(channel, limit)
    if num_pairs < least:
        return None
    return float(special.betaincinv(least, num_pairs - least + 1, POWER))


def _finding(channel: str, before: Floats, after: Floats, limit: float) -> Finding:
    columns = [FEATURES.index(name) for name in CHANNEL_FEATURES[channel]]
    differs = (after - before)[:, columns]
    num_read = int((~np.isnan(differs)).any(axis=1).sum())
    evidence = paired_log_evidence(before, after, channel)
    is_enough = evidence >= -math.log(limit)
    alarm_at = int(is_enough.argmax()) + 1 if is_enough.any() else None
    feature, then, now = _largest_shift(channel, before, after)
    what = f"{_WORDS[feature]} {then} → {now}" if then is not None else "nothing to compare"
    least = needed(channel, limit)
    outcome = CHANGED if alarm_at else SAME
    if not alarm_at and (num_read < least or num_read < MIN_READABLE_FRAC * len(before)):
        outcome = COULD_NOT_TELL
        what = f"{num_read} of {len(before)} pairs could be read, and {least} are needed"
    return Finding(
        channel, outcome, what, limit,
        p_value=min(1.0, math.exp(-max(0.0, float(evidence.max(initial=0.0))))),
        num_probes=num_read, alarm_at=alarm_at, feature=feature, before=then, after=now,
        detectable=detectable_frac(channel, limit, num_read),
    )  # fmt: skip


def _largest_shift(
    channel: str, before: Floats, after: Floats
) -> tuple[str, float | None, float | None]:
    """The feature with the strongest evidence, and its typical values then and now."""
    best: tuple[float, str, float | None, float | None] = (-1.0, "", None, None)
    for name in CHANNEL_FEATURES[channel]:
        column = FEATURES.index(name)
        old, new = before[:, column], after[:, column]
        is_read = ~np.isnan(old) & ~np.isnan(new)
        if is_read.any():
            sign = np.sign(new - old)[is_read]
            stake = float(mcnemar_log_e_value((sign > 0).sum(), (sign < 0).sum())) + 1e3
            typical = np.median if name == "length" else np.mean
            then, now = (round(float(typical(x[is_read])), 4) for x in (old, new))
            best = max(best, (stake, name, then, now), key=lambda found: found[0])
    return best[1] or CHANNEL_FEATURES[channel][0], best[2], best[3]
