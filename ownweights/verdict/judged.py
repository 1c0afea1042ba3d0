"""One judged request, and the file that keeps them: ids, scores and harms, no bodies.

The file is what a verdict can be recomputed from. Units are kept as hashes, because the unit of a
workload split by prompt is the prompt's own text.
Invariants: reading gives back what was written, -inf included (test_judged_survives_its_file).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ownweights.core.errors import ArtefactError

ANSWERED, FAILED, INELIGIBLE = "answered", "failed", "ineligible"
DRAW_SALT = "ownweights-draw-1"


@dataclass(frozen=True, slots=True)
class Judged:
    """What one request of develop or certify showed.

    `harm` is None where there was no answer to judge, or where nobody could judge it. `status`
    failed is an error or time-out: the teacher would have answered. Of a learned score, `score` on
    develop is in the order of fits that had not seen the unit.
    """

    id: str
    unit: str
    split: str
    status: str = ANSWERED
    score: float = -math.inf
    harm: float | None = None
    slices: Mapping[str, str] = field(default_factory=dict[str, str])
    difference: float | None = None  # student - teacher, where a judge compared the two
    # how often a second answer of the teacher differs from its first, and how often the student's
    pair: tuple[float, float] | None = None

    @property
    def counted_harm(self) -> float:
        """The harm a certificate counts: one for an answer that nobody could judge."""
        if self.status != ANSWERED:
            return 0.0
        return 1.0 if self.harm is None else self.harm

    @property
    def counted_difference(self) -> float:
        """Student - teacher as claim C counts it: -1 for an answer that nobody could judge."""
        return -self.counted_harm if self.difference is None else self.difference


def unit_hash(unit: str) -> str:
    """The name under which files and ledgers keep a unit."""
    return hashlib.sha256(unit.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def lot(unit: str, name: str) -> str:
    """What a request of a unit draws: the lowest is taken, whatever was answered."""
    key = f"{DRAW_SALT}\x1f{unit}\x1f{name}".encode("utf-8", "surrogatepass")
    return hashlib.sha256(key).hexdigest()


def draw_one_per_unit(rows: Iterable[Judged]) -> list[Judged]:
    """One request a unit, drawn by hash of its id: independent, and blind to what was answered."""
    drawn: dict[str, tuple[str, Judged]] = {}
    for row in rows:
        number = lot(row.unit, row.id)
        if row.unit not in drawn or number < drawn[row.unit][0]:
            drawn[row.unit] = (number, row)
    return [drawn[unit][1] for unit in sorted(drawn)]


def write_judged(path: Path, rows: Iterable[Judged]) -> None:
    """One JSON line a row, in a fixed order."""
    with path.open("w", encoding="utf-8") as file:
        for row in sorted(rows, key=lambda row: (row.split, row.unit, row.id)):
            score = row.score if math.isfinite(row.score) else None
            line: dict[str, Any] = {
                "id": row.id, "unit": row.unit, "split": row.split, "status": row.status,
                "score": score, "harm": row.harm, "slices": dict(row.slices),
            }  # fmt: skip
            line |= {} if row.difference is None else {"difference": row.difference}
            line |= {} if row.pair is None else {"pair": list(row.pair)}
            file.write(json.dumps(line, ensure_ascii=True, allow_nan=False) + "\n")


def read_judged(path: Path) -> list[Judged]:
    """The rows of a file written by write_judged."""
    rows: list[Judged] = []
    try:
        lines = path.read_text("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ArtefactError(f"{path} is not UTF-8 text: {error}") from None
    for number, line in enumerate(lines, 1):
        try:
            data: dict[str, Any] = json.loads(line)
            data["score"] = -math.inf if data["score"] is None else float(data["score"])
            if "pair" in data:
                again, student = data["pair"]
                data["pair"] = (float(again), float(student))
            rows.append(_checked(Judged(**data)))
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            raise ArtefactError(f"{path}:{number} is not a judged request: {error}") from None
    return rows


def _checked(row: Judged) -> Judged:
    """The row, if it could have been written; the file may come from anyone."""
    texts = [row.id, row.unit, row.split, *dict(row.slices), *dict(row.slices).values()]
    if row.status not in (ANSWERED, FAILED, INELIGIBLE) or not all(
        isinstance(text, str) for text in texts
    ):
        raise TypeError("id, unit, split and slices must be text, status one of those there are")
    shares = [0.0 if row.harm is None else row.harm, *(row.pair or ())]
    is_difference = row.difference is None or -1.0 <= row.difference <= 1.0
    if not is_difference or not all(0.0 <= share <= 1.0 for share in shares):
        raise ValueError("a harm or share is not between 0 and 1, or a difference beyond that")
    if math.isnan(row.score):
        raise ValueError("the score is not a number")
    return row
