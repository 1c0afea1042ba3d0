"""What counts as a held-out request within a text: judged by looking at all of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownweights.dataset.normalise import jaccard, normalise_prompt, shingles
from ownweights.student.held_out import HeldOutText, NearIndex

# few letters and words, so that near and equal texts are common
WORD = st.sampled_from(["play", "plays", "a", "song", "songs", "for", "me", "now", "wake", "up"])
PHRASE = st.lists(WORD, min_size=1, max_size=9).map(" ".join)
LETTERS = st.text("ab c", max_size=24).map(lambda text: " ".join(text.split()))
TEXTS = st.one_of(PHRASE, LETTERS)
LIMITS = st.sampled_from([0.3, 0.5, 0.6, 0.75, 0.8, 0.9, 1.0])


def near_by_brute_force(prompts: list[str], text: str, limit: float) -> list[str]:
    asked = shingles(text)
    return [one for one in sorted(set(prompts)) if jaccard(shingles(one), asked) >= limit]


@given(prompts=st.lists(TEXTS, max_size=25), asked=st.lists(TEXTS, max_size=8), limit=LIMITS)
def test_near_index_matches_brute_force(prompts: list[str], asked: list[str], limit: float) -> None:
    index = NearIndex(prompts, limit)
    for text in [*asked, *prompts[:4]]:
        expected = near_by_brute_force(prompts, text, limit)
        assert index.near(text) == expected
        assert index.has_near(text) is bool(expected)


@pytest.mark.parametrize("size", range(5, 61))
def test_near_index_keeps_pairs_exactly_at_the_limit(size: int) -> None:
    """Four fifths shared, whatever the size: 0.8 · n is no whole float."""
    letters = [chr(0x4E00 + k) for k in range(size)]
    whole = "".join(letters)
    part = whole[: size * 4 // 5]
    similarity = jaccard(shingles(whole), shingles(part))
    assert (whole in NearIndex([whole], similarity).near(part)) is True
    assert NearIndex([whole], min(1.0, similarity + 1e-6)).near(part) == []


def test_near_index_of_nothing_finds_nothing() -> None:
    index = NearIndex([])
    assert index.near("play a song") == []
    assert not index.has_near("play a song")


# --- texts


REQUESTS = [
    "Wake me up at 7:30 tomorrow!", "play some Miles Davis", "Go on.", "what is the weather like",
    "list all files in the current folder by size",
]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "wake me up at 9:15 tomorrow", "WAKE ME UP, at 7.30 — tomorrow", "Play some Miles Davis.",
        "“Go on!”", "go on", "Wake me up at 7:30 tomorrows",
        "He asked what is the weather like in Paris", "what, is the weather like?",
        "You list all files in the current folder, by size, and stop.",
    ],
)  # fmt: skip
def test_held_out_text_finds_equal_near_and_contained(text: str) -> None:
    assert HeldOutText(REQUESTS).is_in(text)


@pytest.mark.parametrize(
    "text",
    [
        "", "…", "Wake me", "He would go on for hours", "They play some Miles Davis at night",
        "what is the weather", "what is the weather likely to do",
        "list all files in the current",
    ],
)  # fmt: skip
def test_held_out_text_lets_other_text_pass(text: str) -> None:
    assert not HeldOutText(REQUESTS).is_in(text)


@given(requests=st.lists(PHRASE, max_size=12), text=PHRASE)
def test_held_out_text_matches_brute_force(requests: list[str], text: str) -> None:
    spoken = f" {normalise_prompt(text)} "
    expected = any(
        (len(request.split()) >= 5 and f" {request} " in spoken)
        or jaccard(shingles(request), shingles(spoken.strip())) >= 0.8
        for request in requests
    )
    assert HeldOutText(requests).is_in(text) is expected


def test_held_out_text_knows_requests_without_a_letter() -> None:
    held_out = HeldOutText(["☀?", " "])
    assert held_out.is_in("☀?")
    assert not held_out.is_in("?")
    assert not held_out.is_in(" ")


def test_held_out_text_of_nothing_lets_all_pass() -> None:
    assert not HeldOutText([]).is_in("anything at all that anyone may say")
