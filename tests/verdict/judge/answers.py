"""Real answers of five systems to real questions, with people's verdicts, as pairs to be judged.

The judge here looks for the reference in the answer: cheap, blind to other wordings, and wrong in
ways that people are not, as judges are. Rows that people left open, and questions without a
reference, are left out.
"""

from __future__ import annotations

import gzip
import json
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ownweights.verdict.judge import Judge, JudgeOptions, Pair
from tests.verdict.judge.judges import judge_who, prefer

SYSTEMS = ("gpt35", "chatgpt", "gpt4", "newbing", "fid")


@dataclass(frozen=True)
class Trial:
    """One system as the student of another: pairs, and what people say of each."""

    student: str
    teacher: str
    pairs: list[Pair]
    labels: dict[str, list[str]]


def read_answers(data: Path) -> list[dict[str, Any]]:
    """The file of answers; `data` is the folder of public data."""
    with gzip.open(data / "traffic" / "answers-nq.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def trial(rows: list[dict[str, Any]], student: str, teacher: str) -> Trial:
    """People's two verdicts on a question make one on the pair: who is right is better."""
    found = Trial(student, teacher, [], {})
    for row in rows:
        ours, theirs = row[student], row[teacher]
        verdicts = ours["human_says_correct"], theirs["human_says_correct"]
        if None in verdicts or not row["gold"] or None in (ours["answer"], theirs["answer"]):
            continue
        messages = [{"role": "user", "content": row["question"]}]
        found.pairs.append(Pair(row["id"], messages, ours["answer"], theirs["answer"]))
        label = "tie" if verdicts[0] == verdicts[1] else "win" if verdicts[0] else "loss"
        found.labels[row["id"]] = [label]
    return found


def lexical_judge(rows: list[dict[str, Any]]) -> Judge:
    """Prefers the answer that holds the reference."""
    references = {f"user:\n{row['question']}": row["gold"] for row in rows}

    def says(request: str, first: str, second: str) -> str:
        gold = references[request]
        return prefer(holds_reference(first, gold), holds_reference(second, gold))

    return judge_who(says, name="holds the reference", options=JudgeOptions(concurrency=1))


def holds_reference(answer: str, gold: str) -> bool:
    spoken = words_of(answer)
    return any(words_of(one) in spoken for one in gold.split("/") if one.strip())


def words_of(text: str) -> str:
    """Letters and digits in lower case, without accents and articles, with a space at each end."""
    plain = [c for c in unicodedata.normalize("NFKD", text.lower()) if not unicodedata.combining(c)]
    words = "".join(c if c.isalnum() else " " for c in plain).split()
    return f" {' '.join(word for word in words if word not in ('a', 'an', 'the'))} "
