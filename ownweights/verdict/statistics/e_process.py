"""Paired outcomes judged one by one, where anyone may look at any time and stop.

In: differences student - teacher in [-1, 1] (for pass and fail: -1, 0 or 1), in an order fixed
before they were judged, and a margin. Out: the stake of a gambler who bets that the student is not
worse by more than the margin, that of one who bets that it is, and bounds for the mean difference
that hold at all times at once. A stake has no tendency to grow when its bet is wrong, so the chance
that it ever reaches 1/δ is at most δ (Ville).

    stake of "not worse"   1 ──── 3 ──── 9 ──── 24      ≥ 1/δ = 20: not worse, promote
    stake of "worse"       1 ─── .6 ─── .4 ──── .3      ≥ 1/δ first: worse, refuse

Invariants: both errors stay within δ with a look after every outcome
(test_e_process_promotes_wrongly_within_delta, test_e_process_refuses_wrongly_within_delta); one
outcome at a time gives what all at once give (test_non_inferiority_matches_all_at_once); equal to
the p-value by betting (test_not_worse_matches_betting_p_value). The bounds presume that the mean
does not change; should it, they may cross.
Sources: Waudby-Smith and Ramdas, Estimating means of bounded random variables by betting
(arXiv:2010.09686), aGRAPA; Krichevsky and Trofimov, IEEE Trans. Inf. Theory 27 (1981), the mixture.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from ownweights.core.errors import InputError
from ownweights.verdict.statistics.binomial import Floats
from ownweights.verdict.statistics.bounded import BET_CAP

PRIOR_MEAN, PRIOR_SPREAD = 0.5, 0.25  # of an outcome in [0, 1] before any is seen
STEP = 0.005  # how finely the bounds of a mean difference are told apart
SMALLEST_SHARE = 1e-300  # below it a float loses digits
LARGEST_LOG = 709.0  # beyond it a stake exceeds a float; a smaller stake proves less, never more

Conclusion = Literal["not_worse", "worse"]


@dataclass(frozen=True, slots=True)
class EProcess:
    """A stake on "the mean difference is above `floor`", and what its next bet depends on."""

    floor: float
    num_seen: int = 0
    total: float = PRIOR_MEAN
    squares: float = PRIOR_SPREAD
    log_stake: float = 0.0
    log_peak: float = 0.0

    @property
    def e_value(self) -> float:
        """The stake now: may be averaged with others, unlike its peak."""
        return math.exp(min(self.log_stake, LARGEST_LOG))

    @property
    def p_value(self) -> float:
        """One over the largest stake held so far: valid whenever one stops."""
        return math.exp(-self.log_peak)

    def after(self, difference: float) -> EProcess:
        """The stake once one more outcome is known."""
        assert -1.0 <= difference <= 1.0, f"a difference lies in [-1, 1], got {difference}"
        assert -1.0 < self.floor < 1.0, f"a floor lies between -1 and 1, got {self.floor}"
        outcome, limit = (1.0 + difference) / 2, (1.0 + self.floor) / 2
        num_known = self.num_seen + 1
        gap = self.total / num_known - limit
        bet = min(max(gap / (self.squares / num_known + gap * gap), 0.0), BET_CAP / limit)
        log_stake = self.log_stake + math.log1p(bet * (outcome - limit))
        total = self.total + outcome
        squares = self.squares + (outcome - total / (num_known + 1)) ** 2
        log_peak = max(self.log_peak, log_stake)
        return EProcess(self.floor, num_known, total, squares, log_stake, log_peak)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> EProcess:
        """What `to_json` wrote. Raises: InputError when it is something else."""
        names = [field.name for field in dataclasses.fields(cls)]
        if set(table) != set(names):
            raise InputError(f"a stake has the keys {names}, got {sorted(table)}")
        for name, value in table.items():
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or not math.isfinite(value):
                raise InputError(f"{name} of a stake must be a finite number, got {value!r}")
        state = cls(**table)
        if not (
            isinstance(state.num_seen, int)
            and -1.0 < state.floor < 1.0
            and PRIOR_MEAN <= state.total <= PRIOR_MEAN + state.num_seen
            and PRIOR_SPREAD <= state.squares <= PRIOR_SPREAD + state.num_seen
            and state.log_peak >= max(0.0, state.log_stake)
        ):
            raise InputError(f"no outcomes lead to the stake {dict(table)}")
        return state


@dataclass(frozen=True, slots=True)
class NonInferiority:
    """Two stakes on the same outcomes: that the student is not worse by more than m; that it is."""

    not_worse: EProcess
    worse: EProcess

    @classmethod
    def start(cls, margin: float) -> NonInferiority:
        _check_margin(margin)
        return cls(EProcess(-margin), EProcess(margin))

    @property
    def margin(self) -> float:
        return self.worse.floor

    def after(self, difference: float) -> NonInferiority:
        """Both stakes once one more difference student - teacher is known."""
        return NonInferiority(self.not_worse.after(difference), self.worse.after(-difference))

    def conclusion(self, delta: float) -> Conclusion | None:
        """What is proved with error `delta`, None while neither is; "worse" where both are."""
        assert 0.0 < delta < 1.0, f"delta lies between 0 and 1, got {delta}"
        enough = -math.log(delta)
        if self.worse.log_peak >= enough:
            return "worse"
        return "not_worse" if self.not_worse.log_peak >= enough else None

    def to_json(self) -> dict[str, Any]:
        return {"not_worse": self.not_worse.to_json(), "worse": self.worse.to_json()}

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> NonInferiority:
        """What `to_json` wrote. Raises: InputError when it is something else."""
        if set(table) != {"not_worse", "worse"}:
            raise InputError(f"a test has the keys not_worse and worse, got {sorted(table)}")
        if not all(isinstance(stake, Mapping) for stake in table.values()):
            raise InputError("each stake of a test must be a table")
        state = cls(EProcess.from_json(table["not_worse"]), EProcess.from_json(table["worse"]))
        is_pair = state.not_worse.floor == -state.margin and state.margin >= 0
        if not is_pair or state.not_worse.num_seen != state.worse.num_seen:
            raise InputError("the two stakes of a test differ in margin or in outcomes seen")
        return state


def not_worse_log_stakes(differences: Floats, margin: float) -> Floats:
    """log of the stake on "not worse by more than `margin`" after each outcome.

    Shapes: differences (..., n) → (..., n)
    """
    _check_margin(margin)
    _check_differences(differences)
    return _log_stakes(differences, -margin)


def worse_log_stakes(differences: Floats, margin: float) -> Floats:
    """log of the stake on "worse by more than `margin`" after each outcome.

    Shapes: differences (..., n) → (..., n)
    """
    _check_margin(margin)
    _check_differences(differences)
    return _log_stakes(-differences, margin)


def confidence_sequence(
    differences: Floats, delta: float, *, step: float = STEP
) -> tuple[Floats, Floats]:
    """Bounds for the mean difference after each outcome, all right at once but for error `delta`.

    They lie on a grid as fine as `step` and never widen.
    Shapes: differences (n,) → two of (n,)
    """
    assert 0.0 < delta < 1.0, f"delta lies between 0 and 1, got {delta}"
    _check_differences(differences)
    num_cells = math.ceil(2.0 / step - 1e-9)
    floors = -1.0 + 2.0 * np.arange(1, num_cells) / num_cells
    enough = math.log(2.0 / delta)
    lower = _lower_bounds(differences, floors, enough)
    return lower, -_lower_bounds(-differences, floors, enough)


def mcnemar_log_e_value(better: ArrayLike, worse: ArrayLike) -> Floats:
    """log of the evidence against "neither is better", from running counts of discordant pairs.

    A mixture of bets on every share that the student may win.
    """
    wins, losses = _counts(better, worse)
    log_mixture = special.betaln(wins + 0.5, losses + 0.5) - special.betaln(0.5, 0.5)
    return cast(Floats, (wins + losses) * math.log(2.0) + log_mixture)


def mcnemar_better_log_e_value(better: ArrayLike, worse: ArrayLike) -> Floats:
    """log of the evidence against "the student is no better"; exchange the counts for "no worse".

    The mixture of bets on shares above one half alone.
    """
    wins, losses = _counts(better, worse)
    above_half = special.betainc(losses + 0.5, wins + 0.5, 0.5)
    is_exact = above_half > SMALLEST_SHARE
    log_share = np.log(2.0 * np.where(is_exact, above_half, 0.5))
    exact = np.where(is_exact, mcnemar_log_e_value(wins, losses) + log_share, -np.inf)
    # the first term of the mixture's series; what lies below the mixture proves less, never more
    return cast(Floats, np.maximum(exact, -np.log(math.pi * (losses + 0.5))))


def _check_margin(margin: float) -> None:
    assert 0.0 <= margin < 1.0, f"a margin is at least 0 and below 1, got {margin}"


def _check_differences(differences: Floats) -> None:
    assert (np.abs(differences) <= 1.0).all(), "a difference lies in [-1, 1]"


def _counts(better: ArrayLike, worse: ArrayLike) -> tuple[Floats, Floats]:
    wins, losses = np.asarray(better, np.float64), np.asarray(worse, np.float64)
    assert (wins >= 0).all() and (losses >= 0).all(), "counts cannot be negative"
    return wins, losses


def _past_moments(outcomes: Floats) -> tuple[Floats, Floats]:
    """Mean and spread of what was known before each outcome, the prior counting as one."""
    known = np.arange(1, outcomes.shape[-1] + 1, dtype=np.float64)
    totals = PRIOR_MEAN + np.cumsum(outcomes, axis=-1)
    squares = PRIOR_SPREAD + np.cumsum((outcomes - totals / (known + 1)) ** 2, axis=-1)
    first = np.ones((*outcomes.shape[:-1], 1))
    totals = np.concatenate([PRIOR_MEAN * first, totals[..., :-1]], axis=-1)
    squares = np.concatenate([PRIOR_SPREAD * first, squares[..., :-1]], axis=-1)
    return totals / known, squares / known


def _log_stakes(
    differences: Floats, floor: float, past: tuple[Floats, Floats] | None = None
) -> Floats:
    outcomes, limit = (1.0 + differences) / 2, (1.0 + floor) / 2
    means, spreads = past or _past_moments(outcomes)
    gaps = means - limit
    bets = np.clip(gaps / (spreads + gaps**2), 0.0, BET_CAP / limit)
    return np.cumsum(np.log1p(bets * (outcomes - limit)), axis=-1)


def _lower_bounds(differences: Floats, floors: Floats, enough: float) -> Floats:
    """After each outcome, the highest floor that is proved, as are all below it."""
    n, past = len(differences), _past_moments((1.0 + differences) / 2)
    proved_at: list[int] = []
    for floor in floors:
        is_proved = _log_stakes(differences, float(floor), past) >= enough
        if not is_proved.any():
            break
        proved_at.append(int(is_proved.argmax()))
    # a floor counts from when all below it are proved too: stakes need not fall with the floor
    times = np.maximum.accumulate(np.array(proved_at, np.int64))
    num_proved = np.searchsorted(times, np.arange(n), side="right")
    return np.concatenate([[-1.0], floors])[num_proved]
