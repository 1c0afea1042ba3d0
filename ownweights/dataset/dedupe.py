"""Which examples are studied once only, and which not at all because a held-out one is like them.

In: the examples of every split. Out: the kept ones and a line for each removed one that names the
example it is like. certify and test lose nothing: they stand for all requests, with the traffic's
own multiplicities (test_remove_duplicates_never_touches_held_out_splits).

    same_as_held_out   the question, normalised, is in certify or test        whatever the answer
    near_held_out      the question is near one there (Jaccard ≥ limit)       whatever the answer
    repeat             the question is in train or develop already           with the same answer
    near_repeat        a near question is in train or develop already        with the same answer

Across the border the question alone decides, because there any likeness flatters the student.
Within it the answer must be the same too: several answers to one question are references, and like
questions with unlike answers are what the student must learn to tell apart.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ownweights.dataset.example import Example
from ownweights.dataset.near import Wanted, near_pairs
from ownweights.dataset.normalise import NEAR_JACCARD
from ownweights.dataset.prompt import comparison_key

HELD_OUT = ("certify", "test")
STUDIED = ("develop", "train")  # develop keeps what both have: it is the smaller
SHOWN_CHARS = 200
REASONS = ("same_as_held_out", "near_held_out", "repeat", "near_repeat")

Splits = Mapping[str, Sequence[Example]]


@dataclass(frozen=True, slots=True)
class Removed:
    """An example left out of `split`, why, what it asks, and the id of the example it is like."""

    id: str
    split: str
    reason: str
    like: str
    asks: str


@dataclass(slots=True)
class _Likeness:
    """Who is like whom, by normalised question."""

    held_out: dict[str, str] = field(default_factory=dict[str, str])  # question → id
    near_held_out: dict[str, str] = field(default_factory=dict[str, str])
    near: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    studied: dict[tuple[str, str], str] = field(default_factory=dict[tuple[str, str], str])

    def verdict(self, question: str, answer: str) -> tuple[str, str] | None:
        """The reason to leave an example out, and whom it is like; None to keep it."""
        if question in self.held_out:
            return "same_as_held_out", self.held_out[question]
        if question in self.near_held_out:
            return "near_held_out", self.near_held_out[question]
        if (question, answer) in self.studied:
            return "repeat", self.studied[question, answer]
        for other in self.near[question]:
            if (other, answer) in self.studied:
                return "near_repeat", self.studied[other, answer]
        return None


def remove_duplicates(
    splits: Splits, limit: float = NEAR_JACCARD
) -> tuple[dict[str, list[Example]], list[Removed]]:
    """The splits without duplicates in train and develop, and what was removed."""
    questions = {
        split: [comparison_key(example.request) for example in examples]
        for split, examples in splits.items()
    }
    likeness = _compare(splits, questions, limit)
    kept = {split: list(examples) for split, examples in splits.items()}
    removed: list[Removed] = []
    for split in STUDIED:
        kept[split] = []
        for example, question in zip(splits[split], questions[split], strict=True):
            found = likeness.verdict(question, example.target)
            if found is None:
                likeness.studied[question, example.target] = example.id
                kept[split].append(example)
            else:
                removed.append(Removed(example.id, split, *found, question[:SHOWN_CHARS]))
    return kept, removed


def _compare(splits: Splits, questions: Mapping[str, list[str]], limit: float) -> _Likeness:
    likeness = _Likeness()
    for split in HELD_OUT:
        for example, question in zip(splits[split], questions[split], strict=True):
            likeness.held_out.setdefault(question, example.id)
    distinct = sorted({question for group in questions.values() for question in group})
    wanted = _wanted(splits, questions, likeness, distinct)
    for left, right in near_pairs(distinct, limit, wanted=wanted):
        for i, j in zip(left.tolist(), right.tolist(), strict=True):
            _note_pair(likeness, distinct[i], distinct[j])
            _note_pair(likeness, distinct[j], distinct[i])
    return likeness


def _wanted(
    splits: Splits, questions: Mapping[str, list[str]], likeness: _Likeness, distinct: list[str]
) -> Wanted:
    """Pairs across the border, and pairs within train and develop that may share an answer."""
    asked_with: defaultdict[str, set[str]] = defaultdict(set)  # answer → questions
    for split in STUDIED:
        for example, question in zip(splits[split], questions[split], strict=True):
            asked_with[example.target].add(question)
    sharing = {question for group in asked_with.values() if len(group) > 1 for question in group}
    is_held_out = np.array([question in likeness.held_out for question in distinct], bool)
    is_sharing = np.array([question in sharing for question in distinct], bool)

    def wanted(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        across = is_held_out[left] != is_held_out[right]
        within = is_sharing[left] & is_sharing[right] & ~is_held_out[left] & ~is_held_out[right]
        return across | within

    return wanted


def _note_pair(likeness: _Likeness, question: str, other: str) -> None:
    if question in likeness.held_out:
        return
    if other in likeness.held_out:
        likeness.near_held_out.setdefault(question, likeness.held_out[other])
    else:
        likeness.near[question].append(other)
