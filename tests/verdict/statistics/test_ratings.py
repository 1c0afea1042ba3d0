"""Ratings against closed forms, a general optimiser, and the reviews of the Vicuna chart."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, special, stats

from ownweights.core.errors import InputError
from ownweights.verdict.statistics.ratings import (
    Match,
    Ratings,
    Ties,
    bootstrap_ratings,
    elo,
    length_controlled_rate,
    rate_players,
)
from tests.verdict.statistics import vicuna

RIDGE_SHIFT = 1e-4  # what the ridge may move an estimate from few matches
SEARCHED = 2e-3  # how near a general optimiser comes to the peak
BOTH: tuple[Ties, ...] = ("half", "davidson")


def played(*results: tuple[str, str, int, int, int]) -> list[Match]:
    """For each (first, second, wins, ties, losses) that many matches, each on its own question."""
    found: list[Match] = []
    for first, second, *counts in results:
        for score, count in zip((1.0, 0.5, 0.0), counts, strict=True):
            for _ in range(count):
                found.append(Match(first, second, score, f"q{len(found):04}"))
    return found


def tournament(seed: int, players: str = "abcd", rounds: int = 25) -> list[Match]:
    """Everyone meets everyone `rounds` times; later players are stronger."""
    rng = np.random.default_rng(seed)
    found = []
    for q in range(rounds):
        for i, j in itertools.combinations(range(len(players)), 2):
            win, tie = special.expit([(i - j) / 2 - 0.3, -1.0])
            score = rng.choice([1.0, 0.5, 0.0], p=[win * (1 - tie), tie, (1 - win) * (1 - tie)])
            found.append(Match(players[i], players[j], float(score), f"q{q}"))
    return found


def log_likelihood(matches: Sequence[Match], strengths: dict[str, float], nu: float) -> float:
    """The models of the module's docstring, match by match; ν = 0 shares a tie."""
    total = 0.0
    for match in matches:
        half = (strengths[match.first] - strengths[match.second]) / 2
        weights = {1.0: math.exp(half), 0.0: math.exp(-half), 0.5: nu}
        if nu:
            total += math.log(weights[match.score] / sum(weights.values()))
        else:
            chance = special.expit(2 * half)
            total += match.score * math.log(chance) + (1 - match.score) * math.log(1 - chance)
    return total


def searched(matches: Sequence[Match], ties: Ties) -> tuple[dict[str, float], float]:
    """The same by scipy's optimiser: the first player fixed at 0."""
    names = sorted({name for match in matches for name in (match.first, match.second)})

    def unpacked(x: np.ndarray) -> tuple[dict[str, float], float]:
        strengths = dict(zip(names, [0.0, *x[: len(names) - 1]], strict=True))
        return strengths, math.exp(x[-1]) if ties == "davidson" else 0.0

    num = len(names) - 1 + (ties == "davidson")
    found = optimize.minimize(lambda x: -log_likelihood(matches, *unpacked(x)), np.zeros(num))
    return unpacked(found.x)


def differences(ratings: Ratings) -> dict[str, float]:
    first = min(ratings.strengths)
    return {name: value - ratings.strengths[first] for name, value in ratings.strengths.items()}


@pytest.mark.parametrize("ties", BOTH)
@pytest.mark.parametrize("seed", range(5))
def test_ratings_match_a_general_optimiser(seed: int, ties: Ties) -> None:
    matches = tournament(seed)
    found = rate_players(matches, ties=ties)
    strengths, nu = searched(matches, ties)
    assert differences(found) == pytest.approx(strengths, abs=SEARCHED)
    assert found.tie_weight == pytest.approx(nu, abs=SEARCHED)
    assert sum(found.strengths.values()) == pytest.approx(0.0, abs=1e-9)


@given(st.integers(1, 40), st.integers(0, 40), st.integers(1, 40))
@settings(max_examples=40)
def test_ratings_of_two_players_are_the_closed_form(win: int, tie: int, loss: int) -> None:
    matches = played(("a", "b", win, tie, loss))
    half = rate_players(matches)
    odds = (win + tie / 2) / (loss + tie / 2)
    assert half.strengths["a"] - half.strengths["b"] == pytest.approx(
        math.log(odds), abs=RIDGE_SHIFT
    )
    assert half.win_rate("a", "b") == pytest.approx(odds / (1 + odds), abs=RIDGE_SHIFT)
    own = rate_players(matches, ties="davidson")
    gap = own.strengths["a"] - own.strengths["b"]
    assert gap == pytest.approx(math.log(win / loss), abs=RIDGE_SHIFT)
    assert own.tie_weight == pytest.approx(tie / math.sqrt(win * loss), abs=1e-3)
    assert own.win_rate("a", "b") == pytest.approx(odds / (1 + odds), abs=RIDGE_SHIFT)


@pytest.mark.parametrize("ties", BOTH)
@pytest.mark.parametrize("seed", range(5))
def test_ratings_always_expect_the_points_taken(seed: int, ties: Ties) -> None:
    """Every player's points, summed over matches, are what the model expects of them."""
    matches = tournament(seed, "abcde")
    ratings = rate_players(matches, ties=ties)
    for name in "abcde":
        sides = [
            (m.score, m.first, m.second)
            if m.first == name
            else (1 - m.score, m.second, m.first)
            for m in matches
            if name in (m.first, m.second)
        ]  # fmt: skip
        expected = sum(ratings.win_rate(us, them) for _, us, them in sides)
        assert sum(score for score, _, _ in sides) == pytest.approx(expected, abs=RIDGE_SHIFT)


@pytest.mark.parametrize("ties", BOTH)
@given(st.integers(0, 50), st.permutations("abcd"), st.randoms(use_true_random=False))
@settings(max_examples=15)
def test_ratings_always_ignore_names_and_sides(
    ties: Ties, seed: int, order: list[str], random
) -> None:
    matches, renamed = tournament(seed), dict(zip("abcd", order, strict=True))
    turned = [
        Match(renamed[m.second], renamed[m.first], 1 - m.score, m.question)
        if random.random() < 0.5
        else Match(renamed[m.first], renamed[m.second], m.score, m.question)
        for m in matches
    ]
    here = rate_players(matches, ties=ties).strengths
    there = rate_players(random.sample(turned, len(turned)), ties=ties).strengths
    assert {renamed[name]: value for name, value in here.items()} == pytest.approx(there, abs=1e-6)


def test_ratings_without_ties_do_not_depend_on_the_model() -> None:
    matches = played(("a", "b", 6, 0, 3), ("b", "c", 5, 0, 4), ("c", "a", 2, 0, 7))
    half, own = (rate_players(matches, ties=ties) for ties in BOTH)
    assert own.strengths == pytest.approx(half.strengths, abs=RIDGE_SHIFT)
    assert own.tie_weight == pytest.approx(0.0, abs=1e-4)


def test_ratings_share_what_lies_between_a_win_and_a_loss() -> None:
    """A judge who gives probabilities: .8 on each of ten questions is a win rate of .8."""
    matches = [Match("a", "b", 0.8, f"q{k}") for k in range(10)]
    assert rate_players(matches).win_rate("a", "b") == pytest.approx(0.8, abs=RIDGE_SHIFT)


def test_ratings_compare_through_a_third_player() -> None:
    """a and c never met: their odds multiply along the chain through b."""
    ratings = rate_players(played(("a", "b", 6, 0, 3), ("b", "c", 9, 0, 3)))
    assert ratings.win_rate("a", "c") == pytest.approx(6 / 7, abs=RIDGE_SHIFT)


def test_elo_of_ten_to_one_odds_is_400_points() -> None:
    assert elo(0.0) == 1000.0
    assert elo(math.log(10)) == pytest.approx(1400.0)


def test_ratings_refuse_parts_that_never_met() -> None:
    matches = played(("a", "b", 3, 1, 3), ("x", "y", 2, 1, 2), ("b", "c", 1, 1, 1))
    for rate in (rate_players, lambda given: bootstrap_ratings(given, "a")):
        with pytest.raises(InputError, match=r"no match joins these parts: a, b, c \| x, y") as e:
            rate(matches)
        assert "hint: judge a pair across them" in str(e.value)


def test_ratings_refuse_a_side_that_never_lost() -> None:
    matches = played(("a", "b", 3, 1, 3), ("a", "x", 4, 0, 0), ("b", "y", 2, 0, 0))
    with pytest.raises(InputError, match="a, b never lost to x, y: how much better is open"):
        rate_players([*matches, *played(("x", "y", 1, 0, 1))])


def test_ratings_place_nobody_by_ties_where_ties_have_their_place() -> None:
    matches = played(("a", "b", 3, 4, 0))
    assert rate_players(matches).win_rate("a", "b") == pytest.approx(5 / 7, abs=RIDGE_SHIFT)
    with pytest.raises(InputError, match="a never lost to b"):
        rate_players(matches, ties="davidson")


@pytest.mark.parametrize(
    ("match", "ties", "words"),
    [
        (Match("a", "a", 1.0, "q7"), "half", "q7: 'a' is matched with itself"),
        (Match("a", "b", 1.5, "q7"), "half", "q7: a score of 1.5, expected from 0 to 1"),
        (Match("a", "b", math.nan, "q7"), "half", "q7: a score of nan"),
        (Match("a", "b", 0.8, "q7"), "davidson", "q7: a score of 0.8, expected 0, 0.5 or 1"),
    ],
)
def test_ratings_refuse_what_is_no_match(match: Match, ties: Ties, words: str) -> None:
    with pytest.raises(InputError, match=words):
        rate_players([match], ties=ties)


def test_ratings_refuse_too_little() -> None:
    with pytest.raises(InputError, match="there is no match"):
        rate_players([])
    with pytest.raises(InputError, match="one question: how far questions differ"):
        bootstrap_ratings([Match("a", "b", score, "q") for score in (0.0, 1.0)], "a")
    with pytest.raises(InputError, match="'z' is in no match\nhint: players are a, b"):
        bootstrap_ratings(played(("a", "b", 1, 0, 1)), "z")


# intervals


def test_bootstrap_of_two_players_matches_the_binomial() -> None:
    """The wins among 60 redrawn questions are binomial; the ends are log-odds of its quantiles."""
    found = bootstrap_ratings(played(("a", "b", 39, 0, 21)), "b", resamples=1_999)
    assert found["b"].value == found["b"].low == found["b"].high == 0.0
    assert found["a"].value == pytest.approx(math.log(39 / 21), abs=RIDGE_SHIFT)
    for end, level in ((found["a"].low, 0.025), (found["a"].high, 0.975)):
        wins = 60 * special.expit(end)
        assert wins == pytest.approx(stats.binom.ppf(level, 60, 39 / 60), abs=1.01)


@pytest.mark.parametrize("ties", BOTH)
def test_bootstrap_always_draws_whole_questions(ties: Ties) -> None:
    """The same judgement three times over is one question, not three: nothing gets surer."""
    matches = tournament(3)
    once = bootstrap_ratings(matches, "a", ties=ties, resamples=99)
    thrice = bootstrap_ratings(matches * 3, "a", ties=ties, resamples=99)
    for name, there in thrice.items():
        here = once[name]
        expected = (here.value, here.low, here.high)
        assert (there.value, there.low, there.high) == pytest.approx(expected, abs=RIDGE_SHIFT)


def test_bootstrap_says_when_an_interval_has_no_end() -> None:
    """One win of thirty is drawn not at all in 36 % of draws: no lower end can be told."""
    found = bootstrap_ratings(played(("a", "b", 1, 0, 29)), "b", resamples=199)
    assert found["a"].low == -math.inf
    assert found["a"].value == pytest.approx(math.log(1 / 29), abs=1e-3)
    assert found["a"].high < 0
    turned = bootstrap_ratings(played(("a", "b", 1, 0, 29)), "a", resamples=199)
    assert turned["b"].high == math.inf
    assert turned["b"].low == pytest.approx(-found["a"].high, abs=RIDGE_SHIFT)


def test_bootstrap_knows_nothing_of_those_who_met_on_one_question() -> None:
    """Without that question x is joined to nobody, which bounds it on neither side."""
    bridge = [Match("a", "x", score, "bridge") for score in (1.0, 0.0)]
    found = bootstrap_ratings([*played(("a", "b", 9, 2, 8)), *bridge], "b", resamples=199)
    assert (found["x"].low, found["x"].high) == (-math.inf, math.inf)
    assert math.isfinite(found["a"].low) and math.isfinite(found["a"].high)


def test_bootstrap_is_repeatable() -> None:
    matches = tournament(4)
    once, again, other = (
        bootstrap_ratings(matches, "a", resamples=50, seed=seed) for seed in (1, 1, 2)
    )
    assert once == again
    assert once != other


# length control


def judged_by_length(seed: int, n: int, quality: float, taste: float) -> tuple[np.ndarray, ...]:
    """A judge who sees `quality`, and likes the longer with `taste`; answers are mostly longer."""
    rng = np.random.default_rng(seed)
    extra = rng.normal(150.0, 200.0, n)
    chance = special.expit(quality + taste * np.tanh(extra / extra.std(ddof=1)))
    return (rng.random(n) < chance).astype(np.float64), extra


@pytest.mark.parametrize("seed", range(4))
def test_length_control_matches_a_general_optimiser(seed: int) -> None:
    won, extra = judged_by_length(seed, 300, 0.2, 0.8)
    won = np.where(np.arange(300) % 5 == 0, 0.5, won)
    term = np.tanh(extra / extra.std(ddof=1))

    def loss(x: np.ndarray) -> float:
        log_odds = x[0] + x[1] * term
        return float(np.sum(np.logaddexp(0, log_odds) - won * log_odds))

    theta, phi = optimize.minimize(loss, np.zeros(2)).x
    found = length_controlled_rate(won, extra, resamples=20)
    assert found.controlled.value == pytest.approx(special.expit(theta), abs=SEARCHED)
    assert found.length_effect == pytest.approx(phi, abs=SEARCHED)
    assert found.raw == pytest.approx(won.mean())


def test_length_control_finds_what_length_hid() -> None:
    """As good as the reference but longer, before a judge who likes length: 50 % is the truth."""
    won, extra = judged_by_length(9, 4_000, 0.0, 1.2)
    found = length_controlled_rate(won, extra, resamples=200)
    assert found.raw > 0.6
    assert found.controlled.low < 0.5 < found.controlled.high
    assert found.length_effect == pytest.approx(1.2, abs=0.2)


@pytest.mark.parametrize("seed", range(3))
def test_length_control_always_mirrors(seed: int) -> None:
    """The rate of a against b and that of b against a add to one."""
    won, extra = judged_by_length(seed, 200, 0.4, 0.6)
    here = length_controlled_rate(won, extra, resamples=99)
    there = length_controlled_rate(1 - won, -extra, resamples=99)
    assert here.controlled.value + there.controlled.value == pytest.approx(1.0, abs=1e-6)
    assert here.controlled.low + there.controlled.high == pytest.approx(1.0, abs=1e-6)
    assert here.length_effect == pytest.approx(there.length_effect, abs=1e-6)


def test_length_control_of_equal_lengths_is_the_raw_rate() -> None:
    found = length_controlled_rate([1, 1, 0.5, 0, 1], [0, 0, 0, 0, 0], resamples=20)
    assert found.controlled.value == pytest.approx(0.7, abs=RIDGE_SHIFT)
    assert found.length_effect == 0.0


def test_length_control_interval_covers_95_percent() -> None:
    covered, trials = [], 150
    for seed in range(trials):
        won, extra = judged_by_length(100 + seed, 150, 0.3, 0.8)
        found = length_controlled_rate(won, extra, resamples=100, seed=seed).controlled
        covered.append(found.low <= special.expit(0.3) <= found.high)
    assert np.mean(covered) >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / trials)


@pytest.mark.parametrize(
    ("won", "extra", "words"),
    [
        ([1, 1, 0, 0], [5, 4, 3, -2], "length alone decides every match"),
        ([1, 1, 0, 0], [-5, -4, 3, 2], "length alone decides every match"),
        ([1, 0.5, 0, 1], [7, 7, 7, 7], "length alone decides every match"),
        ([1, 1, 1], [5, -4, 3], "every match has the same winner"),
        ([1, 0, 2], [5, -4, 3], "expected scores from 0 to 1"),
        ([1, 0, math.nan], [5, -4, 3], "expected scores from 0 to 1"),
        ([1, 0], [5, -4, 3], "2 scores with 3 lengths"),
        ([1], [5], "expected 2 or more"),
    ],
)
def test_length_control_refuses_what_cannot_be_told_apart(won, extra, words: str) -> None:
    with pytest.raises(InputError, match=words):
        length_controlled_rate(won, extra)


# the Vicuna chart


def test_vicuna_chart_is_the_sums_of_the_reviews(test_data: Path) -> None:
    """Percentages chained through Vicuna: x/Vicuna where they met, times Vicuna/ChatGPT."""
    sums = {}
    for opponent in vicuna.OPPONENTS:
        found = vicuna.reviews(test_data, vicuna.CHART.format(opponent))
        assert len(found) == 80
        sums[opponent] = np.sum([review.scores for review in found], axis=0).tolist()
    assert sums == {
        "llama-13b": [513.0, 694.0],
        "alpaca-13b": [583.0, 704.0],
        "bard": [664.0, 655.5],
        "gpt35": [693.0, 638.0],
    }
    through = sums["gpt35"][1] / sums["gpt35"][0]
    chart = [round(100 * ours / theirs * through, 2) for ours, theirs in sums.values()]
    assert chart == [68.05, 76.24, 93.26, 100.0]
    assert round(100 * through, 2) == 92.06


def test_vicuna_of_92_percent_wins_14_of_80(test_data: Path) -> None:
    against = vicuna.reviews(test_data, vicuna.CHART.format(vicuna.CHATGPT))
    assert vicuna.outcomes(against) == (14, 22, 44, 0)
    ratings = rate_players(vicuna.matches(against, vicuna.CHATGPT, vicuna.VICUNA))
    assert ratings.win_rate(vicuna.VICUNA, vicuna.CHATGPT) == pytest.approx(0.3125, abs=1e-6)


def test_vicuna_ratings_are_the_known_ones(test_data: Path) -> None:
    """Elo with ChatGPT at 1000, and intervals over questions; ends known to a few points."""
    matches = vicuna.chart_matches(test_data)
    ratings = rate_players(matches)
    rates = {name: ratings.win_rate(name, vicuna.CHATGPT) for name in ratings.strengths}
    assert {name: round(rate, 2) for name, rate in rates.items()} == {
        "vicuna-13b": 0.31, "bard": 0.26, "alpaca-13b": 0.03, "llama-13b": 0.01, "gpt35": 0.5,
    }  # fmt: skip
    found = bootstrap_ratings(matches, vicuna.CHATGPT)
    assert {name: round(elo(estimate.value)) for name, estimate in found.items()} == {
        "vicuna-13b": 863, "bard": 819, "alpaca-13b": 384, "llama-13b": 202, "gpt35": 1000,
    }  # fmt: skip
    for name, low, high in (("vicuna-13b", 791, 925), ("bard", 732, 889)):
        ends = elo(found[name].low), elo(found[name].high)
        assert ends == pytest.approx((low, high), abs=10)


def test_vicuna_wins_before_a_weaker_judge(test_data: Path) -> None:
    """The same 80 pairs of answers: GPT-4 has ChatGPT ahead, GPT-3.5 has Vicuna far ahead."""
    strong, weak = (
        vicuna.reviews(test_data, name.format(vicuna.CHATGPT))
        for name in (vicuna.NEWER_GPT4, vicuna.NEWER_GPT35)
    )
    assert {r.answers for r in strong} == {r.answers for r in weak}
    assert vicuna.outcomes(strong) == (22, 16, 42, 0)
    assert vicuna.outcomes(weak) == (65, 1, 14, 0)
    names = vicuna.CHATGPT, vicuna.VICUNA
    ahead = [
        bootstrap_ratings(vicuna.matches(given, *names), vicuna.CHATGPT)[vicuna.VICUNA]
        for given in (strong, weak)
    ]
    assert ahead[0].high < 0 < ahead[1].low


def test_weaker_judge_prefers_the_second_of_two_equal_answers(test_data: Path) -> None:
    against_itself = vicuna.reviews(test_data, vicuna.NEWER_GPT35.format(vicuna.NEWER))
    assert all(first == second for first, second in (r.answers for r in against_itself))
    assert vicuna.outcomes(against_itself) == (11, 67, 1, 1)
    matches = vicuna.matches(against_itself, "first", "second")
    assert bootstrap_ratings(matches, "first")["second"].low > 0


def test_vicuna_owes_wins_to_length(test_data: Path) -> None:
    """GPT-4 leans to the longer, mostly Vicuna's: at equal length its rates are lower."""
    length = {name: vicuna.answer_lengths(test_data, name) for name in vicuna.OPPONENTS}
    ours = vicuna.answer_lengths(test_data, vicuna.VICUNA)
    for opponent in ("bard", vicuna.CHATGPT):
        given = vicuna.reviews(test_data, vicuna.CHART.format(opponent))
        matches = vicuna.matches(given, opponent, vicuna.VICUNA)
        extra = [ours[m.question] - length[opponent][m.question] for m in matches]
        found = length_controlled_rate([1 - m.score for m in matches], extra, resamples=99)
        assert found.length_effect > 1
        assert found.controlled.value < found.raw - 0.05
