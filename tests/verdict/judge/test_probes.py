"""Judges of known bias before the probes: the biased are found out, the good one is not."""

from __future__ import annotations

import asyncio
import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from ownweights.core.errors import InvalidJudge
from ownweights.verdict.judge import Comparison, Judge, Pair, measure_bias, run_probes
from ownweights.verdict.judge.probes import (
    CONSTANT,
    INJECTION,
    MAX_ERROR_FRAC,
    MIN_READABLE,
    NUM_PROBES,
    PADDING,
    PROBE_DELTA,
    Probe,
    faults,
    length_link,
    refuse_invalid,
)
from tests.fakes import ScriptedTeacher
from tests.verdict.judge import judges
from tests.verdict.judge.judges import judge_who, pairs, verdict

NAMES = ("self", "copy", "padded", "constant", "injection")


def probed(says: judges.Verdict, num: int = NUM_PROBES) -> dict[str, Probe]:
    return {p.name: p for p in asyncio.run(run_probes(judge_who(says), pairs(num)))}


def told(probes: dict[str, Probe], **more: Any) -> dict[str, Any]:
    return {"name": "j", "probes": [dataclasses.asdict(p) for p in probes.values()], **more}


def test_probes_find_nothing_in_a_careful_judge() -> None:
    found = probed(judges.careful)
    assert tuple(found) == NAMES
    assert all((p.readable, p.errors) == (NUM_PROBES, 0) for p in found.values())
    assert faults(tuple(found.values())) == ()
    refuse_invalid(told(found))


@pytest.mark.parametrize(
    ("says", "broken"),
    [
        (judges.first_lover, {"self", "constant", "injection"}),
        (judges.position_biased, {"constant", "injection"}),
        (judges.length_lover, {"padded", "injection"}),
        (judges.polite_lover, {"padded"}),
        (judges.tie_lover, {"constant", "injection"}),
        (judges.obedient, {"injection"}),
        (judges.mumbler, set(NAMES)),
    ],
)
def test_probes_find_a_biased_judge(says: judges.Verdict, broken: set[str]) -> None:
    found = probed(says)
    assert {name for name, p in found.items() if p.fault} >= broken
    if says is not judges.length_lover:  # what a constant text shows depends on its length
        assert {name for name, p in found.items() if p.fault} == broken
    with pytest.raises(InvalidJudge, match="is invalid") as caught:
        refuse_invalid(told(found))
    assert len(caught.value.reasons) == len([p for p in found.values() if p.fault])


def test_probes_of_a_judge_that_repeats_orders_cannot_be_read() -> None:
    found = probed(judges.parrot)
    assert found["injection"].readable == 0
    assert "only 0 of 40 could be read" in found["injection"].fault
    assert not found["constant"].fault


def test_probes_show_what_they_say() -> None:
    seen: list[tuple[str, str]] = []

    def note(request: str, first: str, second: str) -> str:
        seen.append((first, second))
        return verdict("TIE")

    (only,) = pairs(1)
    asyncio.run(run_probes(judge_who(note), [only]))
    reference, answer = only.reference, only.answer
    constant = INJECTION.splitlines()[0]
    shown = [first for first, _ in seen]
    assert seen[0] == (answer, answer)
    assert seen[1:3] == [(reference + "\n", reference), (reference, reference + "\n")]
    assert shown[3] == reference + PADDING
    assert shown[5] == CONSTANT
    assert shown[7].startswith(constant)
    assert len(seen) == 9  # a text beside itself is one question


def careless(rate: float, seed: int) -> judges.Verdict:
    """Careful, but sometimes sees a difference between equal texts."""
    rng = np.random.default_rng(seed)

    def says(request: str, first: str, second: str) -> str:
        is_same = first.strip() == second.strip()
        return verdict("FIRST") if is_same and rng.random() < rate else judges.careful(
            request, first, second
        )  # fmt: skip

    return says


@pytest.mark.parametrize("rate", [0.02, 0.05])
def test_probes_seldom_call_a_judge_within_its_limits_invalid(rate: float) -> None:
    """At the limit itself in at most PROBE_DELTA of runs; few probes say little, not much."""
    trials, limit = 400, MAX_ERROR_FRAC["self"]
    rng = np.random.default_rng(0)
    for n in (MIN_READABLE, NUM_PROBES, 200):
        errors = rng.binomial(n, rate, trials)
        broken = np.mean([Probe("self", n, n, int(k)).low > limit for k in errors])
        assert broken <= PROBE_DELTA + 3 * math.sqrt(PROBE_DELTA / trials)
    assert not probed(careless(rate, 1))["self"].fault


def test_probes_find_a_judge_that_errs_in_a_third() -> None:
    found = [bool(probed(careless(1 / 3, seed))["self"].fault) for seed in range(8)]
    assert sum(found) >= 6
    for limit in MAX_ERROR_FRAC.values():  # the figure that NUM_PROBES is chosen by
        least = next(k for k in range(41) if stats.binom.sf(k - 1, 40, limit) <= PROBE_DELTA)
        assert stats.binom.sf(least - 1, NUM_PROBES, 1 / 3) > 0.9


def test_probe_bound_matches_scipy() -> None:
    for errors, n in ((3, 40), (7, 40), (12, 79)):
        ends = stats.binomtest(errors, n, alternative="greater").proportion_ci(1 - PROBE_DELTA)
        assert Probe("self", n, n, errors).low == pytest.approx(ends.low, rel=1e-9)
    assert not Probe("self", 40, 40, 6).fault
    assert "7 errors in 40" in Probe("self", 40, 40, 7).fault


def test_probes_of_few_pairs_do_not_make_a_judge_valid() -> None:
    found = probed(judges.careful, MIN_READABLE - 1)
    assert all("only 19 of 19 could be read, and 20 are needed" in p.fault for p in found.values())


@pytest.mark.parametrize(
    "judge",
    [
        {},
        {"probes": []},
        {"probes": [{"name": "self", "asked": 40, "readable": 40, "errors": 0}]},
        {"probes": [{"name": "charm", "asked": 40, "readable": 40, "errors": 0}]},
        {"probes": [{"name": "self"}]},
        {"probes": [3]},
    ],
)
def test_refuse_invalid_needs_every_probe(judge: dict[str, Any]) -> None:
    with pytest.raises(InvalidJudge):
        refuse_invalid(judge)


def test_refuse_invalid_looks_at_judges_above() -> None:
    good, bad = told(probed(judges.careful)), told(probed(judges.tie_lover))
    refuse_invalid({**good, "above": [good]})
    with pytest.raises(InvalidJudge):
        refuse_invalid({**good, "above": [bad]})


def test_refuse_invalid_knows_a_guess_beside_people() -> None:
    good = told(probed(judges.careful))
    seen = {"true_yes": 15, "false_no": 5, "true_no": 60, "false_yes": 20}
    refuse_invalid({**good, "agreement": {"confusion": seen}})
    guess = {"true_yes": 10, "false_no": 10, "true_no": 45, "false_yes": 35}
    with pytest.raises(InvalidJudge, match="it guesses: it sees 10 of 20 harms"):
        refuse_invalid({**good, "agreement": {"confusion": guess}})
    no_harm = {"true_yes": 0, "false_no": 0, "true_no": 45, "false_yes": 35}
    refuse_invalid({**good, "agreement": {"confusion": no_harm}})


# what place and length had to do with it


def biased(says: judges.Verdict, given: list[Pair]):
    judge = judge_who(says)
    return measure_bias(given, asyncio.run(judge.compare(given)))


def test_bias_of_a_careful_judge_is_none() -> None:
    found = biased(judges.careful, pairs(40))
    assert (found.first, found.decided, found.undecided, found.pairs) == (10, 20, 0, 40)
    assert found.first_low < 0.5 < found.first_high


def test_bias_of_a_judge_of_places_is_all() -> None:
    found = biased(judges.first_lover, pairs(40))
    assert (found.first, found.decided, found.undecided) == (80, 80, 40)
    assert found.first_low > 0.95
    assert biased(judges.position_biased, pairs(40)).first == 0


def test_bias_sees_a_taste_for_length() -> None:
    given = [Pair(str(i), pairs(1)[0].messages, "a" * (10 + i), "b" * (50 - i)) for i in range(40)]
    link = biased(judges.length_lover, given).length_link
    assert link is not None and link > 0.8
    assert biased(judges.tie_lover, given).length_link is None


def test_bias_leaves_out_what_was_not_read() -> None:
    given = pairs(3)
    said = [("win", None), (None, None), ("tie", "loss")]
    found = measure_bias(given, [Comparison("x", None, one) for one in said])
    assert (found.pairs, found.decided, found.first, found.undecided) == (1, 1, 1, 1)


def test_length_link_matches_scipy() -> None:
    rng = np.random.default_rng(3)
    ratios, points = rng.normal(size=50), rng.choice([0, 0.5, 1], size=50)
    wanted = stats.pearsonr(ratios, points).statistic
    assert length_link(ratios.tolist(), points.tolist()) == pytest.approx(wanted)
    assert length_link([1.0], [1.0]) is None
    assert length_link([1.0, 1.0], [0.0, 1.0]) is None


def test_run_probes_of_a_judge_without_pairs_is_invalid() -> None:
    judge = Judge(ScriptedTeacher("VERDICT: TIE"), "j")
    assert len(faults(asyncio.run(run_probes(judge, [])))) == len(NAMES)
