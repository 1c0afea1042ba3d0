"""Text by MMD: valid in blocks and by prompt, powerful, and honest about too few answers."""

from __future__ import annotations

import math
import random

import pytest

from ownweights.verdict.drift.outcome import CHANGED, COULD_NOT_TELL, SAME
from ownweights.verdict.drift.text import compare_texts, strata_needed

LIMIT = 0.05
TRIALS = 120


def answers(count: int, draws: int, rng: random.Random, opening: str = "") -> list[list[str]]:
    """Each prompt has its own five ways to be answered."""
    return [
        [f"{opening}{i % 7} way {rng.randrange(5)} of {i}" for _ in range(draws)]
        for i in range(count)
    ]


@pytest.mark.parametrize(("count", "draws"), [(24, 1), (8, 2)])
def test_text_alarms_falsely_within_its_limit(count: int, draws: int) -> None:
    rng, wrong = random.Random(1), 0
    for seed in range(TRIALS):
        old, new = answers(count, draws, rng), answers(count, draws, rng)
        wrong += compare_texts(old, new, LIMIT, seed=seed).outcome == CHANGED
    assert wrong / TRIALS <= LIMIT + 3 * math.sqrt(LIMIT * (1 - LIMIT) / TRIALS)


@pytest.mark.parametrize(("count", "draws"), [(48, 1), (24, 2)])
def test_text_sees_a_new_opening(count: int, draws: int) -> None:
    rng = random.Random(2)
    old, new = answers(count, draws, rng), answers(count, draws, rng, "Certainly! ")
    found = compare_texts(old, new, 1e-4)
    assert (found.outcome, found.channel, found.feature) == (CHANGED, "text", "mmd")
    assert found.p_value is not None
    assert 0 < found.p_value <= found.limit
    assert found.alarm_at == found.num_probes == 24 * (2 if draws == 2 else 1)


def test_text_of_the_same_answers_is_the_same() -> None:
    old = answers(40, 1, random.Random(3))
    assert compare_texts(old, old, LIMIT).outcome == SAME


def test_text_by_prompt_sees_what_blocks_cannot() -> None:
    """Each prompt's answer moves to another of its own: no shift of the whole."""
    old = [[f"{'abcdefgh'[i % 8] * 30}"] * 2 for i in range(48)]
    new = [[f"{'abcdefgh'[(i + 3) % 8] * 30}"] * 2 for i in range(48)]
    assert compare_texts(old, new, 1e-4).outcome == CHANGED
    blocks = compare_texts([x[:1] for x in old], [x[:1] for x in new], 1e-4)
    assert blocks.outcome == SAME


@pytest.mark.parametrize("limit", [0.05, 1e-3, 1e-4])
def test_text_with_too_few_strata_could_not_tell(limit: float) -> None:
    least = strata_needed(limit)
    old = [["a" * 50] for _ in range(4 * least - 1)]
    new = [["b" * 50] for _ in old]
    found = compare_texts(old, new, limit)
    assert found.outcome == COULD_NOT_TELL
    assert found.what == f"{least - 1} groups of answers could be shuffled, and {least} are needed"
    assert compare_texts([*old, ["a" * 50]], [*new, ["b" * 50]], limit).outcome == CHANGED


def test_text_skips_prompts_without_an_answer() -> None:
    least = strata_needed(0.05)
    old: list[list[str]] = [["a" * 50] for _ in range(4 * least)]
    new: list[list[str]] = [["b" * 50] for _ in old]
    assert compare_texts([*old, [], ["a"]], [*new, ["b"], []], 0.05).outcome == CHANGED
    assert compare_texts(old, [*new[:-1], []], 0.05).outcome == COULD_NOT_TELL


def test_text_whose_error_is_spent_could_not_tell() -> None:
    found = compare_texts([["a"]], [["b"]], 0.0)
    assert (found.outcome, found.what) == (
        COULD_NOT_TELL, "the error of this channel is spent: take a new baseline",
    )  # fmt: skip


def test_text_is_the_same_for_the_same_seed() -> None:
    rng = random.Random(5)
    old, new = answers(40, 1, rng), answers(40, 1, rng)
    assert compare_texts(old, new, LIMIT, seed=3) == compare_texts(old, new, LIMIT, seed=3)
