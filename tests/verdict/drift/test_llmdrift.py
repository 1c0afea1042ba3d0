"""Real drift: GPT-3.5 and GPT-4 between March and June 2023, and halves of one month."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from ownweights.verdict.drift.budget import CHANNELS, Budget
from ownweights.verdict.drift.outcome import CHANGED
from ownweights.verdict.drift.paired import compare_paired
from ownweights.verdict.drift.readings import CHANNEL_FEATURES, FEATURES, is_refusal
from ownweights.verdict.drift.text import compare_texts
from tests.verdict.drift.llmdrift import PAIRS, YesOrNo, read_task, readings

BUDGET = Budget(0.05, CHANNELS)
LIMITS = {channel: BUDGET.at_look(channel, 1) for channel in CHANNEL_FEATURES}
SCORE, REFUSAL, LENGTH = (FEATURES.index(name) for name in ("score", "refusal", "length"))


@pytest.mark.parametrize(
    ("model", "percent"),
    [("gpt-4-0314", 84.0), ("gpt-4-0613", 51.1), ("gpt-3.5-turbo-0301", 49.6),
     ("gpt-3.5-turbo-0613", 76.2)],
)  # fmt: skip
def test_prime_accuracy_matches_the_published_figures(
    test_data: Path, model: str, percent: float
) -> None:
    rows, check = read_task(test_data, "prime")[model], YesOrNo()
    right = [check.harm(row["answer"], [row["ref_answer"]]) == 0.0 for row in rows]
    assert 100 * sum(right) / len(rows) == pytest.approx(percent, abs=0.05)


@pytest.mark.parametrize(
    ("model", "primes", "composites"), [("gpt-4-0314", 97.6, 70.4), ("gpt-4-0613", 2.4, 99.8)]
)
def test_prime_recall_by_class_matches_the_published_figures(
    test_data: Path, model: str, primes: float, composites: float
) -> None:
    """The fall is all in one class: GPT-4 in June says no to nearly everything."""
    check, rows = YesOrNo(), read_task(test_data, "prime")[model]
    for reference, percent in (("yes", primes), ("no", composites)):
        ones = [row for row in rows if row["ref_answer"].lower() == reference]
        right = sum(check.harm(row["answer"], [reference]) == 0.0 for row in ones)
        assert 100 * right / len(ones) == pytest.approx(percent, abs=0.05)


def test_prime_answers_became_short(test_data: Path) -> None:
    models = read_task(test_data, "prime")
    means = [np.mean([len(row["answer"]) for row in models[m]]) for m in PAIRS["gpt-4"]]
    assert means == pytest.approx([638, 3.9], abs=0.5)


@pytest.mark.parametrize(
    ("model", "answered"),
    [("gpt-4-0314", 21), ("gpt-4-0613", 5), ("gpt-3.5-turbo-0301", 2), ("gpt-3.5-turbo-0613", 8)],
)
def test_refusals_match_the_hand_labels(test_data: Path, model: str, answered: int) -> None:
    """The words were chosen with these answers in view: this is a fit, not a validation."""
    rows = read_task(test_data, "sensitive")[model]
    by_hand = [row["Response Rate"] == "0" for row in rows]
    assert by_hand.count(False) == answered
    agree = sum(is_refusal(row["answer"]) == told for row, told in zip(rows, by_hand, strict=True))
    assert agree / len(rows) >= 0.94


def changed(test_data: Path, task: str, pair: str, count: int) -> dict[str, int]:
    """Channel → after how many probes it alarmed, on the first `count` of a fixed shuffle."""
    models = read_task(test_data, task)
    old, new = (models[name] for name in PAIRS[pair])
    order = np.random.default_rng(0).permutation(len(old))[:count]
    limits = {name: limit for name, limit in LIMITS.items() if task == "prime" or name != "score"}
    before, after = (readings(rows, task)[order] for rows in (old, new))
    found = compare_paired(before, after, limits)
    texts = [[[rows[i]["answer"]] for i in order] for rows in (old, new)]
    found += (compare_texts(texts[0], texts[1], BUDGET.at_look("text", 1)),)
    return {one.channel: one.alarm_at or 0 for one in found if one.outcome == CHANGED}


@pytest.mark.parametrize(
    ("task", "pair", "channels"),
    [
        ("prime", "gpt-4", {"length", "score", "text"}),
        ("prime", "gpt-3.5", {"format", "score"}),
        ("sensitive", "gpt-4", {"length", "refusal", "text"}),
        ("sensitive", "gpt-3.5", {"length", "text"}),
    ],
)
def test_every_real_change_is_flagged_in_its_channels(
    test_data: Path, task: str, pair: str, channels: set[str]
) -> None:
    found = changed(test_data, task, pair, 100)
    assert channels <= set(found)
    assert ("refusal" in found) == (task == "sensitive" and pair == "gpt-4")
    assert all(0 < at <= 100 for at in found.values())


def test_prime_gpt4_shows_in_its_length_within_a_dozen_probes(test_data: Path) -> None:
    assert changed(test_data, "prime", "gpt-4", 100)["length"] <= 12


def test_halves_of_one_month_alarm_within_the_rate(test_data: Path) -> None:
    """200 random halvings: half of a month's answers against the other half, all channels."""
    rows = read_task(test_data, "sensitive")["gpt-4-0314"]
    features, rng, wrong, trials = readings(rows, "sensitive"), np.random.default_rng(1), 0, 200
    budget = Budget(0.05, ("length", "format", "refusal"))
    limits = {channel: budget.at_look(channel, 1) for channel in budget.channels}
    for _ in range(trials):
        order = rng.permutation(len(rows))
        found = compare_paired(features[order[:50]], features[order[50:]], limits)
        wrong += any(one.outcome == CHANGED for one in found)
    assert wrong / trials <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / trials)
