"""Anytime evidence: against a naive loop, by simulation with a look after every outcome."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from ownweights.core.errors import InputError
from ownweights.verdict.statistics import betting_p_value
from ownweights.verdict.statistics.e_process import (
    EProcess,
    NonInferiority,
    confidence_sequence,
    mcnemar_better_log_e_value,
    mcnemar_log_e_value,
    not_worse_log_stakes,
    worse_log_stakes,
)

DELTA = 0.05
ENOUGH = math.log(1 / DELTA)
TRIALS = 1_000
THREE_ERRORS = 3 * math.sqrt(DELTA * (1 - DELTA) / TRIALS)
ROUNDING = 1e-9  # sums of a few hundred logarithms in another order
differences_of_any_size = st.lists(st.floats(-1, 1), max_size=80).map(
    lambda values: np.array(values, np.float64)
)
margins = st.floats(0.0, 0.9)


def drawn(rng, better: float, worse: float, shape) -> np.ndarray:
    """Differences that are 1 and -1 with these chances, else 0."""
    uniform = rng.random(shape)
    return np.where(uniform < better, 1.0, np.where(uniform < better + worse, -1.0, 0.0))


def naive_log_stakes(differences, margin: float) -> list[float]:
    """Formula by formula, from the whole past at each step."""
    limit, stake, stakes = (1 - margin) / 2, 1.0, []
    outcomes = [(d + 1) / 2 for d in differences]
    for i, outcome in enumerate(outcomes):
        means = [(0.5 + sum(outcomes[: j + 1])) / (j + 2) for j in range(i)]
        mean = (0.5 + sum(outcomes[:i])) / (i + 1)
        past = zip(outcomes[:i], means, strict=True)
        spread = (0.25 + sum((x - m) ** 2 for x, m in past)) / (i + 1)
        bet = (mean - limit) / (spread + (mean - limit) ** 2)
        stake *= 1 + min(max(bet, 0.0), 0.75 / limit) * (outcome - limit)
        stakes.append(math.log(stake))
    return stakes


def first_time(log_stakes: np.ndarray) -> np.ndarray:
    """Outcomes until each row is proved; one more than there are when it never is."""
    proved = log_stakes >= ENOUGH
    return np.where(proved.any(-1), proved.argmax(-1) + 1, log_stakes.shape[-1] + 1)


@given(differences_of_any_size, margins)
def test_not_worse_matches_naive_loop(differences: np.ndarray, margin: float) -> None:
    found = not_worse_log_stakes(differences, margin)
    assert found == pytest.approx(np.array(naive_log_stakes(differences, margin)), abs=1e-7)


@given(differences_of_any_size, margins)
def test_not_worse_matches_betting_p_value(differences: np.ndarray, margin: float) -> None:
    """The same gambler, told of losses rather than differences."""
    peak = max(not_worse_log_stakes(differences, margin), default=0.0)
    expected = betting_p_value((1 - differences) / 2, (1 + margin) / 2)
    assert math.exp(-max(0.0, peak)) == pytest.approx(expected, rel=1e-6)


@given(differences_of_any_size, margins)
def test_non_inferiority_matches_all_at_once(differences: np.ndarray, margin: float) -> None:
    states = list(
        itertools.accumulate(
            differences.tolist(), NonInferiority.after, initial=NonInferiority.start(margin)
        )
    )
    for side, stakes in (
        ("not_worse", not_worse_log_stakes(differences, margin)),
        ("worse", worse_log_stakes(differences, margin)),
    ):
        found = [getattr(state, side) for state in states[1:]]
        peaks = np.maximum.accumulate(np.maximum(stakes, 0.0))
        assert [e.log_stake for e in found] == pytest.approx(stakes.tolist(), abs=ROUNDING)
        assert [e.log_peak for e in found] == pytest.approx(peaks.tolist(), abs=ROUNDING)
    assert states[-1].not_worse.num_seen == len(differences)


@given(differences_of_any_size, margins)
def test_non_inferiority_always_goes_on_from_its_json(
    differences: np.ndarray, margin: float
) -> None:
    kept = straight = NonInferiority.start(margin)
    for difference in differences.tolist():
        kept = NonInferiority.from_json(json.loads(json.dumps(kept.after(difference).to_json())))
        straight = straight.after(difference)
    assert kept == straight
    assert kept.margin == margin


@pytest.mark.parametrize(
    ("better", "worse", "margin"), [(0.02, 0.05, 0.03), (0.0, 0.02, 0.02), (0.3, 0.4, 0.1)]
)
def test_e_process_promotes_wrongly_within_delta(
    better: float, worse: float, margin: float
) -> None:
    """Worse by exactly the margin, a look after each of 2,000 outcomes."""
    differences = drawn(np.random.default_rng(1), better, worse, (TRIALS, 2_000))
    stakes = not_worse_log_stakes(differences, margin)
    assert (stakes.max(-1) >= ENOUGH).mean() <= DELTA + THREE_ERRORS


@pytest.mark.parametrize(("better", "worse", "margin"), [(0.02, 0.05, 0.03), (0.1, 0.1, 0.0)])
def test_e_process_refuses_wrongly_within_delta(better: float, worse: float, margin: float) -> None:
    differences = drawn(np.random.default_rng(2), better, worse, (TRIALS, 2_000))
    stakes = worse_log_stakes(differences, margin)
    assert (stakes.max(-1) >= ENOUGH).mean() <= DELTA + THREE_ERRORS


def test_e_process_promotes_wrongly_within_delta_when_outcomes_hang_together() -> None:
    """Runs of harm and of none, and graded differences: all that counts is each mean."""
    rng, margin = np.random.default_rng(3), 0.05
    noise = rng.uniform(-0.9, 0.9, (TRIALS, 1_000)) * rng.integers(0, 2, (TRIALS, 1)).astype(float)
    sizes = np.repeat(rng.random((TRIALS, 100)), 10, axis=-1)
    stakes = not_worse_log_stakes(noise * sizes - margin, margin)
    assert (stakes.max(-1) >= ENOUGH).mean() <= DELTA + THREE_ERRORS


@pytest.mark.parametrize("margin", [0.0, 0.1, 0.5])
def test_e_process_never_grows_on_average_at_the_margin(margin: float) -> None:
    """The mean stake over every sequence of seven outcomes, by enumeration, is just 1."""
    sequences = np.array(list(itertools.product([-1.0, 0.0, 1.0], repeat=7)))
    chances = np.array([0.2 + margin, 0.6 - margin, 0.2])  # of -1, 0 and 1
    weights = chances[sequences.astype(int) + 1].prod(-1)
    stakes = np.exp(not_worse_log_stakes(sequences, margin)[:, -1])
    assert weights @ stakes == pytest.approx(1.0, abs=ROUNDING)


def test_not_worse_is_proved_as_soon_as_known() -> None:
    """The draws of a simulation done elsewhere, and the median number of outcomes it found."""
    known = {
        (0.01, 0.01, 0.02): 320,
        (0.025, 0.025, 0.03): 410,
        (0.05, 0.05, 0.02): 2_340,
        (0.10, 0.10, 0.05): 744,
        (0.02, 0.03, 0.03): 568,
    }
    rng = np.random.default_rng(1)
    for better, worse in ((0.01, 0.01), (0.025, 0.025), (0.05, 0.05), (0.10, 0.10), (0.02, 0.03)):
        for margin in (0.02, 0.03, 0.05):
            differences = drawn(rng, better, worse, (40, 15_000))
            if (better, worse, margin) in known:
                stops = first_time(not_worse_log_stakes(differences, margin))
                assert abs(np.median(stops) - known[better, worse, margin]) <= 1


def test_worse_is_proved_when_it_is() -> None:
    differences = drawn(np.random.default_rng(5), 0.02, 0.17, (200, 1_000))
    assert np.median(first_time(worse_log_stakes(differences, 0.03))) < 250
    assert (first_time(not_worse_log_stakes(differences, 0.03)) <= 1_000).mean() <= DELTA


def test_non_inferiority_concludes_what_is_proved() -> None:
    state = NonInferiority.start(0.1)
    assert state.conclusion(DELTA) is None
    good, bad = state, state
    for _ in range(60):
        good, bad = good.after(0.0), bad.after(-1.0)
    assert good.conclusion(DELTA) == "not_worse"
    assert bad.conclusion(DELTA) == "worse"
    assert good.conclusion(1e-12) is None
    assert good.not_worse.p_value <= DELTA < 1.0 == good.worse.p_value


def test_non_inferiority_that_proves_both_is_not_promoted() -> None:
    state = NonInferiority.start(0.05)
    for difference in [1.0] * 50 + [-1.0] * 400:
        state = state.after(difference)
    assert state.not_worse.p_value <= DELTA
    assert state.conclusion(DELTA) == "worse"


def test_e_process_tells_stake_from_peak() -> None:
    state = EProcess(-0.1)
    for difference in [0.5] * 30 + [-1.0] * 10:
        state = state.after(difference)
    assert state.e_value < math.exp(state.log_peak)
    assert state.p_value == math.exp(-state.log_peak)


def test_e_process_of_nothing_proves_nothing() -> None:
    assert (EProcess(-0.1).e_value, EProcess(-0.1).p_value) == (1.0, 1.0)
    assert not_worse_log_stakes(np.empty(0), 0.1).shape == (0,)


def test_e_process_survives_a_stake_beyond_a_float() -> None:
    state = EProcess(-0.9)
    for _ in range(1_500):
        state = state.after(1.0)
    assert state.log_stake > 709
    assert math.isfinite(state.e_value)


@pytest.mark.parametrize(("better", "worse"), [(0.1, 0.2), (0.0, 0.05), (0.3, 0.3)])
def test_confidence_sequence_covers_at_all_times(better: float, worse: float) -> None:
    trials, delta = 200, 0.10
    differences = drawn(np.random.default_rng(6), better, worse, (trials, 400))
    missed = 0
    for row in differences:
        lower, upper = confidence_sequence(row, delta, step=0.05)
        missed += bool(((lower > better - worse) | (upper < better - worse)).any())
    assert missed / trials <= delta + 3 * math.sqrt(delta * (1 - delta) / trials)


def test_confidence_sequence_matches_testing_every_floor() -> None:
    """Each bound by hand: walk up from -1 while the stake has ever been large enough."""
    differences = drawn(np.random.default_rng(7), 0.5, 0.2, 90)
    lower, upper = confidence_sequence(differences, DELTA, step=0.1)
    floors = [round(-0.9 + 0.1 * k, 1) for k in range(19)]
    for sign, bounds in ((1.0, lower), (-1.0, -upper)):
        peaks = {
            floor: np.maximum.accumulate(naive_log_stakes(sign * differences, -floor))
            for floor in floors
        }
        for t, bound in enumerate(bounds):
            expected = -1.0
            for floor in floors:
                if peaks[floor][t] < math.log(2 / DELTA):
                    break
                expected = floor
            assert bound == pytest.approx(expected, abs=ROUNDING)


@given(differences_of_any_size)
def test_confidence_sequence_always_narrows(differences: np.ndarray) -> None:
    lower, upper = confidence_sequence(differences, 0.2, step=0.1)
    assert (np.diff(lower) >= 0).all()
    assert (np.diff(upper) <= 0).all()
    mirrored = confidence_sequence(-differences, 0.2, step=0.1)
    assert mirrored[0].tolist() == (-upper).tolist()


def test_confidence_sequence_closes_in_on_the_mean() -> None:
    lower, upper = confidence_sequence(
        drawn(np.random.default_rng(8), 0.05, 0.05, 4_000), DELTA, step=0.01
    )
    assert lower[-1] <= 0.0 <= upper[-1]
    assert upper[-1] - lower[-1] < 0.06
    assert upper[99] - lower[99] > 0.1


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_e_value_matches_its_mixture(better: int, worse: int) -> None:
    """The integral over all shares that the student may win, bet by bet."""

    def stake(angle: float) -> float:
        share = math.sin(angle) ** 2  # the prior is flat in the angle
        return math.exp((better + worse) * math.log(2)) * share**better * (1 - share) ** worse

    both = integrate.quad(stake, 0, math.pi / 2)[0] / (math.pi / 2)
    above = integrate.quad(stake, math.pi / 4, math.pi / 2)[0] / (math.pi / 4)
    found = mcnemar_log_e_value(better, worse), mcnemar_better_log_e_value(better, worse)
    assert math.exp(found[0]) == pytest.approx(both, rel=1e-6)
    assert math.exp(found[1]) == pytest.approx(above, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("share", [0.5, 0.3])
def test_mcnemar_e_values_never_grow_on_average(share: float) -> None:
    """Exact, by enumerating the wins among 40 discordant pairs."""
    wins = np.arange(41)
    weights = stats.binom.pmf(wins, 40, share)
    assert weights @ np.exp(mcnemar_better_log_e_value(wins, 40 - wins)) <= 1 + ROUNDING
    fair = stats.binom.pmf(wins, 40, 0.5)
    assert fair @ np.exp(mcnemar_log_e_value(wins, 40 - wins)) == pytest.approx(1.0)


@pytest.mark.parametrize("e_value", [mcnemar_log_e_value, mcnemar_better_log_e_value])
def test_mcnemar_e_values_err_within_delta_at_every_look(e_value) -> None:
    wins = np.cumsum(np.random.default_rng(9).random((TRIALS, 500)) < 0.5, axis=-1)
    logs = e_value(wins, np.arange(1, 501) - wins)
    assert (logs.max(-1) >= ENOUGH).mean() <= DELTA + THREE_ERRORS


def test_mcnemar_e_values_of_known_counts() -> None:
    assert mcnemar_log_e_value(0, 0) == 0.0
    assert mcnemar_better_log_e_value(0, 0) == pytest.approx(0.0, abs=ROUNDING)
    assert math.exp(mcnemar_log_e_value(9, 0)) > 1 / DELTA > math.exp(mcnemar_log_e_value(6, 0))
    assert mcnemar_better_log_e_value(0, 50) < -3
    assert mcnemar_better_log_e_value(50, 0) == pytest.approx(
        mcnemar_log_e_value(50, 0) + math.log(2)
    )


@pytest.mark.parametrize(("wins", "losses"), [(0, 900), (3, 1_020), (0, 4_000), (200, 9_000)])
def test_mcnemar_e_value_never_exceeds_its_mixture_deep_in_loss(wins: int, losses: int) -> None:
    """Where the share above one half is too small for a float."""

    def stake(share: float) -> float:
        log_stake = wins * math.log(2 * share) + losses * math.log(2 - 2 * share)
        return math.exp(log_stake) / math.sqrt(share * (1 - share)) / (math.pi / 2)

    mixture = integrate.quad(stake, 0.5, 0.53)[0]
    found = math.exp(mcnemar_better_log_e_value(wins, losses))
    assert 0.4 * mixture <= found <= mixture * (1 + 1e-6)


def test_e_process_refuses_what_is_no_difference() -> None:
    for wrong in (1.5, math.nan):
        with pytest.raises(AssertionError, match=r"lies in \[-1, 1\]"):
            NonInferiority.start(0.1).after(wrong)
        with pytest.raises(AssertionError, match=r"lies in \[-1, 1\]"):
            not_worse_log_stakes(np.array([0.0, wrong]), 0.1)
        with pytest.raises(AssertionError, match=r"lies in \[-1, 1\]"):
            confidence_sequence(np.array([wrong]), 0.1)
    for margin in (-0.1, 1.0):
        with pytest.raises(AssertionError, match="at least 0 and below 1"):
            NonInferiority.start(margin)
        with pytest.raises(AssertionError, match="at least 0 and below 1"):
            worse_log_stakes(np.zeros(3), margin)
    with pytest.raises(AssertionError, match="delta lies between 0 and 1"):
        confidence_sequence(np.zeros(3), 0.0)
    with pytest.raises(AssertionError, match="delta lies between 0 and 1"):
        NonInferiority.start(0.1).conclusion(1.0)
    with pytest.raises(AssertionError, match="a floor lies between -1 and 1"):
        EProcess(-1.0).after(0.0)
    with pytest.raises(AssertionError, match="cannot be negative"):
        mcnemar_log_e_value(-1, 3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"colour": 1}, "a stake has the keys"),
        ({"total": "much"}, "total of a stake must be a finite number, got 'much'"),
        ({"total": True}, "must be a finite number"),
        ({"log_stake": math.nan}, "must be a finite number"),
        ({"num_seen": -1}, "no outcomes lead to the stake"),
        ({"num_seen": 1.0}, "no outcomes lead to the stake"),
        ({"floor": -1.0}, "no outcomes lead to the stake"),
        ({"total": 2.0}, "no outcomes lead to the stake"),
        ({"squares": 0.0}, "no outcomes lead to the stake"),
        ({"log_stake": 2.0}, "no outcomes lead to the stake"),
        ({"log_peak": -1.0}, "no outcomes lead to the stake"),
    ],
)
def test_e_process_refuses_json_that_it_never_wrote(change: dict, words: str) -> None:
    table = EProcess(-0.1).after(0.0).to_json()
    assert EProcess.from_json(table) == EProcess(-0.1).after(0.0)
    with pytest.raises(InputError, match=words):
        EProcess.from_json({**table, **change})


def test_non_inferiority_refuses_json_that_it_never_wrote() -> None:
    table = NonInferiority.start(0.1).to_json()
    with pytest.raises(InputError, match="has the keys not_worse and worse"):
        NonInferiority.from_json({"worse": table["worse"]})
    with pytest.raises(InputError, match="must be a table"):
        NonInferiority.from_json({**table, "worse": 3})
    for other in (EProcess(0.2), EProcess(0.1).after(0.0), EProcess(-0.1)):
        with pytest.raises(InputError, match="differ in margin or in outcomes seen"):
            NonInferiority.from_json({**table, "worse": other.to_json()})
