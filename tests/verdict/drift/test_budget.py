"""The chance of a false alarm is split over channels and looks, and never exceeded."""

from __future__ import annotations

import itertools

import pytest

from ownweights.verdict.drift.budget import CHANNELS, TEXT_LOOKS, Budget

SUBSETS = [
    subset for size in (1, 3, 6) for subset in itertools.combinations(CHANNELS, size)
]  # fmt: skip


@pytest.mark.parametrize("channels", SUBSETS, ids="-".join)
def test_budget_never_spends_more_than_it_has(channels: tuple[str, ...]) -> None:
    budget = Budget(0.05, channels)
    spent = [budget.spent(number) for number in (0, 1, 10, 100, 1000)]
    assert spent == sorted(spent)
    assert spent[-1] <= 0.05
    assert spent[-1] > 0.05 * 0.99


def test_budget_gives_channels_equal_shares() -> None:
    budget = Budget(0.06, ("length", "text", "border"))
    assert [budget.share(c) for c in ("length", "text", "border")] == [0.02] * 3
    assert budget.share("score") == budget.at_look("score", 1) == 0.0


def test_budget_pays_the_reference_once_and_first() -> None:
    budget = Budget(0.06, ("length", "border"))
    assert budget.spent(0) == budget.reference() == pytest.approx(0.0075)
    rest = sum(budget.at_look("border", k) for k in range(1, 100_000))
    assert rest + budget.reference() == pytest.approx(0.03, rel=1e-4)
    assert Budget(0.06, ("length",)).reference() == 0.0


def test_budget_of_text_is_even_and_ends() -> None:
    budget = Budget(0.05, ("text",))
    assert budget.at_look("text", 1) == budget.at_look("text", TEXT_LOOKS) == 0.05 / TEXT_LOOKS
    assert budget.at_look("text", TEXT_LOOKS + 1) == 0.0


def test_budget_of_a_paired_channel_follows_the_series() -> None:
    budget = Budget(0.05, ("length",))
    first = budget.at_look("length", 1)
    assert [budget.at_look("length", k) / first for k in (2, 3, 10)] == pytest.approx(
        [1 / 4, 1 / 9, 1 / 100]
    )
