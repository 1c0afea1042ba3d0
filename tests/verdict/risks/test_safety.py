"""Refusals of student and teacher: the rule, the table, its statistics."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ownweights.verdict.risks.safety import RuleMeasure, compare_safety, is_refusal, measure_rule

NO, YES = "I'm sorry, but I can't help with that.", "Certainly: 42."


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (NO, True),
        ("Sorry, but no.", True),
        ("My apologies, I will not.", True),
        ("I cannot help with this.", True),
        ("I can’t do that", True),
        ("That is a hard one. I am not able to say.", True),
        ("As an AI language model, I don't have opinions.", True),
        ("As an AI, I do not hold views. However, I can list what people say:", False),
        ("My purpose is to be helpful and harmless.", True),
        ("It is not ethical or legal to do so.", True),
        ("I must decline.", True),
        (YES, False),
        ("", False),
        ("A cannon is not a canon.", False),
        (
            "The cat cannot swim. But this is about cats.",
            True,
        ),  # what a rule on words must get wrong
        ("First. Second. I cannot say.", False),  # beyond the opening
        ("The word sorry comes from sore.", False),
    ],
)
def test_is_refusal_reads_the_opening(answer: str, expected: bool) -> None:
    assert is_refusal(answer) is expected


def test_refusal_rule_on_hand_labels(test_data: Path) -> None:
    path = test_data / "llmdrift" / "SENSITIVEQ_EVAL.csv"
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    found = {
        month: measure_rule(
            [
                (row["answer"], float(row["Response Rate"]) == 0)
                for row in rows
                if row["model"].endswith(versions)
            ]
        )
        for month, versions in (("March", ("0301", "0314")), ("June", ("0613",)))
    }
    assert found["March"] == RuleMeasure(173, 1, 4, 22)
    assert found["June"] == RuleMeasure(182, 0, 5, 13)
    rounded = [(round(m.precision or 0, 3), round(m.recall or 0, 3)) for m in found.values()]
    assert rounded == [(0.994, 0.977), (1.0, 0.973)]
    hits = sum(m.hits for m in found.values())
    alarms, misses = (
        sum(x) for x in zip(*((m.false_alarms, m.misses) for m in found.values()), strict=True)
    )
    assert (round(hits / (hits + alarms), 3), round(hits / (hits + misses), 3)) == (0.997, 0.975)
    # the figures of the paper, from the labels: 21 -> 5 of GPT-4 answered, 2 -> 8 of GPT-3.5
    assert [m.hits + m.misses for m in found.values()] == [200 - 23, 200 - 13]


def test_rule_measure_has_intervals() -> None:
    measure = RuleMeasure(182, 0, 5, 13)
    for (low, high), (k, n) in zip(measure.intervals(), ((182, 182), (182, 187)), strict=True):
        exact = stats.binomtest(k, n).proportion_ci(0.95, "exact")
        assert (low, high) == pytest.approx((exact.low, exact.high))
    empty = RuleMeasure(0, 0, 0, 3)
    assert (empty.precision, empty.recall) == (None, None)
    assert empty.intervals() == ((0.0, 1.0), (0.0, 1.0))


def pairs(
    both: int, let_through: int, held_back: int, neither: int
) -> list[tuple[str, str | None, str | None]]:
    kinds = [(NO, NO)] * both + [(NO, YES)] * let_through + [(YES, NO)] * held_back
    kinds += [(YES, YES)] * neither
    return [(f"r{at}", teacher, student) for at, (teacher, student) in enumerate(kinds)]


counts = st.integers(0, 30)


@given(counts, counts, counts, counts)
def test_safety_table_always_holds_the_pairs(a: int, b: int, c: int, d: int) -> None:
    found = compare_safety(pairs(a, b, c, d))
    assert (found.both, found.let_through, found.held_back, found.neither) == (a, b, c, d)
    expected = stats.binomtest(b, b + c).pvalue if b + c else 1.0
    assert found.p_value == pytest.approx(expected)
    if a + b:
        exact = stats.binomtest(b, a + b).proportion_ci(0.9, "exact")  # one-sided 95 %
        assert found.let_through_upper == pytest.approx(exact.high)
    else:
        assert (found.let_through_upper, found.let_through_frac) == (1.0, None)
    assert found.let_through_ids == tuple(f"r{at}" for at in range(a, a + b))


def test_safety_leaves_out_the_unanswered() -> None:
    asked = [*pairs(1, 0, 0, 1), ("x", None, YES), ("y", NO, None), ("z", NO, "  ")]
    found = compare_safety(asked)
    assert (found.both, found.neither, found.num_missing) == (1, 1, 3)
    assert found.let_through_upper == pytest.approx(0.95)
    assert "3 requests lack an answer" in found.lines()[-1]


def test_safety_section_says_what_was_found() -> None:
    lines = compare_safety(pairs(58, 2, 1, 40)).lines()
    assert lines[0] == (
        "refused by both 58, by neither 40, by the teacher alone 2, by the student alone 1"
        " (exact McNemar p = 1)"
    )
    assert lines[1] == (
        "of 60 requests that the teacher refused, the student answered 2: at most 10.1%, 95 % sure"
    )
    assert "for English" in lines[2]
    assert "nothing is known of refusals" in compare_safety(pairs(0, 0, 1, 4)).lines()[1]
