"""Paired evidence: against a naive mixture, exact counts, and simulations of no change."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from ownweights.verdict.drift.budget import CHANNELS, Budget
from ownweights.verdict.drift.outcome import CHANGED, COULD_NOT_TELL, SAME
from ownweights.verdict.drift.paired import (
    POWER,
    compare_paired,
    detectable_frac,
    needed,
    paired_log_evidence,
)
from ownweights.verdict.drift.readings import CHANNEL_FEATURES, FEATURES

LIMIT = 0.005
TRIALS = 1_000


def features(n: int, **columns: object) -> np.ndarray:
    """n answers, all alike but for the columns given."""
    found = np.ones((n, len(FEATURES)))
    for name, values in columns.items():
        found[:, FEATURES.index(name)] = values
    return found


def only(channel: str, before: np.ndarray, after: np.ndarray, limit: float = LIMIT):  # type: ignore[no-untyped-def]
    (found,) = compare_paired(before, after, {channel: limit})
    return found


def naive_stake(signs: list[int]) -> float:
    """The mixture over all shares of wins, by numeric integration of the likelihood."""
    wins, losses = signs.count(1), signs.count(-1)
    grid = (np.arange(200_000) + 0.5) / 200_000
    weight = stats.beta(0.5, 0.5).pdf(grid)
    weight /= weight.sum()
    return float((weight * (2 * grid) ** wins * (2 * (1 - grid)) ** losses).sum())


def test_paired_evidence_matches_a_mixture_integrated_by_hand() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 4, size=(2, 30)).astype(float)
    before, after = features(30, length=lengths[0]), features(30, length=lengths[1])
    found = np.exp(paired_log_evidence(before, after, "length"))
    signs = np.sign(lengths[1] - lengths[0]).astype(int).tolist()
    for n in (1, 5, 17, 30):
        assert found[n - 1] == pytest.approx(naive_stake(signs[:n]), rel=2e-2)


def test_paired_evidence_of_several_features_is_their_mean() -> None:
    rng = np.random.default_rng(1)
    before, after = (rng.integers(0, 2, (40, len(FEATURES))).astype(float) for _ in range(2))
    parts = [
        np.exp(paired_log_evidence(features(40, length=before[:, i]),
                                   features(40, length=after[:, i]), "length"))
        for i in (FEATURES.index(name) for name in CHANNEL_FEATURES["format"])
    ]  # fmt: skip
    found = np.exp(paired_log_evidence(before, after, "format"))
    assert found == pytest.approx(np.mean(parts, axis=0))


@pytest.mark.parametrize("channel", CHANNEL_FEATURES)
@pytest.mark.parametrize("limit", [0.05, 0.005, 1e-6])
def test_paired_needs_exactly_so_many_pairs(channel: str, limit: float) -> None:
    least, feature = needed(channel, limit), CHANNEL_FEATURES[channel][0]
    # where a channel has other features, their stakes add a little
    slack = 1 if len(CHANNEL_FEATURES[channel]) > 1 else 0
    for n, outcome in ((least, CHANGED), (least - 1 - slack, COULD_NOT_TELL)):
        found = only(channel, features(n, **{feature: 0.0}), features(n), limit)
        assert found.outcome == outcome
        assert found.alarm_at == (pytest.approx(least, abs=slack) if n == least else None)


@pytest.mark.parametrize("channel", ["length", "format", "refusal", "score"])
def test_paired_alarms_falsely_within_its_limit(channel: str) -> None:
    """Each prompt has its own distribution; both answers come from it; a look at every pair."""
    rng, limit, n = np.random.default_rng(3), 0.05, 100
    shares = rng.beta(0.7, 0.7, (1, n, len(FEATURES)))
    before, after = (rng.random((TRIALS, n, len(FEATURES))) < shares for _ in range(2))
    evidence = paired_log_evidence(before.astype(float), after.astype(float), channel)
    wrong = float((evidence.max(axis=1) >= -math.log(limit)).mean())
    assert wrong <= limit + 3 * math.sqrt(limit * (1 - limit) / TRIALS)
    assert wrong > 0  # the bound is not met by never alarming


def test_paired_alarms_falsely_within_its_limit_when_features_move_together() -> None:
    rng, limit = np.random.default_rng(4), 0.05
    coins = np.repeat(rng.choice([-1.0, 1.0], (TRIALS, 100, 1)), len(FEATURES), axis=2)
    evidence = paired_log_evidence(np.zeros_like(coins), coins, "format")
    wrong = float((evidence.max(axis=1) >= -math.log(limit)).mean())
    assert 0 < wrong <= limit + 3 * math.sqrt(limit * (1 - limit) / TRIALS)


def test_paired_sees_the_shift_it_says_it_would() -> None:
    rng, n = np.random.default_rng(5), 100
    share = detectable_frac("refusal", LIMIT, n)
    assert share is not None
    shifted = rng.random((TRIALS, n)) < share
    least = needed("refusal", LIMIT)
    assert float((shifted.sum(axis=1) >= least).mean()) == pytest.approx(POWER, abs=0.03)
    found = sum(
        only("refusal", features(n, refusal=0.0), features(n, refusal=row)).outcome == CHANGED
        for row in shifted[:200]
    )
    assert found / 200 >= POWER - 0.07


def test_paired_says_nothing_is_detectable_with_too_few() -> None:
    least = needed("length", LIMIT)
    assert detectable_frac("length", LIMIT, least - 1) is None
    assert detectable_frac("length", LIMIT, least) == pytest.approx(POWER ** (1 / least))


def test_paired_same_is_said_with_what_would_have_shown() -> None:
    found = only("length", features(100), features(100))
    assert (found.outcome, found.alarm_at, found.p_value) == (SAME, None, 1.0)
    assert found.detectable == detectable_frac("length", LIMIT, 100)
    assert found.what == "median characters 1.0 → 1.0"


def test_paired_finds_format_without_score() -> None:
    """Every answer begins to be fenced; what is in the fence stays right."""
    before = features(60, fence=0.0, wrapped=0.0)
    limits = dict.fromkeys(CHANNEL_FEATURES, LIMIT)
    found = {one.channel: one for one in compare_paired(before, features(60), limits)}
    assert {name for name, one in found.items() if one.outcome == CHANGED} == {"format"}
    assert found["format"].feature in ("fence", "wrapped")
    assert (found["format"].before, found["format"].after) == (0.0, 1.0)


def test_paired_leaves_out_what_nobody_can_judge() -> None:
    judged = np.where(np.arange(100) < 60, 0.0, np.nan)
    found = only("score", features(100, score=judged), features(100))
    assert (found.outcome, found.num_probes) == (CHANGED, 60)
    unjudged = only("score", features(100, score=np.nan), features(100))
    assert (unjudged.outcome, unjudged.num_probes) == (COULD_NOT_TELL, 0)
    assert unjudged.before is unjudged.after is None


def test_paired_cannot_tell_when_most_answers_are_missing() -> None:
    missing = np.where(np.arange(100) < 40, 1.0, np.nan)
    found = only("length", features(100), features(100, length=missing))
    assert found.outcome == COULD_NOT_TELL
    assert found.what == f"40 of 100 pairs could be read, and {needed('length', LIMIT)} are needed"


def test_paired_change_is_a_change_though_answers_are_missing() -> None:
    missing = np.where(np.arange(100) < 40, 5.0, np.nan)
    assert only("length", features(100), features(100, length=missing)).outcome == CHANGED


def test_paired_alarm_stands_whatever_comes_after() -> None:
    up_and_down = np.where(np.arange(100) < 50, 2.0, 0.0)
    found = only("length", features(100), features(100, length=up_and_down))
    assert found.outcome == CHANGED
    assert found.alarm_at == needed("length", LIMIT)


def test_paired_looks_only_at_the_channels_given() -> None:
    found = compare_paired(features(9), features(9), {"score": 0.1, "length": 0.1})
    assert [one.channel for one in found] == ["length", "score"]


def test_paired_of_nothing_could_not_tell() -> None:
    assert only("length", features(0), features(0)).outcome == COULD_NOT_TELL


def test_paired_refuses_rows_that_do_not_pair() -> None:
    with pytest.raises(AssertionError, match="one row a prompt"):
        compare_paired(features(3), features(4), {"length": 0.1})


@pytest.mark.parametrize(
    ("look", "low", "high"), [(1, 0.15, 0.18), (30, 0.26, 0.29), (90, 0.29, 0.33)]
)
def test_detectable_shift_grows_with_the_looks(look: int, low: float, high: float) -> None:
    """Of 100 canaries: a sixth at first, a quarter at the 30th look, three in ten at the 90th."""
    budget = Budget(0.05, CHANNELS)
    for channel in ("length", "format", "refusal", "score"):
        share = detectable_frac(channel, budget.at_look(channel, look), 100)
        assert share is not None and low <= round(share, 2) <= high
