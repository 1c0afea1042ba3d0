"""Who answers better, from matches in pairs; and how much of a win rate is length.

In: matches, each of two players on one question, scored 1, 0, or 0.5 for a tie. Out: strengths on
the log-odds scale, so that a beats b with odds exp(strength a − strength b), with intervals from
drawing whole questions anew (matches on one question stand or fall together).

Ties are "half" a win to each side by default: nothing more to estimate, two players get exactly the
win rate (wins + ties/2) that is reported elsewhere, and a tie counts as a sign of equal strength.
"davidson" gives ties a probability of their own, with weight ν beside the two strengths:
    win : tie : loss = e^(d/2) : ν : e^(−d/2),  d the difference
It says how often ties come, and players are placed by their wins alone. Davidson rather than Rao
and Kupper, since it is an exponential family: the likelihood has one peak, and expected points
equal points taken, as with half wins.

Players that never met even through others, or one side of which never won, have no finite
difference: refused with the names. A drawn set of questions that falls apart like this counts as an
infinite difference, so that an interval without an end says so. Invariants:
test_ratings_always_expect_the_points_taken, test_ratings_always_ignore_names_and_sides.
Length control: logit P(win) = θ + φ·tanh(difference in length / its standard deviation); at equal
length the rate is σ(θ). This is AlpacaEval's model without its third term, the difficulty of an
instruction, which needs many models judged on the same questions.
Sources: Davidson, JASA 65 (1970); Ford, American Mathematical Monthly 64 (1957); Dubois et al.,
Length-Controlled AlpacaEval (arXiv:2404.04475), section 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from ownweights.core.errors import InputError
from ownweights.verdict.statistics.binomial import Floats
from ownweights.verdict.statistics.corrections import Estimate

Ties = Literal["half", "davidson"]
Slopes = Callable[[Floats], tuple[float, Floats, Floats]]  # → log-likelihood, gradient, information
RIDGE = 1e-6  # keeps what the data leave open finite; too weak to be seen elsewhere
RESAMPLES = 1_000
MAX_STEPS = 100
ROUNDING = 1e-12  # of a log-likelihood
AT_THE_PEAK = 1e-18  # of a log-likelihood: a step that gains less moves no strength by 1e-8


@dataclass(frozen=True, slots=True)
class Match:
    """Two answers to one question: `score` is 1 where the first is better, 0.5 for a tie."""

    first: str
    second: str
    score: float
    question: str


@dataclass(frozen=True, slots=True)
class Ratings:
    """Strengths on the log-odds scale, their mean 0; `tie_weight` is Davidson's ν, else 0."""

    strengths: Mapping[str, float]
    tie_weight: float

    def win_rate(self, first: str, second: str) -> float:
        """The expected share of points that `first` takes from `second`, half a point for a tie."""
        half = (self.strengths[first] - self.strengths[second]) / 2
        won, lost = math.exp(half), math.exp(-half)
        return (won + self.tie_weight / 2) / (won + lost + self.tie_weight)


@dataclass(frozen=True, slots=True)
class LengthControl:
    """A win rate as judged and at equal length; `length_effect` above 0: the longer is favoured."""

    raw: float
    controlled: Estimate
    length_effect: float


def elo(difference: float) -> float:
    """A difference in strength to a player who has 1000, on the scale of chess."""
    return 1000.0 + 400.0 / math.log(10.0) * difference


def rate_players(matches: Sequence[Match], *, ties: Ties = "half") -> Ratings:
    """The strengths under which these matches are likeliest.

    Raises: InputError naming the players between whom the matches do not decide.
    """
    names, points, tied = _tables(matches, ties)
    total, total_tied = points.sum(axis=0), tied.sum(axis=0)
    _check_joined(names, total, _beaten(total, total_tied, ties))
    found = _fit(total, total_tied, ties, np.zeros(len(names) + 1))
    strengths = dict(zip(names, (found[:-1] - found[:-1].mean()).tolist(), strict=True))
    return Ratings(strengths, math.exp(found[-1]) if ties == "davidson" else 0.0)


def bootstrap_ratings(
    matches: Sequence[Match],
    reference: str,
    *,
    ties: Ties = "half",
    resamples: int = RESAMPLES,
    seed: int = 0,
    delta: float = 0.05,
) -> dict[str, Estimate]:
    """Strength of each player less that of `reference`, with intervals from redrawn questions."""
    names, points, tied = _tables(matches, ties)
    if reference not in names:
        raise InputError(f"{reference!r} is in no match", hint=f"players are {', '.join(names)}")
    if len(points) < 2:
        raise InputError("one question: how far questions differ needs at least 2")
    total, total_tied = points.sum(axis=0), tied.sum(axis=0)
    _check_joined(names, total, _beaten(total, total_tied, ties))
    best, r = _fit(total, total_tied, ties, np.zeros(len(names) + 1)), names.index(reference)
    lows, highs = np.empty((2, resamples, len(names)))
    for b, (drawn, drawn_tied) in enumerate(_redrawn(points, tied, resamples, seed)):
        found = _fit(drawn, drawn_tied, ties, best)
        lows[b], highs[b] = _bounds(found[:-1] - found[r], _beaten(drawn, drawn_tied, ties), r)
    rank = max(1, math.floor(delta / 2 * (resamples + 1) + 1e-9))
    low, high = np.sort(lows, axis=0)[rank - 1], np.sort(highs, axis=0)[-rank]
    return {
        name: Estimate(float(best[k] - best[r]), float(low[k]), float(high[k]))
        for k, name in enumerate(names)
    }


def length_controlled_rate(
    scores: ArrayLike,
    extra_chars: ArrayLike,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    delta: float = 0.05,
) -> LengthControl:
    """The win rate that answers as long as the reference's would have.

    Shapes: (n,) each, one row a question, with both orders of the pair averaged
    Units: scores 1 won, 0 lost, between them shared; extra_chars longer (below 0: shorter) than the
    reference's answer
    """
    won = np.asarray(scores, np.float64)
    gaps = np.asarray(extra_chars, np.float64)
    _check_rows(won, gaps)
    spread = float(gaps.std(ddof=1))
    terms = np.stack([np.ones(len(won)), np.tanh(gaps / (spread or 1.0))], axis=1)
    best = _newton(_logistic(terms, won, np.ones(len(won))), np.zeros(2))
    rng = np.random.default_rng(seed)
    times = rng.multinomial(len(won), np.full(len(won), 1 / len(won)), resamples)
    drawn = [_newton(_logistic(terms, won, weights), best)[0] for weights in times]
    low, high = special.expit(np.quantile(drawn, [delta / 2, 1.0 - delta / 2]))
    rate = Estimate(float(special.expit(best[0])), float(low), float(high))
    return LengthControl(float(won.mean()), rate, float(best[1]))


def _tables(matches: Sequence[Match], ties: Ties) -> tuple[list[str], Floats, Floats]:
    """Players, what each took from each on every question, and their ties. Shapes: (Q, K, K)"""
    for match in matches:
        if match.first == match.second:
            raise InputError(f"{match.first!r} is matched with itself", where=match.question)
        if not 0.0 <= match.score <= 1.0 or (ties == "davidson" and match.score % 0.5):
            wanted = "from 0 to 1" if ties == "half" else "0, 0.5 or 1"
            raise InputError(f"a score of {match.score}, expected {wanted}", where=match.question)
    names = sorted({name for match in matches for name in (match.first, match.second)})
    if not names:
        raise InputError("there is no match to rate players by")
    questions = {name: q for q, name in enumerate(sorted({match.question for match in matches}))}
    points, tied = np.zeros((2, len(questions), len(names), len(names)))
    for match in matches:
        q, i, j = questions[match.question], names.index(match.first), names.index(match.second)
        points[q, i, j] += match.score
        points[q, j, i] += 1.0 - match.score
        tied[q, [i, j], [j, i]] += match.score == 0.5
    return names, points, tied


def _redrawn(
    points: Floats, tied: Floats, resamples: int, seed: int
) -> Iterator[tuple[Floats, Floats]]:
    """What as many questions, drawn anew from these, would give. Shapes: (Q, K, K) → (K, K)"""
    num, *shape = points.shape
    times = np.random.default_rng(seed).multinomial(num, np.full(num, 1 / num), resamples)  # (R, Q)
    drawn, drawn_tied = (times @ table.reshape(num, -1) for table in (points, tied))  # (R, K·K)
    return zip(drawn.reshape(-1, *shape), drawn_tied.reshape(-1, *shape), strict=True)


def _bounds(difference: Floats, beaten: NDArray[np.bool_], r: int) -> tuple[Floats, Floats]:
    """Differences to player r, infinite where a chain of wins is missing in that direction."""
    reach = _closure(beaten)
    above, below = reach[:, r], reach[r, :]  # who beat r through others, whom r beat
    low = np.where(above, np.where(below, difference, np.inf), -np.inf)
    high = np.where(below, np.where(above, difference, -np.inf), np.inf)
    return low, high


def _fit(points: Floats, tied: Floats, ties: Ties, start: Floats) -> Floats:
    """The likeliest strengths, and the log of ν after them. Shapes: (K, K) → (K + 1,)"""
    num_players = len(points)
    first, second = np.triu_indices(num_players, 1)
    sides = np.zeros((len(first), num_players))  # (pairs, K)
    sides[np.arange(len(first)), first], sides[np.arange(len(first)), second] = 1.0, -1.0
    lead = (points[first, second] - points[second, first]) / 2
    played = points[first, second] + points[second, first]
    num_tied = float(tied[first, second].sum()) if ties == "davidson" else 0.0

    def slopes(at: Floats) -> tuple[float, Floats, Floats]:
        half = sides @ at[:-1] / 2
        log_tie = at[-1] if ties == "davidson" else -np.inf
        log_sum = np.logaddexp(np.logaddexp(half, -half), log_tie)
        win, loss, tie = (np.exp(part - log_sum) for part in (half, -half, log_tie))
        gap = (win - loss) / 2
        value = float(2 * lead @ half + num_tied * at[-1] - played @ log_sum - RIDGE / 2 * at @ at)
        gradient = np.append(sides.T @ (lead - played * gap), num_tied - played @ tie) - RIDGE * at
        information = RIDGE * np.eye(num_players + 1)
        information[:-1, :-1] += (sides.T * (played * ((win + loss) / 4 - gap**2))) @ sides
        cross = -sides.T @ (played * gap * tie)
        information[:-1, -1] += cross
        information[-1, :-1] += cross
        information[-1, -1] += played @ (tie * (1.0 - tie))
        return value, gradient, information

    return _newton(slopes, start)


def _logistic(terms: Floats, won: Floats, weights: ArrayLike) -> Slopes:
    """Logistic regression with shared wins and weighted rows. Shapes: (n, 2), (n,), (n,)"""
    times = np.asarray(weights, np.float64)

    def slopes(at: Floats) -> tuple[float, Floats, Floats]:
        log_odds = terms @ at
        chance = special.expit(log_odds)
        value = float(times @ (won * log_odds - np.logaddexp(0.0, log_odds)) - RIDGE / 2 * at @ at)
        gradient = terms.T @ (times * (won - chance)) - RIDGE * at
        information = (terms.T * (times * chance * (1.0 - chance))) @ terms
        return value, gradient, information + RIDGE * np.eye(len(at))

    return slopes


def _newton(slopes: Slopes, start: Floats) -> Floats:
    """The peak of a concave log-likelihood; a step that would lead down is halved."""
    at, (value, gradient, information) = start, slopes(start)
    for _ in range(MAX_STEPS):
        step = np.linalg.solve(information, gradient)
        if gradient @ step < AT_THE_PEAK * (1.0 + abs(value)):
            return at
        while (new := slopes(at + step))[0] < value - ROUNDING * (1.0 + abs(value)):
            step = step / 2
        at, (value, gradient, information) = at + step, new
    raise AssertionError(f"no peak of the likelihood within {MAX_STEPS} steps")


def _beaten(points: Floats, tied: Floats, ties: Ties) -> NDArray[np.bool_]:
    """Who took from whom what places them: points, or, where ties have their own place, wins."""
    return (points if ties == "half" else points - tied / 2) > 0


def _closure(edges: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Who reaches whom in any number of steps, none included."""
    reach = edges | np.eye(len(edges), dtype=np.bool_)
    for _ in range(len(edges).bit_length()):
        reach = reach @ reach
    return reach


def _check_joined(names: Sequence[str], points: Floats, beaten: NDArray[np.bool_]) -> None:
    """Refuse players whose difference no finite number describes."""
    met = _closure(points + points.T > 0)
    if not met.all():
        parts = [_picked(names, row) for row in np.unique(met, axis=0)[::-1]]
        raise InputError(
            f"no match joins these parts: {' | '.join(parts)}",
            hint="judge a pair across them, or rate each part by itself",
        )
    reach = _closure(beaten)
    if not reach.all():
        both = reach & reach.T
        top = next(row for k, row in enumerate(both) if not (reach[:, k] & ~row).any())
        raise InputError(
            f"{_picked(names, top)} never lost to {_picked(names, ~top)}: how much better is open",
            hint="judge more questions, or report the win rate with its bound",
        )


def _picked(names: Sequence[str], chosen: NDArray[np.bool_]) -> str:
    return ", ".join(name for name, is_in in zip(names, chosen.tolist(), strict=True) if is_in)


def _check_rows(won: Floats, gaps: Floats) -> None:
    """Refuse rows from which quality and length cannot be told apart."""
    if len(won) < 2 or won.shape != gaps.shape:
        raise InputError(f"{len(won)} scores with {len(gaps)} lengths: expected 2 or more, as many")
    if not (np.isfinite(gaps).all() and (won >= 0).all() and (won <= 1).all()):
        raise InputError("expected scores from 0 to 1, and lengths that are numbers")
    if won.mean() in (0.0, 1.0):
        raise InputError("every match has the same winner: a rate with a bound is all there is")
    not_lost, not_won = gaps[won > 0], gaps[won < 1]
    is_parted = not_lost.min() >= not_won.max() or not_lost.max() <= not_won.min()
    if is_parted and gaps.any():
        raise InputError(
            "length alone decides every match: quality and length cannot be told apart",
            hint="judge more questions, or report the raw rate",
        )
