"""Patterns, and the process that a bad one cannot hold up."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ownweights.verdict.checks import check_named
from ownweights.verdict.checks.regex import RegexCheck

CATASTROPHE, LONG = "(a+)+$", "a" * 40 + "b"


@pytest.mark.parametrize(
    ("options", "answer", "reference", "harm"),
    [
        ("", "order 12", r"order \d+", 0.0),
        ("", "order 12 is late", r"order \d+", 1.0),
        ("", " order 12\n", r"order \d+", 0.0),
        ("search=true", "my order 12 is late", r"order \d+", 0.0),
        ("", "Order 12", r"order \d+", 1.0),
        ("ignore_case=true", "Order 12", r"order \d+", 0.0),
        ("", "order", "order (", None),
        ("", "anything", "  ", None),
        ("", "", r".*", 1.0),
        (r"search=true pattern=#(\d+)", "ticket #7 today", "it is #7", 0.0),
        (r"search=true pattern=#(\d+)", "ticket #8", "it is #7", 1.0),
        (r"search=true pattern=#(\d+)", "ticket 7", "it is #7", 1.0),
        (r"search=true pattern=#(\d+)", "ticket #7", "it is 7", None),
        (r"search=true pattern=\d+", "a 7", "b 7", 0.0),
        (r"search=true pattern=\d+", "a 7", "b 8", 1.0),
        (r"pattern=(\d+)(kg)?", "7", "7", 0.0),
        (r"pattern=(\d+)(kg)?", "7kg", "7", 1.0),
        (r"pattern=(\w+)\s*=.*", "colour = red", "colour=blue", 0.0),
        (r"pattern=(?i:yes|no)", "yes", "Yes", 1.0),  # what it matched differs
    ],
)
def test_regex_compares_what_it_finds(
    options: str, answer: str, reference: str, harm: float | None
) -> None:
    assert check_named(f"regex {options}").harm(answer, [reference]) == harm


def test_regex_with_several_references() -> None:
    free = RegexCheck()
    assert free.harm("abc", ["x", "a.c"]) == 0.0
    assert free.harm("abc", ["x", "("]) is None
    assert free.harm("abc", ["x", "y"]) == 1.0
    fixed = RegexCheck(r"\d", search=True)
    assert fixed.harm("5", ["4", "5"]) == 0.0
    assert fixed.harm("5", ["4", "five"]) is None
    assert fixed.harm("five", ["4", "five"]) == 1.0


@pytest.mark.parametrize("pattern", ["", CATASTROPHE])
def test_regex_survives_a_catastrophic_pattern(pattern: str) -> None:
    check = RegexCheck(pattern, timeout_s=0.5)
    assert check.harm(LONG, [pattern or CATASTROPHE]) is None
    assert RegexCheck().harm("aaa", [CATASTROPHE]) == 0.0  # and the next one is judged


@settings(max_examples=15)
@given(st.text("ab1 (", max_size=4), st.text("ab1 ", min_size=1, max_size=6))
def test_regex_matches_python(pattern: str, text: str) -> None:
    try:
        expected = float(re.fullmatch(pattern.strip(), text.strip()) is None)
    except re.error:
        expected = None
    if not text.strip():
        expected = 1.0
    if not pattern.strip():
        expected = None
    assert RegexCheck().harm(text, [pattern]) == expected
