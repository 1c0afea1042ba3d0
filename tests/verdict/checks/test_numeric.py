"""The number that an answer ends on."""

from __future__ import annotations

import gzip
import json
import re
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownweights.verdict.checks import check_named
from ownweights.verdict.checks.numeric import NumericCheck

READS = NumericCheck()


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("42", "42"), ("the answer is 42.", "42"), ("#### 1,234", "1234"), ("$5.50 each", "5.50"),
        ("-3", "-3"), ("−3", "-3"), ("from 3-5", "5"), ("x = -0.5", "-0.5"), (".5", "0.5"),
        ("6.02e23", "6.02e23"), ("1e-3", "0.001"), ("45%", "45"), ("1,234,567.8", "1234567.8"),
        ("3,4", "4"), ("1,2345", "2345"), ("3 of 7 apples", "7"), ("room 12b", "12"),
        ("007", "7"), ("+8", "8"), ("(9)", "9"), ("1/2", "2"), ("0.1.2", "0.1"),
        ("A4", None), ("none", None), ("", None), ("-", None), ("v1.2", None), (".", None),
        ("9" * 500, None),
    ],
)  # fmt: skip
def test_numeric_reads_the_last_number(text: str, number: str | None) -> None:
    assert READS.number(text) == (None if number is None else Decimal(number))


@pytest.mark.parametrize(
    ("options", "text", "number"),
    [
        ("take=whole", " 12.5 ", "12.5"),
        ("take=whole", "12.5 %", "12.5"),
        ("take=whole", "12.5 kg", None),
        ("take=whole", "1 2", None),
        ("decimal=comma", "1.234,5", "1234.5"),
        ("decimal=comma take=whole", "0,5", "0.5"),
        ("decimal=comma", "0.5", "5"),
    ],
)
def test_numeric_reads_as_its_options_say(options: str, text: str, number: str | None) -> None:
    check = check_named(f"numeric {options}")
    assert isinstance(check, NumericCheck)
    assert check.number(text) == (None if number is None else Decimal(number))


@given(st.decimals(-(10**12), 10**12, places=3))
def test_numeric_always_reads_what_is_spelled(number: Decimal) -> None:
    for text in (f"{number}", f"{number:,}", f"so: {number:f}.", f"{number:e}", f"{number}%"):
        assert READS.number(text) == number, text
        assert READS.harm(text, [str(number)]) == 0.0


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.floats(0, 10), st.floats(0, 1))
def test_numeric_tolerance_matches_floats(
    number: float, reference: float, tolerance: float, relative: float
) -> None:
    check = NumericCheck("last", tolerance, relative)
    spare = max(tolerance, relative * abs(reference)) - abs(number - reference)
    if abs(spare) > 1e-6:  # where binary and decimal cannot disagree
        found = check.harm(f"{number:.12f}", [f"{reference:.12f}"])
        assert found == float(spare < 0)


def test_numeric_is_exact() -> None:
    assert READS.harm("9007199254740993", ["9007199254740992"]) == 1.0
    assert READS.harm("0.30", ["0.3"]) == 0.0
    assert NumericCheck(tolerance=0.1).harm("1.1", ["1.0"]) == 0.0
    assert NumericCheck(relative=1.0).harm("1e999", ["1"]) == 1.0


def test_numeric_cannot_judge_what_has_no_number() -> None:
    assert READS.harm("5", ["many"]) is None
    assert READS.harm("many", ["5"]) == 1.0
    assert READS.harm("5", ["4", "many"]) is None
    assert READS.harm("5", ["5", "many"]) == 0.0
    assert READS.harm("many", ["many"]) is None


def test_numeric_reads_real_answers(test_data: Path) -> None:
    path = test_data / "traffic" / "answers-nq.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        golds = [
            part.strip() for line in file for part in (json.loads(line)["gold"] or "").split("/")
        ]
    plain = [gold for gold in golds if re.fullmatch(r"[0-9]+(,[0-9]{3})*([.][0-9]+)?", gold)]
    assert len(plain) > 100
    ours = [NumericCheck("whole").number(gold) for gold in plain]
    assert [None if n is None else float(n) for n in ours] == [
        float(gold.replace(",", "")) for gold in plain
    ]
