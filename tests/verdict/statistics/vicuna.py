"""The reviews behind the chart that launched Vicuna: four models against it on 80 questions.

What the judge could not score reads -1 in the files: it is None here, never a tie.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ownweights.verdict.statistics.ratings import Match

VICUNA, CHATGPT = "vicuna-13b", "gpt35"
OPPONENTS = ("llama-13b", "alpaca-13b", "bard", CHATGPT)
CHART = "vicuna-13b_20230322-clean-lang/review_{}_vicuna-13b.jsonl"  # first weights, GPT-4
NEWER = "vicuna-13b-20230322-new-hp-fp16"
NEWER_GPT4 = f"vicuna-13b_20230322-new-hp-fp16/review_{{}}_{NEWER}.jsonl"
NEWER_GPT35 = f"gpt-3.5-turbo_review_{NEWER}/gpt-3.5-turbo_review_{{}}_{NEWER}.jsonl"
WITHOUT_VICUNA = "others/review_llama_alpaca-13b.jsonl"


@dataclass(frozen=True, slots=True)
class Review:
    """One question: what the judge gave to the answer shown first, and to the second."""

    question: str
    answers: tuple[str, str]
    scores: tuple[float, float] | None


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]


def reviews(data: Path, name: str) -> list[Review]:
    """A file of reviews; `data` is the folder of public data."""
    return [
        Review(
            str(row["question_id"]),
            (row["answer1_id"], row["answer2_id"]),
            None if min(row["score"]) < 0 else (row["score"][0], row["score"][1]),
        )
        for row in _lines(data / "fastchat_eval" / "table" / "review" / name)
    ]


def matches(given: list[Review], first: str, second: str) -> list[Match]:
    """The reviews as matches, without those that could not be read."""
    return [
        Match(first, second, 0.5 + 0.5 * ((one > two) - (one < two)), review.question)
        for review in given
        if review.scores is not None
        for one, two in [review.scores]
    ]


def outcomes(given: list[Review]) -> tuple[int, int, int, int]:
    """How often the second answer won, tied, lost, and how often nobody could say."""
    read = [review.scores for review in given if review.scores is not None]
    won, lost = sum(two > one for one, two in read), sum(two < one for one, two in read)
    return won, len(read) - won - lost, lost, len(given) - len(read)


def chart_matches(data: Path) -> list[Match]:
    """All five files of the chart's models: everyone against Vicuna, and LLaMA against Alpaca."""
    found = matches(reviews(data, WITHOUT_VICUNA), "llama-13b", "alpaca-13b")
    for opponent in OPPONENTS:
        found += matches(reviews(data, CHART.format(opponent)), opponent, VICUNA)
    return found


def answer_lengths(data: Path, name: str) -> dict[str, int]:
    """Characters of a model's answer to each question."""
    rows = _lines(data / "fastchat_eval" / "table" / "answer" / f"answer_{name}.jsonl")
    return {str(row["question_id"]): len(row["text"]) for row in rows}
