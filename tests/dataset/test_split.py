"""A unit's split depends on the unit and the salt, and on nothing else."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownweights.dataset.split import SPLIT_FRACTIONS, SPLITS, hash_fraction, split_of

NUM_UNITS = 20_000
# Four standard errors of a share over NUM_UNITS units: a fixed salt makes this a fixed number.
SHARE_TOLERANCE = 4 * (0.25 / NUM_UNITS) ** 0.5


def test_split_of_is_pinned() -> None:
    """These must never change: a trained base relies on them."""
    units = ["prompt:play it", "session:s-1", "meta:task_id:7", "prompt:"]
    assert [split_of(unit) for unit in units] == ["train", "train", "certify", "train"]
    assert hash_fraction("salt", "key") == 0.3862986793205848


def test_split_of_follows_the_fractions() -> None:
    counts = Counter(split_of(f"prompt:{i}") for i in range(NUM_UNITS))
    for split, fraction in zip(SPLITS, SPLIT_FRACTIONS, strict=True):
        assert counts[split] / NUM_UNITS == pytest.approx(fraction, abs=SHARE_TOLERANCE)


def test_split_of_with_another_salt_is_another_split() -> None:
    moved = sum(split_of(f"u{i}") != split_of(f"u{i}", salt="other") for i in range(2_000))
    assert moved > 400


@given(st.text())
def test_split_of_always_follows_a_fraction_of_one(unit: str) -> None:
    for index, split in enumerate(SPLITS):
        fractions = [float(place == index) for place in range(len(SPLITS))]
        assert split_of(unit, fractions) == split


@given(st.text(), st.text())
def test_hash_fraction_is_always_below_one(salt: str, key: str) -> None:
    assert 0 <= hash_fraction(salt, key) < 1
