"""The recorded answers of GPT-3.5 and GPT-4 in March and June 2023, as drift detection reads them.

Data: github.com/lchen001/LLMDrift (Apache-2.0), files PRIME_FULL and SENSITIVEQ; read where they
lie, never copied. A prime answer says yes when any word of it is yes, in brackets or not, else no
when any word is no: that is the rule behind the published figures.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ownweights.verdict.drift.readings import read_answer

PAIRS = {
    "gpt-4": ("gpt-4-0314", "gpt-4-0613"),
    "gpt-3.5": ("gpt-3.5-turbo-0301", "gpt-3.5-turbo-0613"),
}
TASKS = {"prime": "PRIME_FULL_EVAL.csv", "sensitive": "SENSITIVEQ_EVAL.csv"}


class YesOrNo:
    """Whether an answer says what the reference says, by the rule above."""

    name = "yes_or_no"
    is_graded = False

    def harm(self, answer: str | None, references: Sequence[str]) -> float | None:
        words = (answer or "").replace(",", " ").replace(".", " ").lower().split()
        said = [w for w in ("yes", "no") if any(f"[{w}]" in f"[{word}]" for word in words)]
        return float(said[:1] != [references[0].lower()])


def read_task(folder: Path, task: str) -> dict[str, list[dict[str, str]]]:
    """Model → its rows, in the order of their prompts."""
    with (folder / "llmdrift" / TASKS[task]).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    models: dict[str, list[dict[str, str]]] = {}
    for row in sorted(rows, key=lambda row: int(row["id"])):
        models.setdefault(row["model"].split("/")[1], []).append(row)
    return models


def readings(rows: Sequence[Mapping[str, str]], task: str) -> np.ndarray:
    """The features of each answer. Shapes: (n, F)"""
    check = YesOrNo() if task == "prime" else None
    return np.array([read_answer(r["answer"], r["query"], (r["ref_answer"],), check) for r in rows])
