"""Recall and precision on marked texts, and silence where there is nothing."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from scipy.stats import binomtest

from bench.redaction import BARS, is_other_half, placeholders_in, tallies, traffic, wilson


@pytest.mark.parametrize("half", ["other half", "all"])
def test_redaction_finds_as_much_as_is_promised(test_data: Path, half: str) -> None:
    found = tallies(test_data, is_other_half if half == "other half" else lambda text: True)
    for kind, bar in BARS.items():
        tally = found[kind]
        assert tally.marked >= 5, kind
        assert tally.found >= bar * tally.marked, (kind, tally.missed)
        assert tally.right >= 0.9 * tally.ours, kind


@pytest.mark.parametrize("name", ["assistant", "describe"])
def test_redaction_masks_nothing_where_nothing_is_personal(test_data: Path, name: str) -> None:
    assert placeholders_in(traffic(test_data, name)[:1500]) == {}


@pytest.mark.parametrize(("part", "whole"), [(0, 5), (5, 5), (91, 92), (14, 14), (50, 100)])
def test_wilson_matches_scipy(part: int, whole: int) -> None:
    expected = binomtest(part, whole).proportion_ci(method="wilson")
    low, high = wilson(part, whole)
    assert math.isclose(low, expected.low, abs_tol=1e-6)
    assert math.isclose(high, expected.high, abs_tol=1e-6)
