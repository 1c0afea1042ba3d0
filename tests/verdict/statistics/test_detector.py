"""The detector of risen harm: against its definition, and by simulation with and without a rise."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownweights.core.errors import InputError
from ownweights.verdict.statistics.detector import (
    Detector,
    detector_bets,
    detector_evidence,
    weigh_audit,
)

TRIALS = 500
MAX_STEPS = 1_000  # a run cut here counts as this long, which can only make the mean smaller
streams = st.lists(st.floats(0, 1), max_size=60).map(lambda values: np.array(values, np.float64))
limits = st.floats(0.005, 0.9)


def naive_evidence(outcomes, limit: float) -> list[float]:
    """The sum, over every step at which harm may have risen, of what betting since then earned."""
    found = []
    for t in range(1, len(outcomes) + 1):
        sums = [
            sum(math.prod(1 + bet * (x - limit) for x in outcomes[start:t]) for start in range(t))
            for bet in [min(bet, 0.9 / limit) for bet in (0.5, 1, 2, 4, 8)]
        ]
        found.append(sum(sums) / 5)
    return found


def run_lengths(outcomes: np.ndarray, limit: float, run_length: float) -> np.ndarray:
    """Steps until the alarm in each row; the row's length when there is none."""
    alarmed = detector_evidence(outcomes, limit) >= run_length
    return np.where(alarmed.any(-1), alarmed.argmax(-1) + 1, outcomes.shape[-1])


def at_least(lengths: np.ndarray, run_length: float) -> bool:
    return bool(lengths.mean() >= run_length - 3 * lengths.std() / math.sqrt(len(lengths)))


@given(streams, limits)
def test_detector_matches_naive_sum(outcomes: np.ndarray, limit: float) -> None:
    found = detector_evidence(outcomes, limit)
    assert found == pytest.approx(np.array(naive_evidence(outcomes, limit)), rel=1e-9)


@given(streams, limits, st.floats(1, 1_000))
def test_detector_matches_all_at_once(
    outcomes: np.ndarray, limit: float, run_length: float
) -> None:
    """Step by step up to the alarm, and nothing after it."""
    evidence = detector_evidence(outcomes, limit)
    state = Detector.start(limit, run_length)
    for t, outcome in enumerate(outcomes.tolist()):
        before, state = state, state.after(outcome)
        if before.is_alarmed:
            assert state == before
        else:
            assert state.num_seen == t + 1
            assert state.mean_evidence == pytest.approx(evidence[t], rel=1e-9)


@given(streams, limits)
def test_detector_always_goes_on_from_its_json(outcomes: np.ndarray, limit: float) -> None:
    kept = straight = Detector.start(limit, 50.0)
    for outcome in outcomes.tolist():
        kept = Detector.from_json(json.loads(json.dumps(kept.after(outcome).to_json())))
        straight = straight.after(outcome)
    assert kept == straight


@given(limits)
def test_detector_bets_always_keep_a_tenth_of_the_stake(limit: float) -> None:
    assert all(1 - bet * limit >= 0.1 - 1e-12 for bet in detector_bets(limit))
    assert detector_bets(0.05) == (0.5, 1.0, 2.0, 4.0, 8.0)
    assert max(detector_bets(0.3)) == pytest.approx(3.0)


@pytest.mark.parametrize("limit", [0.02, 0.05, 0.3])
def test_detector_runs_at_least_its_length(limit: float) -> None:
    """Harm exactly at the limit, the worst that was certified."""
    outcomes = (np.random.default_rng(1).random((TRIALS, MAX_STEPS)) < limit).astype(np.float64)
    assert at_least(run_lengths(outcomes, limit, 100.0), 100.0)


def test_detector_runs_at_least_its_length_on_graded_and_clustered_harm() -> None:
    rng, limit = np.random.default_rng(2), 0.1
    graded = rng.beta(0.2, 1.8, (TRIALS, MAX_STEPS))
    assert at_least(run_lengths(graded, limit, 100.0), 100.0)
    # what comes next hangs on what was: harm is likelier by turns, its mean given the past is not
    sizes = np.where(np.roll(graded, 1, axis=-1) > limit, 1.0, 0.2)
    clustered = np.where(rng.random(graded.shape) < limit / sizes, sizes, 0.0)
    assert at_least(run_lengths(clustered, limit, 100.0), 100.0)


def test_detector_evidence_grows_by_at_most_one_a_step() -> None:
    """Its mean over every stream of six outcomes at the limit, by enumeration, is the step."""
    limit = 0.2
    streams = np.array(list(itertools.product([0.0, 1.0], repeat=6)))
    weights = np.where(streams == 1.0, limit, 1 - limit).prod(-1)
    means = weights @ detector_evidence(streams, limit)
    assert means == pytest.approx(np.arange(1, 7))


@pytest.mark.parametrize(
    ("risen", "known"), [(0.08, 408), (0.10, 219), (0.15, 82), (0.25, 36), (0.50, 12)]
)
def test_detector_finds_a_rise_about_as_soon_as_known(risen: float, known: int) -> None:
    """Certified 5 %, running at 3 %; the medians of 40 runs elsewhere, so a quarter off."""
    burn, rng = 1_000, np.random.default_rng(3)
    rates = np.where(np.arange(burn + 4 * known) < burn, 0.03, risen)
    outcomes = (rng.random((200, len(rates))) < rates).astype(np.float64)
    alarmed = detector_evidence(outcomes, 0.05) >= 1e4
    assert alarmed[:, :burn].any(-1).mean() <= 0.01
    late = alarmed[:, burn:]
    delays = np.where(late.any(-1), late.argmax(-1) + 1, 4 * known)
    assert 0.75 * known <= np.median(delays) <= 1.25 * known


def test_detector_runs_at_least_its_length_when_audits_look_where_harm_is() -> None:
    """Audits seek out the harmful stratum: weighted they are fair, unweighted they cry wolf."""
    rng, limit, least = np.random.default_rng(4), 0.1, 0.2
    is_risky = rng.random((TRIALS, MAX_STEPS)) < 0.25
    harmed = rng.random(is_risky.shape) < np.where(is_risky, 0.31, 0.03)  # .1 over all
    chances = np.where(is_risky, 0.8, least)
    audited = rng.random(is_risky.shape) < chances
    weighted = np.where(audited, harmed * least / chances, 0.0)
    assert at_least(run_lengths(weighted, least * limit, 100.0), 100.0)
    first_audits = np.argsort(~audited, axis=-1, kind="stable")[:, :250]
    unweighted = np.take_along_axis(harmed, first_audits, axis=-1).astype(np.float64)
    assert not at_least(run_lengths(unweighted, limit, 100.0), 100.0)


def test_weigh_audit_has_the_mean_it_promises() -> None:
    """By enumerating audited and not, in strata audited with different chances."""
    least, mean = 0.05, 0.0
    for share, chance, harm in ((0.5, 0.05, 0.01), (0.3, 0.2, 0.1), (0.2, 1.0, 0.4)):
        mean += share * chance * harm * weigh_audit(1.0, chance, least)
        mean += share * (1 - chance) * weigh_audit(None, chance, least)
    assert mean == pytest.approx(least * (0.5 * 0.01 + 0.3 * 0.1 + 0.2 * 0.4))
    assert weigh_audit(0.5, least, least) == 0.5


def test_detector_stops_at_its_alarm() -> None:
    state = Detector.start(0.05, 100.0)
    for _ in range(10):
        state = state.after(1.0)
    assert state.is_alarmed
    assert state.num_seen == 3
    assert state.after(0.0) is state
    assert Detector.from_json(state.to_json()) == state


def test_detector_evidence_survives_endless_harm() -> None:
    assert np.isfinite(detector_evidence(np.ones(2_000), 0.05)).all()
    assert detector_evidence(np.empty(0), 0.05).shape == (0,)


def test_detector_refuses_what_cannot_be() -> None:
    for wrong in (-0.1, 1.1, math.nan):
        with pytest.raises(AssertionError, match=r"an outcome lies in \[0, 1\]"):
            Detector.start(0.05, 100.0).after(wrong)
        with pytest.raises(AssertionError, match=r"an outcome lies in \[0, 1\]"):
            detector_evidence(np.array([wrong]), 0.05)
    for limit in (0.0, 1.0):
        with pytest.raises(AssertionError, match="a limit lies between 0 and 1"):
            Detector.start(limit, 100.0)
    with pytest.raises(AssertionError, match="a run length is at least 1"):
        Detector.start(0.05, 0.5)
    with pytest.raises(AssertionError, match=r"chance 0\.01, but no less than 0\.02 was promised"):
        weigh_audit(1.0, 0.01, 0.02)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"colour": 1}, "a detector has the keys"),
        ({"evidence": [1.0]}, r"evidence must be 5 numbers, got \[1\.0\]"),
        ({"evidence": 3}, "evidence must be 5 numbers"),
        ({"evidence": [1.0, 1.0, 1.0, 1.0, math.inf]}, "holds finite numbers, got inf"),
        ({"evidence": [1.0, 1.0, 1.0, 1.0, -1.0]}, "no outcomes lead to the detector"),
        ({"limit": "x"}, "holds finite numbers, got 'x'"),
        ({"limit": 1.0}, "no outcomes lead to the detector"),
        ({"run_length": 0.5}, "no outcomes lead to the detector"),
        ({"num_seen": True}, "holds finite numbers, got True"),
        ({"num_seen": 1.5}, "no outcomes lead to the detector"),
        ({"num_seen": -1}, "no outcomes lead to the detector"),
    ],
)
def test_detector_refuses_json_that_it_never_wrote(change: dict, words: str) -> None:
    table = Detector.start(0.05, 100.0).after(0.0).to_json()
    with pytest.raises(InputError, match=words):
        Detector.from_json({**table, **change})
