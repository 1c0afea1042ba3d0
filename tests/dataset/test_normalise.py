"""When two prompts count as the same, or as near."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownweights.dataset.normalise import SHINGLE_CHARS, jaccard, normalise_prompt, shingles


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Play it!", "play it"),
        ("wake me at 7:30", "wake me at 0 00"),
        ("snake_case", "snake case"),
        ("STRASSE straße", "strasse strasse"),
        ("a\u2028b", "a b"),
        ("٣ apples", "0 apples"),
        ("!?", ""),
    ],
)
def test_normalise_prompt_keeps_words_alone(text: str, expected: str) -> None:
    assert normalise_prompt(text) == expected


@given(st.text(max_size=80))
def test_normalise_prompt_always_leaves_single_spaces(text: str) -> None:
    normalised = normalise_prompt(text)
    assert normalised == normalised.strip()
    assert "  " not in normalised


def test_shingles_are_padded_by_a_space() -> None:
    assert shingles("abcd") == {" abc", "abcd", "bcd "}
    assert shingles("a") == {" a "}
    assert shingles("") == {"  "}


@given(st.text("ab c", max_size=30))
def test_shingles_always_have_one_length_but_for_short_texts(text: str) -> None:
    lengths = {len(one) for one in shingles(text)}
    assert lengths == {min(SHINGLE_CHARS, len(text) + 2)}


def test_jaccard_is_shared_over_all() -> None:
    assert jaccard(frozenset("abc"), frozenset("bcd")) == 0.5
    assert jaccard(frozenset(), frozenset()) == 1.0
    assert jaccard(frozenset("a"), frozenset()) == 0.0


@given(st.frozensets(st.integers(0, 9)), st.frozensets(st.integers(0, 9)))
def test_jaccard_is_always_symmetric_and_a_fraction(
    left: frozenset[str], right: frozenset[str]
) -> None:
    assert jaccard(left, right) == jaccard(right, left)
    assert 0 <= jaccard(left, right) <= 1
    assert jaccard(left, left) == 1
