"""The set-similarity join finds every near pair and no other, as brute force does."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownweights.dataset import near
from ownweights.dataset.near import (
    MIN_TEXTS_FOR_TEMPLATE,
    Pairs,
    near_pairs,
    shingle_matrix,
    without_template,
)
from ownweights.dataset.normalise import NEAR_JACCARD, jaccard, shingles
from ownweights.dataset.prompt import comparison_key
from tests.dataset.records import phrase, real_records

# Few letters, so that texts are often near each other.
few_letters = st.lists(st.text("ab ", max_size=14), max_size=30, unique=True)


def found(pairs: Iterable[Pairs]) -> set[tuple[int, int]]:
    return {
        (i, j) for left, right in pairs for i, j in zip(left.tolist(), right.tolist(), strict=True)
    }


def brute_force(texts: Sequence[str], limit: float = NEAR_JACCARD) -> set[tuple[int, int]]:
    sets = [shingles(text) for text in texts]
    return {
        (i, j) for i, j in combinations(range(len(texts)), 2) if jaccard(sets[i], sets[j]) >= limit
    }


@given(few_letters, st.sampled_from([0.3, 0.5, 0.8, 0.9, 1.0]))
def test_near_pairs_matches_brute_force(texts: list[str], limit: float) -> None:
    assert found(near_pairs(texts, limit)) == brute_force(texts, limit)


def edited(text: str, edits: int, rng: random.Random) -> str:
    letters = list(text)
    for _ in range(edits):
        letters[rng.randrange(len(letters))] = rng.choice("abcdefgh ")
    return "".join(letters)


@pytest.mark.parametrize("length", [60, 400])
def test_near_pairs_of_edited_texts_match_brute_force(length: int) -> None:
    rng = random.Random(length)
    seeds = ["".join(rng.choices("abcdefgh ", k=length)) for _ in range(12)]
    texts = list(dict.fromkeys(edited(s, k * length // 100, rng) for s in seeds for k in range(9)))
    expected = brute_force(texts)
    assert len(expected) > 20
    assert found(near_pairs(texts)) == expected


@pytest.mark.parametrize("chunk", ["_CHUNK_ROWS", "_CHUNK_SHINGLES"])
def test_near_pairs_are_the_same_in_small_chunks(
    chunk: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"{phrase(i)}{tail}" for i in range(20) for tail in ("", " x", " yz")]
    whole = found(near_pairs(texts))
    assert len(whole) >= 20
    monkeypatch.setattr(near, chunk, 7)
    assert found(near_pairs(texts)) == whole


def test_near_pairs_compares_only_what_is_wanted() -> None:
    texts = ["play the song", "play the songs", "play a song", "play a songs"]
    every = found(near_pairs(texts, 0.5))

    def with_first(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        return (left == 0) | (right == 0)

    some = found(near_pairs(texts, 0.5, wanted=with_first))
    assert some == {pair for pair in every if 0 in pair} != every


@pytest.mark.parametrize("texts", [[], ["one"]])
def test_near_pairs_needs_two(texts: list[str]) -> None:
    assert found(near_pairs(texts)) == set()


def test_near_pairs_reads_every_alphabet() -> None:
    texts = [
        "東京の今日の天気は",
        "東京の今日の天気は何",
        "погода в москве",
        "погода в москве.",
        "\ud800 lone",
    ]
    assert found(near_pairs(texts, 0.7)) == brute_force(texts, 0.7) == {(0, 1), (2, 3)}


TEMPLATE = "sort the following ticket into one of the teams and answer with its name alone "


def test_near_pairs_ignores_a_shared_template() -> None:
    texts = [TEMPLATE + phrase(i) for i in range(MIN_TEXTS_FOR_TEMPLATE)]
    texts.append(texts[0] + "s")
    assert len(brute_force(texts, 0.5)) > 1_000
    assert found(near_pairs(texts)) == {(0, len(texts) - 1)}


def test_near_pairs_of_few_texts_know_no_template() -> None:
    texts = [TEMPLATE + word for word in ("red", "green", "blue")]
    assert found(near_pairs(texts)) == brute_force(texts) == {(0, 1), (0, 2), (1, 2)}


def test_without_template_keeps_the_text_that_is_nothing_else() -> None:
    texts = [TEMPLATE + phrase(i) for i in range(MIN_TEXTS_FOR_TEMPLATE)] + [TEMPLATE.strip()]
    matrix = without_template(shingle_matrix(texts))
    sizes = np.diff(matrix.indptr)
    assert sizes[-1] == len(shingles(texts[-1]))
    assert sizes[0] < len(shingles(texts[0])) - sizes[-1] / 2


@given(few_letters)
def test_shingle_matrix_always_has_the_shingles_of_each_row(texts: list[str]) -> None:
    if not texts:
        return
    matrix = shingle_matrix(texts)
    sets = [shingles(text) for text in texts]
    assert np.diff(matrix.indptr).tolist() == [len(one) for one in sets]
    shared = (matrix @ matrix.T).toarray()
    for i, j in combinations(range(len(texts)), 2):
        assert shared[i, j] == len(sets[i] & sets[j])


def test_shingle_matrix_has_its_rarest_column_first() -> None:
    matrix = shingle_matrix([phrase(i) + " end" for i in range(9)])
    counts = np.bincount(matrix.indices, minlength=matrix.shape[1])
    assert (np.diff(counts) >= 0).all()


def test_near_pairs_of_real_questions_match_brute_force(test_data: Path) -> None:
    texts = sorted({comparison_key(one.request) for one in real_records(test_data, "sql-gpt4")})
    some = texts[::4]
    assert found(near_pairs(some, 0.5)) == brute_force(some, 0.5) != set()
