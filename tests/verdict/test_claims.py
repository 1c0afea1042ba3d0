"""Claims C and D: what they count, which slices they walk through, and how often they err."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ownweights.core.errors import InputError, SettingsError
from ownweights.verdict import Claim, Judged, Spend, Subject, Verdict, certify
from ownweights.verdict.claims import (
    Ladder,
    _conclusion,
    _stakes_on,
    decide_claims,
    difference_of,
    paired_rows,
    proved_together,
    units_to_prove,
)
from ownweights.verdict.judged import ANSWERED, FAILED
from ownweights.verdict.statistics.e_process import NonInferiority, not_worse_log_stakes
from ownweights.verdict.statistics.e_values import e_bh
from ownweights.verdict.statistics.paired import tango_p_value
from tests.verdict.test_certificate import refusal, verdict

SUBJECT = Subject("tickets", "s1", "d1", "json", teachers=("rented-1",))
BOTH = Claim(paired=("C", "D"), margin=0.1)
ALL = Ladder((), 0, None)
DELTA = 0.05


def row(number: int, *, split: str = "certify", **known: object) -> Judged:
    given_: dict[str, object] = {"status": ANSWERED, "score": 0.0, "harm": 0.0, **known}
    return Judged(f"{split}{number}", f"{split}{number:06d}", split, **given_)  # type: ignore[arg-type]


def with_differences(values: Sequence[float], **known: object) -> list[Judged]:
    return [
        row(i, difference=float(v), harm=float(v < 0), **known) for i, v in enumerate(values)
    ]  # fmt: skip


def with_pairs(again: Sequence[float], student: Sequence[float]) -> list[Judged]:
    return [
        row(i, pair=(float(a), float(s)))
        for i, (a, s) in enumerate(zip(again, student, strict=True))
    ]


# what is counted


def test_difference_of_claim_c_is_the_judges_or_the_harm() -> None:
    assert difference_of(row(1, difference=1.0), "C") == 1.0
    assert difference_of(row(1, harm=1.0), "C") == -1.0
    assert difference_of(row(1, harm=0.0), "C") == 0.0
    assert difference_of(row(1, harm=None), "C") == -1.0  # nobody could judge it
    assert difference_of(row(1, harm=0.25), "C") == -0.25


def test_difference_of_claim_d_is_the_noise_minus_the_students() -> None:
    assert difference_of(row(1, pair=(1.0, 0.0)), "D") == 1.0
    assert difference_of(row(1, pair=(0.25, 0.75)), "D") == -0.5


@pytest.mark.parametrize(
    ("known", "name"),
    [({"difference": -1.5}, "C"), ({"pair": (3.0, 3.0)}, "D"), ({"pair": (0.0, 1.5)}, "D")],
)
def test_difference_beyond_its_range_is_refused(known: dict[str, object], name: str) -> None:
    with pytest.raises(InputError, match=r"judged request certify7 differs by .* expected -1 to 1"):
        difference_of(row(7, **known), name)


def test_paired_rows_are_one_a_unit_answered_and_of_certify() -> None:
    twins = [dataclasses.replace(row(1), id=f"twin{i}", pair=(0.0, 0.0)) for i in range(5)]
    other = [row(2, status=FAILED), row(3, split="develop"), row(4)]
    found = [paired_rows([*twins, *other], name) for name in ("C", "D")]
    assert [[one.unit for one in rows] for rows in found] == [
        ["certify000001", "certify000004"], ["certify000001"],
    ]  # fmt: skip


def test_paired_rows_do_not_depend_on_the_order_given() -> None:
    rows = with_differences([0.0, 1.0, -1.0, 0.0])
    assert paired_rows(reversed(rows), "C") == paired_rows(rows, "C") == rows


# the way to the deployed slice


def test_ladder_goes_outwards_from_where_develop_expects_to_deploy() -> None:
    ladder = Ladder((0.9, 0.8, 0.7, 0.6), 1, 0.6)
    assert ladder.way() == [0.8, 0.9, 0.7, 0.6]
    assert dataclasses.replace(ladder, deployed=0.8).way() == [0.8]
    assert dataclasses.replace(ladder, deployed=None).way() == [0.8, 0.9, 0.7, 0.6, None]
    assert ALL.way() == [None]
    assert Ladder((0.9,), 1, None).way() == [None]


@given(st.integers(0, 12), st.integers(0, 12), st.integers(0, 12))
def test_ladder_always_ends_at_the_deployed_slice(num: int, expected: int, at: int) -> None:
    slices: list[float | None] = [*(-float(i) for i in range(num)), None]
    ladder = Ladder(tuple(map(float, slices[:-1])), min(expected, num), slices[min(at, num)])  # type: ignore[arg-type]
    way = ladder.way()
    assert way[-1] == ladder.deployed
    assert way[0] == slices[min(expected, num)]
    assert len(set(way)) == len(way)
    # the order is fixed whatever is deployed: one way is the beginning of the longer one
    whole = max((dataclasses.replace(ladder, deployed=s).way() for s in slices), key=len)
    assert whole[: len(way)] == way


# the decision


@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0]), max_size=150), st.sampled_from([0.02, 0.1, 0.3]))
@settings(max_examples=40, deadline=None)
def test_claims_match_the_test_run_one_by_one(values: list[float], margin: float) -> None:
    (found,) = decide_claims(
        Claim(paired=("C",), margin=margin), with_differences(values), ALL, DELTA
    )
    test = NonInferiority.start(margin)
    for value in values:
        test = test.after(value)
    assert found.conclusion == (test.conclusion(DELTA) or "undecided")
    assert found.p_value == pytest.approx(test.not_worse.p_value)
    assert found.p_worse == pytest.approx(test.worse.p_value)
    assert found.e_value == pytest.approx(test.not_worse.e_value)
    assert (found.n, found.better, found.worse) == (
        len(values), values.count(1.0), values.count(-1.0),
    )  # fmt: skip
    assert found.low <= found.mean <= found.high or not values


def test_claim_c_proves_an_equal_student_and_refuses_a_bad_one() -> None:
    claim = Claim(paired=("C",), margin=0.1)
    (equal,) = decide_claims(claim, with_differences([1.0, -1.0, 0.0, 0.0] * 200), ALL, DELTA)
    (bad,) = decide_claims(claim, with_differences([-1.0, -1.0, 1.0, 0.0] * 200), ALL, DELTA)
    (few,) = decide_claims(claim, with_differences([0.0] * 8), ALL, DELTA)
    assert [one.conclusion for one in (equal, bad, few)] == ["not_worse", "worse", "undecided"]
    assert bad.reason.startswith("the opposite is proved")
    assert bad.units is None
    assert (few.units or 0) > 8
    assert equal.tango == pytest.approx(tango_p_value(200, 200, 800, 0.1))
    assert (equal.among, equal.num_tests, equal.teacher_frac) == ("answered", 1, None)


def test_claim_d_of_one_more_draw_and_of_a_stranger() -> None:
    rng = np.random.default_rng(3)
    again, student = rng.random((2, 2000)) < 0.3
    claim = Claim(paired=("D",), margin=0.06)
    (twin,) = decide_claims(claim, with_pairs(again, student), ALL, DELTA)
    (stranger,) = decide_claims(claim, with_pairs(again, np.ones(2000)), ALL, DELTA)
    assert (twin.conclusion, stranger.conclusion) == ("not_worse", "worse")
    assert twin.teacher_frac == pytest.approx(again.mean())
    assert twin.student_frac == pytest.approx(student.mean())
    assert stranger.student_frac == 1.0


def test_claim_d_says_nothing_of_a_teacher_that_never_agrees_with_itself() -> None:
    claim = Claim(paired=("D",), margin=0.05)
    (found,) = decide_claims(claim, with_pairs(np.ones(2000), np.ones(2000)), ALL, DELTA)
    assert found.conclusion == "says_nothing"
    assert "would pass too" in found.reason
    assert found.p_value < DELTA  # true as it stands, and of no use


def test_claims_without_units_are_undecided() -> None:
    for rows in ([], [row(1, status=FAILED, harm=None, score=-math.inf)]):
        quality, noise = decide_claims(BOTH, rows, ALL, DELTA)
        assert (quality.conclusion, noise.conclusion) == ("undecided", "undecided")
        assert (quality.n, quality.p_value, quality.e_value, quality.units) == (0, 1.0, 1.0, None)
        assert (quality.low, quality.high) == (-1.0, 1.0)
        assert "answered twice" in noise.reason


def test_claims_need_every_slice_on_the_way() -> None:
    """Good where it is deployed, bad in the slice that develop expected: not proved."""
    good = [row(i, score=-1.0, difference=0.0) for i in range(2000)]
    bad = [row(9000 + i, score=1.0, difference=-1.0, harm=1.0) for i in range(20)]
    claim = Claim(paired=("C",), margin=0.1)
    expected = [decide_claims(claim, [*good, *bad], Ladder((0.0, -2.0), at, -2.0), DELTA)[0]
                for at in (0, 1)]  # fmt: skip
    assert [one.conclusion for one in expected] == ["undecided", "not_worse"]
    assert [one.num_tests for one in expected] == [2, 1]
    assert [one.n for one in expected] == [2020, 2020]


def test_claims_err_within_delta_whatever_threshold_is_deployed() -> None:
    """All slices lie on the border; somebody deploys the one where luck was best."""
    rng, margin, delta, trials = np.random.default_rng(5), 0.1, 0.1, 400
    thresholds = tuple(np.linspace(0.9, 0.02, 23))
    wrong = naive = 0
    for _ in range(trials):
        values = rng.choice([-1.0, 0.0, 1.0], 400, p=[0.2, 0.7, 0.1])
        scores = rng.random(400)
        rows = [
            row(i, difference=v, score=s)
            for i, (v, s) in enumerate(zip(values, scores, strict=True))
        ]
        peaks = {
            t: not_worse_log_stakes(values[scores >= t], margin).max(initial=0.0)
            for t in thresholds
        }
        lucky = max(peaks, key=lambda t: peaks[t])
        naive += peaks[lucky] >= -math.log(delta)
        way = Ladder(thresholds, 10, lucky).way()
        wrong += _conclusion(_stakes_on(way, rows, "C", margin), delta) == "not_worse"
    noise = 3 * math.sqrt(delta * (1 - delta) / trials)
    assert wrong / trials <= delta + noise
    assert naive / trials > delta + noise  # the simulation can tell


def test_e_value_of_a_claim_has_a_mean_of_at_most_one_when_it_is_false() -> None:
    rng, total, trials = np.random.default_rng(7), 0.0, 1500
    for _ in range(trials):
        values = rng.choice([-1.0, 0.0, 1.0], 60, p=[0.25, 0.6, 0.15])
        scores = rng.random(60)
        rows = [
            row(i, difference=v, score=s)
            for i, (v, s) in enumerate(zip(values, scores, strict=True))
        ]
        lucky = max((0.2, 0.5), key=lambda t: values[scores >= t].mean())
        way = Ladder((0.5, 0.2), 0, lucky).way()
        total += math.exp(_stakes_on(way, rows, "C", 0.1).last)
    assert total / trials <= 1.1


def test_units_to_prove_is_what_it_takes() -> None:
    """Most samples of the size foretold do prove the claim, and most of a third of it do not."""
    rng, shares = np.random.default_rng(11), [0.06, 0.9, 0.04]
    seen = rng.choice([-1.0, 0.0, 1.0], 4000, p=shares)
    units = units_to_prove(seen, 0.05, DELTA)
    assert units is not None
    found = [
        np.mean([
            not_worse_log_stakes(rng.choice([-1.0, 0.0, 1.0], size, p=shares), 0.05).max()
            >= -math.log(DELTA)
            for _ in range(100)
        ])
        for size in (2 * units, units // 3)
    ]  # fmt: skip
    assert found[0] > 0.75
    assert found[1] < 0.5
    assert units_to_prove(np.zeros(10), 0.1, DELTA) == math.ceil(
        math.log(1 / DELTA) / math.log1p(0.75 * 0.1 / 0.9)
    )


# in a verdict


def study(n: int = 1500, harm_every: int = 50) -> list[Judged]:
    rng = np.random.default_rng(1)
    return [
        row(
            i, split=split, score=-(i % 100) / 100, harm=float(i % harm_every == 0),
            pair=(float(rng.random() < 0.2), float(rng.random() < 0.2)),
        )
        for split, num in (("develop", 400), ("certify", n))
        for i in range(num)
    ]  # fmt: skip


def test_certify_shares_the_attempts_error_among_what_it_claims() -> None:
    spend = Spend(1, 0.03)
    found = certify(BOTH, SUBJECT, study(), spend)
    assert found.issued
    assert (found.delta_spent, [one.name for one in found.paired]) == (0.03, ["C", "D"])
    assert [one.delta for one in found.paired] == pytest.approx([0.01, 0.01])
    assert [one.conclusion for one in found.paired] == ["not_worse", "not_worse"]
    assert [one.among for one in found.paired] == ["served", "served"]
    assert found.p_all <= 0.01
    assert found.p_served <= 0.01
    assert any("shared equally by A with B, C, D" in line for line in found.assumptions)
    assert any("this is attempt 1, which spends 0.03" in line for line in found.assumptions)


def test_certify_with_claims_needs_more_than_without() -> None:
    """A third of the error is left for A and B: a border case no longer passes."""
    rows = [dataclasses.replace(one, harm=0.0) for one in study(66)]
    spend = Spend(1, 0.05)
    assert certify(Claim(), SUBJECT, rows, spend).issued
    assert not certify(BOTH, SUBJECT, rows, spend).issued


def test_certify_without_claims_is_as_it_was() -> None:
    rows = study()
    plain = [dataclasses.replace(one, pair=None) for one in rows]
    assert certify(Claim(), SUBJECT, rows) == certify(Claim(), SUBJECT, plain)
    assert certify(Claim(), SUBJECT, rows).paired == ()


def test_certify_refused_decides_claims_on_all_that_was_answered() -> None:
    rows = [dataclasses.replace(one, harm=1.0, score=-math.inf) for one in study()]
    found = certify(BOTH, SUBJECT, rows)
    assert not found.issued
    quality, noise = found.paired
    assert (quality.among, quality.n, quality.conclusion) == ("answered", 1500, "worse")
    assert noise.conclusion == "not_worse"  # it differs from any answer, as the teacher does


def test_certify_claims_are_of_those_served_alone() -> None:
    rows = [
        dataclasses.replace(one, pair=(0.0, 1.0), harm=1.0) if i % 4 == 0 and one.score < -0.5
        else one
        for i, one in enumerate(study(3000))
    ]  # fmt: skip
    found = certify(BOTH, SUBJECT, rows)
    assert found.issued
    assert found.threshold is not None
    inside = [one for one in rows if one.split == "certify" and one.score >= found.threshold]
    quality, noise = found.paired
    assert quality.n == noise.n == found.n_served == len(inside) < 3000
    assert quality.mean == pytest.approx(-sum(one.counted_harm for one in inside) / len(inside))


def test_verdict_with_claims_survives_json() -> None:
    known = certify(BOTH, SUBJECT, study())
    assert len(known.paired) == 2
    assert Verdict.from_dict(json.loads(json.dumps(known.to_dict()))) == known
    old = known.to_dict()
    del old["paired"], old["claim"]["paired"], old["claim"]["margin"]
    read = Verdict.from_dict(old)  # as they were written before there were such claims
    assert (read.paired, read.claim.paired) == ((), ())


def test_claim_names_only_what_there_is() -> None:
    assert Claim(paired=("D", "C", "D")).paired == ("C", "D")
    with pytest.raises(SettingsError, match="verdict claims names E, expected any of C and D"):
        Claim(paired=("C", "E"))
    with pytest.raises(SettingsError, match=r"verdict margin is 0\.0"):
        Claim(margin=0.0)


def test_claim_plan_is_the_old_one_without_claims() -> None:
    assert Claim().plan() == {
        "alpha": 0.05, "beta": 0.1, "delta": 0.05, "min_coverage_frac": 0.1,
    }  # fmt: skip
    assert BOTH.plan()["margin"] == 0.1
    assert Claim(margin=0.3).plan() == Claim().plan()  # it means nothing without C and D


# several workloads


def of(workload: str, e_value: float, *, attempt: int = 1, name: str = "C") -> Verdict:
    (one,) = decide_claims(Claim(paired=("C",)), with_differences([0.0]), ALL, DELTA)
    one = dataclasses.replace(one, e_value=e_value, name=name)
    subject = Subject(workload, "s", "d", "judge")
    return (verdict if e_value > 1 else refusal)(subject=subject, paired=(one,), attempt=attempt)


def test_proved_together_is_e_bh_of_the_newest_verdicts() -> None:
    first = 6 / math.pi**2
    values = {"a": 500.0, "b": 90.0, "c": 30.0, "d": 0.5}
    found = proved_together((of(name, value) for name, value in values.items()), DELTA)
    expected = e_bh([value * first for value in values.values()], DELTA)
    assert found == dict(zip(values, expected.tolist(), strict=True))
    assert found == {"a": True, "b": True, "c": False, "d": False}


def test_proved_together_counts_attempts_and_takes_the_newest() -> None:
    assert proved_together([of("a", 1e9), of("a", 30.0, attempt=2)], DELTA) == {"a": False}
    assert proved_together([of("a", 30.0), of("a", 1e9, attempt=9)], DELTA) == {"a": True}
    assert proved_together([of("a", 1e9, name="D")], DELTA) == {}


def test_proved_together_errs_in_at_most_delta_of_what_it_proves() -> None:
    """Four false claims beside four true ones: the share of false ones among those that stand."""
    rng, fractions = np.random.default_rng(13), []
    for _ in range(400):
        stakes = np.concatenate([1 / rng.random(4).clip(1e-9), np.full(4, 1e5)])
        stakes[:4] /= 1 - np.log(1e-9)  # 1/U cut at 1e9 has that mean: these have mean 1
        found = proved_together((of(f"w{i}", s) for i, s in enumerate(stakes)), DELTA)
        held = np.array(list(found.values()))
        fractions.append(held[:4].sum() / max(1, held.sum()))
    assert np.mean(fractions) <= DELTA
