"""Text as it is, and text up to what is ignored."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownweights.verdict.checks import check_named
from ownweights.verdict.checks.text import IGNORABLE, TextCheck, drop_punctuation

subsets = st.sets(st.sampled_from(IGNORABLE)).map(lambda found: tuple(sorted(found)))


@pytest.mark.parametrize(
    ("ignore", "answer", "reference", "harm"),
    [
        ("case,space", "Hello  World", "hello world", 0.0),
        ("case,space", "STRASSE", "straße", 0.0),
        ("case,space", "ﬁne", "fine", 0.0),  # a ligature
        ("case,space", "１２", "12", 0.0),  # full width
        ("case,space", "\u1e9e", "ss", 0.0),
        ("case,space", "a\u00a0b", "a b", 0.0),
        ("case,space", "ab", "a b", 1.0),
        ("case,space", "hello.", "hello", 1.0),
        ("", "Hello", "hello", 1.0),
        ("", "a  b", "a b", 1.0),
        ("", " a ", "a", 0.0),
        ("case", "A  b", "a b", 1.0),
        ("space", "a\n\tb", "a b", 0.0),
        ("punctuation", "Yes, sir!", "Yes sir", 0.0),
        ("punctuation", "3.5", "35", 1.0),
        ("punctuation", "1,000", "1000", 1.0),
        ("punctuation", "-5", "5", 1.0),
        ("punctuation", "well-known", "wellknown", 0.0),
        ("punctuation", "it costs 5.", "it costs 5", 0.0),
        ("punctuation", "$5", "5", 1.0),  # a sign, not punctuation
        ("punctuation", "(.5)", ".5", 0.0),
    ],
)
def test_text_check_lets_go_of_what_it_ignores(
    ignore: str, answer: str, reference: str, harm: float
) -> None:
    assert check_named(f"text ignore={ignore}").harm(answer, [reference]) == harm


@given(subsets, st.text())
def test_text_check_is_always_reflexive(ignore: tuple[str, ...], text: str) -> None:
    assert TextCheck(ignore).harm(text, [text]) in (0.0, None)


@given(subsets, st.sampled_from(IGNORABLE), st.text(" aA.ß1-", max_size=5), st.text(" aA.ß1-"))
def test_text_check_ignoring_more_is_never_stricter(
    ignore: tuple[str, ...], more: str, left: str, right: str
) -> None:
    if TextCheck(ignore).harm(left, [right]) == 0.0:
        assert TextCheck((*ignore, more)).harm(left, [right]) in (0.0, None)


@given(st.text(string.ascii_letters + string.punctuation + " "))
def test_drop_punctuation_matches_ascii_by_hand(text: str) -> None:
    # Python's list of ASCII punctuation, but for the signs that Unicode calls symbols
    marks = set(string.punctuation) - set("$+<=>^`|~")
    assert drop_punctuation(text) == "".join(mark for mark in text if mark not in marks)


def test_text_that_is_all_ignored_cannot_be_judged() -> None:
    check = TextCheck(("punctuation",))
    assert check.harm("a", ["..."]) is None
    assert check.harm("...", ["..."]) is None
    assert check.harm("...", ["a"]) == 1.0
