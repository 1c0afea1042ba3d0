"""The error budget on disk: every look at certify data is an attempt with a number, never reused.

In: an open Database. Out: `Attempt`s. Invariant: two processes never get the same k for a workload
(test_book_attempt_numbers_are_never_shared). What attempt k may spend is the caller's formula.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ownweights.core.database import Database


@dataclass(frozen=True, slots=True)
class Attempt:
    """Attempt `k` (from 1) on a workload: what it claimed, and the error `delta` it may spend."""

    workload: str
    k: int
    delta: float
    claim: Mapping[str, Any]
    at: float
    data_hash: str
    verdict_id: str | None = None


def book_attempt(
    database: Database,
    workload: str,
    *,
    delta_of: Callable[[int], float],
    claim: Mapping[str, Any],
    data_hash: str,
) -> Attempt:
    """Take the next attempt on a workload before its certify data are read; it stays spent."""
    with database.transaction():
        sql = "SELECT coalesce(max(k), 0) FROM attempt WHERE workload = ?"
        k = int(database.query(sql, (workload,))[0][0]) + 1
        attempt = Attempt(workload, k, delta_of(k), dict(claim), time.time(), data_hash)
        database.execute(
            "INSERT INTO attempt (workload, k, delta, claim, at, data_hash)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (workload, k, attempt.delta, json.dumps(attempt.claim), attempt.at, data_hash),
        )
    return attempt


def close_attempt(database: Database, attempt: Attempt, verdict_id: str) -> None:
    """Note which verdict an attempt led to."""
    database.execute(
        "UPDATE attempt SET verdict_id = ? WHERE workload = ? AND k = ?",
        (verdict_id, attempt.workload, attempt.k),
    )


def list_attempts(database: Database, workload: str) -> list[Attempt]:
    """All attempts on a workload, first to last."""
    rows = database.query(
        "SELECT workload, k, delta, claim, at, data_hash, verdict_id FROM attempt"
        " WHERE workload = ? ORDER BY k",
        (workload,),
    )
    return [
        Attempt(workload, k, delta, json.loads(claim), at, data_hash, verdict_id)
        for workload, k, delta, claim, at, data_hash, verdict_id in rows
    ]
