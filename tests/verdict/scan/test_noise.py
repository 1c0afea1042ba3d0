"""The teacher's own noise, and the bounds that follow from it, beside brute force."""

from __future__ import annotations

import itertools
import json
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ownweights.core.project import Project
from ownweights.dataset import build_dataset
from ownweights.traffic.record import Record
from ownweights.verdict import Claim
from ownweights.verdict.checks import check_named, choose_check
from ownweights.verdict.scan.gather import NO_KEY, exact_key, json_key
from ownweights.verdict.scan.measure import agreement_ceiling, coverage_bound, drawn_pairs
from ownweights.verdict.statistics import clopper_pearson_interval
from tests.dataset.records import body, many, phrase, real_records, record
from tests.verdict.scan.test_scan import CHEAP, scanned

# the teacher's own noise


def test_scan_agreement_is_one_pair_a_unit() -> None:
    """Fifty questions asked four times: 30 answered always alike, 20 never."""
    records = [
        record(phrase(q), f"a{q}" if q < 30 else f"a{q} {i}", id=f"{q}-{i}")
        for q in range(50) for i in range(4)
    ]  # fmt: skip
    alone = [record(phrase(100 + q)) for q in range(20)]
    found = scanned([*records, *alone]).agreement
    assert (found.check, found.units, found.agree, found.frac) == ("exact", 50, 30, 0.6)
    assert (found.low, found.high) == pytest.approx(clopper_pearson_interval(30, 50, 0.05))
    assert found.ceiling == pytest.approx(found.high**0.5)


def test_scan_agreement_interval_covers_the_truth() -> None:
    """Teachers that repeat themselves with a known probability: 95 % intervals hold it."""
    rng, missed, truth = random.Random(4), 0, 0.5**2 + 0.3**2 + 0.2**2
    for trial in range(120):
        records = [
            record(phrase(q), rng.choices("abc", (5, 3, 2))[0], id=f"{trial}-{q}-{i}")
            for q in range(40) for i in range(3)
        ]  # fmt: skip
        found = scanned(records).agreement
        missed += not found.low <= truth <= found.high
    assert missed <= 0.05 * 120 + 3 * (120 * 0.05 * 0.95) ** 0.5


def test_scan_agreement_is_unknown_where_nothing_was_asked_twice() -> None:
    found = scanned(many(9)).agreement
    assert (found.units, found.frac, found.low, found.high, found.ceiling) == (
        0,
        None,
        0.0,
        1.0,
        1.0,
    )
    assert found.once_frac == 1.0


def test_scan_agreement_leaves_out_answers_that_cannot_be_compared() -> None:
    cut = [record("q", "half", id=f"c{i}", finish="length") for i in range(3)]
    own = [record("q", "mine", id=f"s{i}", role="student") for i in range(3)]
    assert scanned([*cut, *own, record("q", "whole")]).agreement.units == 0


def test_scan_compares_json_where_all_answers_are_json() -> None:
    alike = ['{"a": 1, "b": [2]}', '{"b":[2.0],"a":1}', '{ "a":1.0, "b":[2]}']
    records = [
        record(phrase(q), alike[(q + i) % 3], id=f"{q}-{i}") for q in range(30) for i in (0, 1)
    ]
    found = scanned(records).agreement
    assert (found.check, found.agree, found.units) == ("json", 30, 30)
    worded = [record(phrase(900 + i), "no JSON") for i in range(200)]
    assert scanned([*records, *worded]).agreement.check == "exact"


def test_scan_chooses_the_check_that_a_verdict_would(test_data: Path, tmp_path: Path) -> None:
    for name in ("assistant", "shell"):
        records = real_records(test_data, name)[:2000]
        workload = records[0].workload
        built = build_dataset(records, Project(tmp_path / name), workload=workload)
        chosen = choose_check(one.target for one in built.examples("develop"))
        assert scanned(records).agreement.check == chosen.name


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=30), st.randoms())
@settings(max_examples=80)
def test_drawn_pairs_match_brute_force(rows: list[tuple[int, int]], rng: Any) -> None:
    lots = list(range(len(rows)))
    rng.shuffle(lots)
    unit, request = (np.array([row[i] for row in rows], np.uint64) for i in (0, 1))
    first, second = drawn_pairs(unit, request, np.array(lots, np.uint64))
    groups: defaultdict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    for place, (row, lot) in enumerate(zip(rows, lots, strict=True)):
        groups[row].append((lot, place))
    best: dict[int, tuple[int, int, int]] = {}
    for (u, _), members in groups.items():
        if len(members) > 1:
            (low, a), (_, b) = sorted(members)[:2]
            best[u] = min(best.get(u, (10**9, 0, 0)), (low, a, b))
    expected = [(a, b) for _, (_, a, b) in sorted(best.items())]
    assert list(zip(first.tolist(), second.tolist(), strict=True)) == expected


JSON_TEXTS = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3)
    | st.sampled_from([1.0, 1.5, -0.0, 1e300, "1", "é"]),
    lambda inner: st.lists(inner, max_size=2)
    | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=4,
).map(json.dumps)  # fmt: skip


@given(JSON_TEXTS | st.sampled_from(["", "x", '{"a":1,"a":2}', "NaN"]),
       JSON_TEXTS | st.sampled_from(["", "x", "null", "Infinity"]))  # fmt: skip
@settings(max_examples=300)
def test_answer_keys_match_the_checks(left: str, right: str) -> None:
    same = check_named("json").harm(left, [right])
    (a, _), (b, _) = json_key(left), json_key(right)
    assert same == (None if b == NO_KEY else float(a != b))
    if right.strip():
        assert check_named("exact").harm(left, [right]) == float(
            exact_key(left) != exact_key(right)
        )


# bounds


@given(st.lists(st.lists(st.floats(0.01, 1), min_size=1, max_size=5), min_size=1, max_size=8))
def test_ceiling_holds_for_the_best_student(weights: list[list[float]]) -> None:
    """The best any student can do is the likeliest answer of each request."""
    shares = [np.array(row) / sum(row) for row in weights]
    agrees = float(np.mean([(share**2).sum() for share in shares]))
    best = float(np.mean([share.max() for share in shares]))
    assert best <= agreement_ceiling(agrees) + 1e-12
    assert agrees <= best + 1e-12


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0.01, 0.3), st.floats(0.01, 0.3))
def test_coverage_holds_for_an_oracle(
    coverable: float, agrees: float, alpha: float, beta: float
) -> None:
    """Serve all that agrees, then what harms, one by one while both limits hold."""
    n = 1000
    claim = Claim(alpha=alpha, beta=beta)
    good = int(coverable * agrees * n)
    served = harmed = 0
    for is_good in itertools.chain([True] * good, [False] * int(coverable * n - good)):
        if harmed + (not is_good) > alpha * n or harmed + (not is_good) > beta * (served + 1):
            break
        served, harmed = served + 1, harmed + (not is_good)
    assert served / n <= coverage_bound(coverable, agrees, claim) + 1e-9
    assert coverage_bound(coverable, agrees, claim) <= coverable


def test_scan_coverage_counts_what_a_student_may_answer() -> None:
    tools = {"tools": [{"type": "function", "function": {"name": "f"}}]}
    records = [
        *many(6), record("t1", request=body("t1", **tools)),
        record("hot", request=body("hot", temperature=0.7)),
        record("cut", finish="length"), record("own", role="student"),
    ]  # fmt: skip
    found = scanned(records).coverage
    assert found.coverable_frac == pytest.approx(6 / 9)  # the student's own is none of ours
    assert found.extrapolated_frac is None  # no request was asked twice
    assert found.kept_back == {
        "by_student": 1, "ineligible:temperature": 1, "ineligible:tools": 1, "truncated": 1,
    }  # fmt: skip


def noisy_twice() -> list[Record]:
    """Each question but twenty asked once; where it was asked twice, the teacher never agrees."""
    twice = [record(phrase(q), f"{q} {i}", id=f"{q}-{i}") for q in range(20) for i in range(2)]
    return [*twice, *(record(phrase(1000 + q), f"x{q}") for q in range(360))]


def test_scan_extrapolation_falls_with_the_teachers_noise() -> None:
    found = scanned(noisy_twice(), prices=CHEAP)
    agreement, coverage = found.agreement, found.coverage
    assert agreement.agree == 0
    assert agreement.once_frac == pytest.approx(0.9)
    best = 0.9 * agreement.ceiling + 0.1
    assert coverage.extrapolated_frac == pytest.approx(min(best + 0.05, best / 0.9))
    assert coverage.extrapolated_frac is not None and coverage.extrapolated_frac < 0.55
    assert found.cost is not None and found.cost.extrapolated_saving_usd == pytest.approx(
        found.cost.saving_usd * coverage.extrapolated_frac
    )


def test_scan_bound_does_not_borrow_agreement() -> None:
    """What is asked once may well be sure: a student that knows all of it serves them all."""
    found = scanned(noisy_twice(), prices=CHEAP)
    assert found.coverage.coverable_frac == 1.0
    assert found.cost is not None and found.cost.saving_usd == found.cost.usd
