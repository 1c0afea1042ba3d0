"""How often is a certificate wrong, and what does being right cost: worlds of known truth.

Caveats: the worlds are made up, because only there is the truth known; scores are uniform. A
certificate is wrong when, at the deployed threshold, the true risk among all requests is above
alpha or the true risk among those served is above beta. `violation_frac` is the share of all trials
that ended in a wrong certificate: at most delta for ours in every cell, or the run fails.
`coverage_frac` is the mean share of requests served, 0 where nothing was certified.

Cases are `world, gate, n, alpha, beta, delta`:
  worlds  informative, useless, always_wrong, anti_informative; least_favourable_served (a random
          score, true harm a hair above beta) and least_favourable_all (just within beta, until
          alpha breaks); sessions (ten like requests a session, least favourable); graded (harms
          between 0 and 1, mean a hair above the limits); five_attempts (five students in a row,
          each a hair above beta)
  gates   ours (fixed-sequence Learn-Then-Test on one request a unit); point (the estimate is within
          the limits); uncorrected (exact bounds at every threshold, the best one picked);
          select_verify (70 % pick by bounds, 30 % verify by estimate)
  peeking a look after each of 4,000 paired outcomes whose mean difference is exactly -margin: ours
          (e-process), z test, Tango's score test; and `level`, where the student is as good as the
          teacher (coverage_frac: share of trials that were proved not worse)
Ours must also cover at least 0.9 times what the uncorrected gate covers in the informative world,
where at least ten harms would be within alpha (n * alpha >= 10). Below that one harm decides, and
the gate that picks after looking covers about twice as much: n=300 with alpha=.02 is reported only.
There is no bound. Reproduce: make bench NAME=certificate_validity (quick: 200 trials a cell).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.result import simulation_line
from ownweights.verdict.statistics import (
    Limits,
    attempt_delta,
    binomial_p_value,
    develop_thresholds,
    hoeffding_bentkus_p_value,
    start_of_walk,
    walk_thresholds,
)
from ownweights.verdict.statistics.e_process import not_worse_log_stakes
from ownweights.verdict.statistics.paired import tango_statistic
from tests.verdict.gates import (
    point_estimate_gate,
    select_then_verify_gate,
    uncorrected_gate,
)
from tests.verdict.score_worlds import (
    ALWAYS_WRONG,
    ANTI_INFORMATIVE,
    INFORMATIVE,
    JUST_ABOVE,
    USELESS,
    World,
    least_favourable_all,
    least_favourable_served,
)

TRIALS, QUICK_TRIALS = 2_000, 200
NUM_DEVELOP, MIN_COVERAGE = 500, 0.10
SIZES = (300, 1_000, 3_000)
LIMITS = (Limits(0.05, 0.10, 0.05), Limits(0.05, 0.10, 0.10), Limits(0.02, 0.05, 0.05))
PER_SESSION = 10
NUM_ATTEMPTS = 5
NUM_PAIRS, FIRST_LOOK, TANGO_STEP = 4_000, 20, 10
Z_95 = 1.645
MIN_COVERAGE_RATIO = 0.9  # of the uncorrected gate's, in the informative world
MIN_HARMS_ALLOWED = 10  # within alpha: with fewer, a single harm decides
Gate = Callable[..., float | None]
Drawn = tuple[np.ndarray, np.ndarray]  # scores and harms


def ours(develop: Drawn, certify: Drawn, limits: Limits, test: Any = binomial_p_value):
    """The threshold that a certificate would deploy."""
    thresholds = develop_thresholds(develop[0], MIN_COVERAGE)
    first = start_of_walk(thresholds, *develop, limits, n=len(certify[0]), test=test)
    chosen = walk_thresholds(thresholds[first:], *certify, limits, test=test).chosen
    return None if chosen is None else chosen.threshold


NAIVE_GATES: dict[str, Gate] = {
    "point": point_estimate_gate,
    "uncorrected": uncorrected_gate,
    "select_verify": select_then_verify_gate,
}


@dataclass
class Tally:
    """What one gate did in one cell."""

    trials: int = 0
    wrong: int = 0
    covered: float = 0.0

    def add(self, is_wrong: bool, coverage_frac: float) -> None:
        self.trials += 1
        self.wrong += is_wrong
        self.covered += coverage_frac


def cases(*, is_quick: bool, seed: int) -> Iterator[dict[str, Any]]:
    """Every cell; fails at the end when one of ours is wrong too often or covers too little."""
    trials = QUICK_TRIALS if is_quick else TRIALS
    broken: list[str] = []
    for number, (name, limits, n, play) in enumerate(_cells()):
        tallies = play(np.random.default_rng((seed, number)), trials)
        for gate, tally in tallies.items():
            case = f"{name} gate={gate} n={n} alpha={limits.alpha} beta={limits.beta}"
            yield simulation_line(
                "certificate_validity", f"{case} delta={limits.delta}",
                violations=tally.wrong, trials=tally.trials, delta=limits.delta,
                coverage_frac=tally.covered / tally.trials, workload="simulated", seed=seed,
            )  # fmt: skip
        broken += _broken(name, n, limits, tallies)
    if broken:
        raise SystemExit("\n".join(broken))


def _cells() -> Iterator[tuple[str, Limits, int, Callable[..., dict[str, Tally]]]]:
    for limits in LIMITS:
        for name, world in _worlds(limits).items():
            for n in SIZES:
                yield name, limits, n, _play_world(world, limits, n)
        yield "sessions", limits, 300, _play_sessions(limits, 300)
        yield "graded", limits, 1_000, _play_graded(limits, 1_000)
        yield "five_attempts", limits, 1_000, _play_attempts(limits, 1_000)
    for name, margin, better, worse in (
        ("peeking", 0.03, 0.02, 0.05), ("peeking", 0.02, 0.09, 0.11),
        ("level", 0.03, 0.035, 0.035),
    ):  # fmt: skip
        limits = Limits(margin, margin, 0.05)
        yield name, limits, NUM_PAIRS, _play_peeking(margin, better, worse)


def _worlds(limits: Limits) -> dict[str, World]:
    return {
        "informative": INFORMATIVE,
        "useless": USELESS,
        "always_wrong": ALWAYS_WRONG,
        "anti_informative": ANTI_INFORMATIVE,
        "least_favourable_served": least_favourable_served(limits),
        "least_favourable_all": least_favourable_all(limits),
    }


def _play_world(world: World, limits: Limits, n: int) -> Callable[..., dict[str, Tally]]:
    def play(rng: np.random.Generator, trials: int) -> dict[str, Tally]:
        tallies = {name: Tally() for name in ("ours", *NAIVE_GATES)}
        for _ in range(trials):
            develop, certify = world.draw(rng, NUM_DEVELOP), world.draw(rng, n)
            thresholds = develop_thresholds(develop[0], MIN_COVERAGE)
            found = {name: gate(thresholds, *certify, limits) for name, gate in NAIVE_GATES.items()}
            found["ours"] = ours(develop, certify, limits)
            for name, chosen in found.items():
                covered = 0.0 if chosen is None else 1.0 - chosen
                tallies[name].add(world.breaks(chosen, limits), covered)
        return tallies

    return play


def _play_sessions(limits: Limits, n: int) -> Callable[..., dict[str, Tally]]:
    """Rows of a session share score and harm nine times in ten; ours draws one row a session."""
    world = least_favourable_served(limits)

    def play(rng: np.random.Generator, trials: int) -> dict[str, Tally]:
        tallies = {"ours": Tally(), "ours on every row": Tally()}
        for _ in range(trials):
            develop = world.draw(rng, NUM_DEVELOP)
            shared, own = world.draw(rng, n), world.draw(rng, n * PER_SESSION)
            is_own = rng.random(n * PER_SESSION) < 0.1
            scores, harms = (
                np.where(is_own, mine, np.repeat(common, PER_SESSION))
                for common, mine in zip(shared, own, strict=True)
            )
            drawn = np.arange(n) * PER_SESSION + rng.integers(0, PER_SESSION, n)
            for name, rows in (("ours", drawn), ("ours on every row", slice(None))):
                chosen = ours(develop, (scores[rows], harms[rows]), limits)
                covered = 0.0 if chosen is None else 1.0 - chosen
                tallies[name].add(world.breaks(chosen, limits), covered)
        return tallies

    return play


def _play_graded(limits: Limits, n: int) -> Callable[..., dict[str, Tally]]:
    """Harms of 0, 1/4 or 1 whose mean is a hair above beta, whatever the score."""
    values, chances = np.array([0.0, 0.25, 1.0]), np.array([0.0, 0.5, 0.5])
    mean = limits.beta * JUST_ABOVE
    chances = chances * mean / (chances @ values)
    chances[0] = 1.0 - chances.sum()

    def play(rng: np.random.Generator, trials: int) -> dict[str, Tally]:
        tally = Tally()
        for _ in range(trials):
            develop, certify = (
                (rng.random(size), rng.choice(values, size=size, p=chances))
                for size in (NUM_DEVELOP, n)
            )
            chosen = ours(develop, certify, limits, hoeffding_bentkus_p_value)
            tally.add(chosen is not None, 0.0 if chosen is None else 1.0 - chosen)
        return {"ours": tally}

    return play


def _play_attempts(limits: Limits, n: int) -> Callable[..., dict[str, Tally]]:
    """Five students in a row, on fresh units each: within a budget, and each at full delta."""
    world = least_favourable_served(limits)

    def play(rng: np.random.Generator, trials: int) -> dict[str, Tally]:
        tallies = {"ours": Tally(), "ours without a budget": Tally()}
        for _ in range(trials):
            found = dict.fromkeys(tallies, False)
            for k in range(1, NUM_ATTEMPTS + 1):
                drawn = world.draw(rng, NUM_DEVELOP), world.draw(rng, n)
                spent = Limits(limits.alpha, limits.beta, attempt_delta(limits.delta, k))
                found["ours"] |= ours(*drawn, spent) is not None
                found["ours without a budget"] |= ours(*drawn, limits) is not None
            for name, is_wrong in found.items():
                tallies[name].add(is_wrong, 0.0)
        return tallies

    return play


def _play_peeking(margin: float, better: float, worse: float) -> Callable[..., dict[str, Tally]]:
    """A look after every outcome: the first look that proves "not worse" counts."""
    is_wrong = better - worse <= -margin + 1e-12

    def play(rng: np.random.Generator, trials: int) -> dict[str, Tally]:
        tallies = {name: Tally() for name in ("ours", "z", "tango")}
        for _ in range(trials):
            lots = rng.random(NUM_PAIRS)
            wins, losses = (lots < better), (lots >= 1.0 - worse)
            differences = wins.astype(np.float64) - losses
            proved = {
                "ours": bool((not_worse_log_stakes(differences, margin) >= math.log(20)).any()),
                **_naive_looks(np.cumsum(wins), np.cumsum(losses), margin),
            }
            for name, is_proved in proved.items():
                tallies[name].add(is_wrong and is_proved, float(is_proved))
        return tallies

    return play


def _naive_looks(wins: np.ndarray, losses: np.ndarray, margin: float) -> dict[str, bool]:
    """Whether a test made for one look ever says "not worse" (z above 1.645)."""
    n = np.arange(1, NUM_PAIRS + 1)
    gap, discordant = (wins - losses) / n, (wins + losses) / n
    spread = np.maximum(discordant - gap**2, 1e-12)
    z = ((gap + margin) / np.sqrt(spread / n))[FIRST_LOOK:]
    tango = (
        tango_statistic(int(wins[i]), int(losses[i]), i + 1, -margin)
        for i in range(FIRST_LOOK, NUM_PAIRS, TANGO_STEP)
    )
    return {"z": bool((z > Z_95).any()), "tango": any(value > Z_95 for value in tango)}


def _broken(name: str, n: int, limits: Limits, tallies: dict[str, Tally]) -> list[str]:
    """What our gate promised and did not keep in one cell, beyond three standard errors."""
    tally = tallies["ours"]
    most = limits.delta + 3 * math.sqrt(limits.delta * (1 - limits.delta) / tally.trials)
    cell = f"{name} n={n} {limits}"
    found = [f"{cell}: wrong {tally.wrong / tally.trials:.4f}"] * (
        tally.wrong > most * tally.trials
    )
    is_measured = name == "informative" and n * limits.alpha >= MIN_HARMS_ALLOWED
    least = MIN_COVERAGE_RATIO * tallies["uncorrected"].covered if is_measured else 0.0
    if tally.covered < least:
        found.append(
            f"{cell}: covers {tally.covered / tally.trials:.4f}, needs {least / tally.trials:.4f}"
        )
    return found
