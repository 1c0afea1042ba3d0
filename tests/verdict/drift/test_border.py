"""One-token probes: evidence against enumeration, false alarms and delay by simulation, finding."""

from __future__ import annotations

import asyncio
import dataclasses
import math

import numpy as np
import pytest
from scipy import optimize, stats

from ownweights.core.chat import ChatRequest
from ownweights.verdict.drift.asking import Manner
from ownweights.verdict.drift.border import (
    FIND_DRAWS,
    LARGEST,
    NUM_CANDIDATES,
    SCREEN_DRAWS,
    Borders,
    Draws,
    Probe,
    Stakes,
    border_log_evidence,
    candidate_prompts,
    compare_borders,
    draw_marks,
    find_probes,
)
from ownweights.verdict.drift.budget import CHANNELS
from ownweights.verdict.drift.outcome import CHANGED, COULD_NOT_TELL, SAME
from tests.fakes import last_user_text
from tests.verdict.drift.endpoints import SEQUENTIAL, DrawnEndpoint, down, failing, half_border

PROBES, REFERENCE, DRAWS = 20, 200, 20
ALPHA = 0.05
DAYS = 120


def borders(rng: np.random.Generator, shares: np.ndarray, delta: float = ALPHA / 4) -> Borders:
    """Probes with these true shares of marks, referred to by draws."""
    marked = rng.binomial(REFERENCE, shares)
    probes = tuple(Probe(f"p{i}", "A", int(k), REFERENCE) for i, k in enumerate(marked))
    return Borders(probes, "m", 0.0, delta / len(probes))


def alarm_day(
    rng: np.random.Generator, known: Borders, shares: np.ndarray, days: int, stakes: Stakes
) -> int | None:
    """The day of the first alarm, if any, of an endpoint with these shares."""
    low, high = known.intervals()
    for day in range(1, days + 1):
        marked = rng.binomial(DRAWS, shares)
        stakes = stakes.after(border_log_evidence(marked, np.full(len(shares), DRAWS), low, high))
        if stakes.worth >= 1 / (0.75 * ALPHA):
            return day
    return None


@pytest.mark.parametrize(("low", "high"), [(0.2, 0.5), (0.0, 0.03), (0.6, 1.0), (0.0, 1.0)])
@pytest.mark.parametrize("n", [1, 5, 20])
def test_border_evidence_is_at_most_one_on_average_inside(low: float, high: float, n: int) -> None:
    """Every count of marks, weighed by its exact chance, for shares all over the interval."""
    counts = np.arange(n + 1)
    evidence = np.exp(border_log_evidence(counts, n, np.array(low), np.array(high)))
    for share in np.linspace(low, high, 21):
        assert float(stats.binom(n, share).pmf(counts) @ evidence) <= 1 + 1e-12


def test_border_evidence_matches_a_search_for_the_best_share() -> None:
    for k, n, low, high in ((0, 10, 0.2, 0.4), (7, 10, 0.1, 0.6), (3, 10, 0.2, 0.5)):
        # Jeffreys' prior is even in the angles
        angles = (np.arange(100_000) + 0.5) / 100_000 * math.pi / 2
        mixture = stats.binom(n, np.sin(angles) ** 2).pmf(k).mean()
        best = -optimize.minimize_scalar(
            lambda p, k=k, n=n: -stats.binom(n, p).pmf(k), bounds=(low, high), method="bounded",
        ).fun  # fmt: skip
        found = float(np.exp(border_log_evidence(k, n, np.array(low), np.array(high))))
        assert found == pytest.approx(mixture / best, rel=2e-4)


def test_border_evidence_of_no_draws_is_none() -> None:
    assert float(border_log_evidence(0, 0, np.array(0.2), np.array(0.4))) == 0.0


def test_border_refuses_impossible_counts() -> None:
    with pytest.raises(AssertionError, match="of n draws between 0 and n"):
        border_log_evidence(3, 2, np.array(0.2), np.array(0.4))


def test_stakes_match_one_product_for_each_day_of_beginning() -> None:
    rng = np.random.default_rng(0)
    days = rng.normal(0, 1, (6, 3))
    stakes = Stakes.start(3)
    for day in days:
        stakes = stakes.after(day)
    weights = [6 / (math.pi * s) ** 2 for s in range(1, 7)]
    single = sum(
        w * np.exp(days[s:]).prod(axis=0).mean() for s, w in enumerate(weights)
    )  # fmt: skip
    means = sum(w * np.exp(days[s:]).mean(axis=1).prod() for s, w in enumerate(weights))
    assert stakes.worth == pytest.approx(1 - sum(weights) + (single + means) / 2)
    assert stakes.num_days == 6


def test_stakes_without_evidence_are_worth_what_was_staked() -> None:
    stakes = Stakes.start(5)
    for _ in range(50):
        stakes = stakes.after(np.zeros(5))
    assert stakes.worth == pytest.approx(1.0)


def test_stakes_stay_finite() -> None:
    stakes = Stakes.start(2)
    for _ in range(5):
        stakes = stakes.after(np.full(2, 600.0))
    assert math.isfinite(stakes.worth)
    assert stakes.worth >= LARGEST / 2


def test_border_alarms_falsely_within_its_limit() -> None:
    """Endpoints whose shares stay, over 120 days each: the reference's own error included."""
    trials, wrong, rng = 60, 0, np.random.default_rng(1)
    for _ in range(trials):
        shares = rng.uniform(0.02, 0.98, PROBES)
        known = borders(rng, shares)
        wrong += alarm_day(rng, known, shares, DAYS, Stakes.start(PROBES)) is not None
    assert wrong / trials <= ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / trials)


def test_border_alarms_falsely_within_its_limit_at_the_edge_of_its_intervals() -> None:
    """The least favourable case: every true share lies on a bound of its interval."""
    trials, wrong, rng = 60, 0, np.random.default_rng(2)
    for _ in range(trials):
        known = borders(rng, rng.uniform(0.2, 0.8, PROBES))
        edges = known.intervals()[int(rng.integers(2))]
        wrong += alarm_day(rng, known, edges, DAYS, Stakes.start(PROBES)) is not None
    limit = 0.75 * ALPHA
    assert wrong / trials <= limit + 3 * math.sqrt(limit * (1 - limit) / trials)


def test_border_counts_on_draws_that_are_independent_of_the_day() -> None:
    """Shares that vary by .10 from day to day: half are called changed within a month (docs)."""
    trials, wrong, rng, alpha = 60, 0, np.random.default_rng(4), ALPHA / len(CHANNELS)
    for _ in range(trials):
        mean, stakes = rng.uniform(0.2, 0.8, PROBES), Stakes.start(PROBES)
        days = np.clip(mean + rng.normal(0, 0.10, (31, PROBES)), 0.01, 0.99)
        known = borders(rng, days[0], alpha / 4)
        low, high = known.intervals()
        worth = 0.0
        for shares in days[1:]:
            marked = rng.binomial(DRAWS, shares)
            stakes = stakes.after(border_log_evidence(marked, np.full(PROBES, DRAWS), low, high))
            worth = max(worth, stakes.worth)
        wrong += worth >= 1 / (0.75 * alpha)
    assert 0.3 < wrong / trials < 0.7


@pytest.mark.parametrize(
    ("what", "within_days"), [("all jump", 1), ("half jump", 2), ("all shift", 9)]
)
@pytest.mark.parametrize("quiet_days", [0, 30])
def test_border_finds_a_change_within_days(what: str, within_days: int, quiet_days: int) -> None:
    """Nine of ten changes are found within the days stated, after a month without any."""
    trials, rng, delays = 40, np.random.default_rng(3), []
    for _ in range(trials):
        shares = rng.uniform(0.2, 0.8, PROBES)
        known, stakes = borders(rng, shares), Stakes.start(PROBES)
        low, high = known.intervals()
        for _ in range(quiet_days):
            drawn = rng.binomial(DRAWS, shares)
            stakes = stakes.after(border_log_evidence(drawn, np.full(PROBES, DRAWS), low, high))
        ends = np.where(rng.random(PROBES) < 0.5, 0.02, 0.98)
        changed = {
            "all jump": ends,
            "half jump": np.where(np.arange(PROBES) < PROBES // 2, ends, shares),
            "all shift": np.where(shares < 0.5, shares + 0.3, shares - 0.3),
        }[what]
        delays.append(alarm_day(rng, known, changed, 60, stakes) or 1000)
    # the later a change begins, the less is staked on its day: one more day pays for a month
    slack = 1 if quiet_days else 0
    assert np.quantile(delays, 0.9, method="higher") <= within_days + slack + (within_days > 5)


def draws(known: Borders, marked: int, readable: int = DRAWS) -> Draws:
    return Draws((marked,) * len(known.probes), (readable,) * len(known.probes), DRAWS)


def test_compare_borders_says_how_far_tokens_moved() -> None:
    known = borders(np.random.default_rng(0), np.full(4, 0.5))
    fixed = tuple(dataclasses.replace(probe, num_marked=100) for probe in known.probes)
    known = dataclasses.replace(known, probes=fixed)
    same, stakes = compare_borders(known, Stakes.start(4), draws(known, 10), 0.01)
    assert (same.outcome, same.num_probes, same.after) == (SAME, 80, 0.0)
    gone, after = compare_borders(known, stakes, draws(known, 0), 0.01)
    assert (gone.outcome, gone.after, gone.alarm_at) == (CHANGED, 0.5, 80)
    assert after.num_days == 2
    assert gone.p_value is not None
    assert gone.p_value < 0.01


@pytest.mark.parametrize(
    ("readable", "outcome"), [(0, COULD_NOT_TELL), (9, COULD_NOT_TELL), (10, SAME)]
)
def test_compare_borders_could_not_tell_from_few_answers(readable: int, outcome: str) -> None:
    known = borders(np.random.default_rng(0), np.full(4, 0.5))
    found, _ = compare_borders(known, Stakes.start(4), draws(known, readable // 2, readable), 0.01)
    assert found.outcome == outcome


def test_candidate_prompts_are_distinct_and_seeded() -> None:
    found = candidate_prompts(NUM_CANDIDATES, 1)
    assert len(set(found)) == NUM_CANDIDATES
    assert found == candidate_prompts(NUM_CANDIDATES, 1)
    assert set(found) != set(candidate_prompts(NUM_CANDIDATES, 2))
    assert all(0 < len(prompt) <= 6 and prompt.strip() for prompt in found)


def find(endpoint: object, manner: Manner = SEQUENTIAL, num_probes: int = 8) -> Borders | None:
    return asyncio.run(
        find_probes(
            endpoint,
            "m",
            manner=manner,
            num_probes=num_probes,
            delta=0.01,
            seed=0,
            reference_draws=50,
        )  # type: ignore[arg-type]
    )


def test_find_probes_finds_those_on_a_border() -> None:
    found = find(DrawnEndpoint(shares=half_border))
    assert found is not None
    assert found.temperature == 0.0
    assert found.delta == 0.01 / 8
    for probe in found.probes:
        assert 0.3 <= half_border(probe.prompt) <= 0.7
        assert probe.num_drawn == 50
        assert 10 <= probe.num_marked <= 45


def test_find_probes_refers_with_fresh_draws() -> None:
    """A prompt that looked balanced while it was chosen, and is not, is known for what it is."""
    asked: dict[str, int] = {}

    def fading(prompt: str) -> float:
        asked[prompt] = asked.get(prompt, 0) + 1
        return 0.5 if asked[prompt] <= FIND_DRAWS + SCREEN_DRAWS else 1.0

    found = find(DrawnEndpoint(shares=fading))
    assert found is not None
    assert {probe.num_marked for probe in found.probes} <= {0, 50}
    assert sum(asked.values()) == NUM_CANDIDATES * 3 + 60 * 20 + 8 * 50


def test_find_probes_of_an_endpoint_without_borders_asks_it_to_draw() -> None:
    temperatures: list[float] = []

    def hot(request: ChatRequest) -> str:
        temperatures.append(request.body["temperature"])
        is_drawn = request.body["temperature"] > 0 and len(temperatures) % 2
        return "B" if is_drawn and len(last_user_text(request)) > 1 else "A"

    endpoint = DrawnEndpoint()
    endpoint.script = hot
    found = find(endpoint)
    assert found is not None
    assert found.temperature == 1.0
    assert sorted(set(temperatures)) == [0.0, 1.0]
    assert all(0 < probe.num_marked < probe.num_drawn for probe in found.probes)


def test_find_probes_of_a_fixed_endpoint_still_shows_large_changes() -> None:
    found = find(DrawnEndpoint(shares=lambda prompt: 1.0))
    assert found is not None
    assert [(p.mark, p.num_marked) for p in found.probes] == [("A", 50)] * 8
    finding, _ = compare_borders(found, Stakes.start(8), draws(found, 0), 0.001)
    assert finding.outcome == CHANGED
    finding, _ = compare_borders(found, Stakes.start(8), draws(found, 20), 0.001)
    assert finding.outcome == SAME


def test_find_probes_of_a_dead_endpoint_finds_none() -> None:
    assert find(down()) is None


def test_find_probes_lives_with_a_flaky_endpoint() -> None:
    flaky = failing(DrawnEndpoint(shares=half_border), [i % 10 == 0 for i in range(5_000)])
    found = find(flaky)
    assert found is not None
    assert all(25 <= probe.num_drawn <= 50 for probe in found.probes)


def test_draw_marks_counts_what_came() -> None:
    known = Borders((Probe("a", "A", 5, 10), Probe("b", "C", 5, 10)), "m", 0.0, 0.01)
    replies, found = asyncio.run(
        draw_marks(failing(DrawnEndpoint(), [True, False, False]), known, 2, SEQUENTIAL)
    )
    assert found == Draws(marked=(1, 0), readable=(1, 2), asked=2)
    assert [reply.text for reply in replies] == [None, "A", "A", "A"]
