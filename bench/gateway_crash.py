"""Is what was answered also kept, when the gateway is killed at any moment?

Caveats: kill -9 of the gateway, which loses what the process had in memory; a power cut is another
matter (docs/concepts/traffic.md). Killed at a random moment of a steady load of small answers, half
of them streams; started again on the same store each time. Each answer carries the id of its record
and the moment at which the caller had all of it. To be run alone: where others have the cores, the
writer waits for its turn, and no setting can promise milliseconds.

Case: `kill -9`. A trial is a kill; it counts as a violation where an answer that the caller had
more than 50 ms before the kill is not in the store exactly once and whole. The run fails where the
store does not verify. `workload` says how many answers there were, and the age of the oldest lost.
Reproduce: make bench NAME=gateway_crash
"""

from __future__ import annotations

import contextlib
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.load.gateways import Running, start, write_body
from bench.load.programs import mock, report_of, start_load
from bench.load.store import check_sound
from bench.result import simulation_line
from ownweights.core.project import Project
from ownweights.traffic.store import TrafficStore

PROMISED_S = 0.05  # what was answered longer ago is stored
RATE = 200
LONGEST_S = 3.0
_SMALL = "order refund since late again parcel order refund since late again parcel order refund "
ANSWERS = (f"{_SMALL}since late ag", 20 * "order refund since l")  # of mock.c, whole and streamed


def cases(*, is_quick: bool, seed: int) -> Iterator[dict[str, Any]]:
    """One line for all kills."""
    kills = 4 if is_quick else 50
    rng = random.Random(seed)
    lost_ages: list[float] = []
    answered = violations = 0
    with mock() as upstream_port, tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "ours"
        for number in range(kills):
            log = Path(folder) / f"answers-{number}"
            with contextlib.closing(start("ours", upstream_port, home)) as one:
                killed_s = _kill_under_load(one, log, rng.uniform(0.5, LONGEST_S))
            check_sound(home)
            ages = _ages(log, killed_s)
            lost = [ages[record_id] for record_id in _not_kept(home, ages)]
            answered += len(ages)
            lost_ages += lost
            violations += any(age > PROMISED_S for age in lost)
    oldest_ms = 1e3 * max(lost_ages, default=0.0)
    yield simulation_line(
        "gateway_crash",
        "kill -9",
        violations=violations,
        trials=kills,
        delta=0.0,
        coverage_frac=1 - len(lost_ages) / answered,
        workload=f"{answered} answers at {RATE} requests/s, the oldest lost {oldest_ms:.0f} ms old",
        seed=seed,
        packages=("uvicorn", "httptools", "uvloop", "zstandard"),
    )


def _kill_under_load(one: Running, log: Path, after_s: float) -> float:
    """Kill the gateway in the middle of a load; when that was, by the monotonic clock."""
    bodies = [write_body(one.folder, kind) for kind in ("json", "sse")]
    load = start_load(
        one.plan.door, bodies, "--rate", RATE, "--seconds", after_s + 0.3, "--log", log
    )
    time.sleep(after_s)
    killed_s = time.monotonic()
    one.close()
    report_of(load)
    return killed_s


def _ages(log: Path, killed_s: float) -> dict[str, float]:
    """How long before the kill each answer was there as a whole, by the id of its record."""
    rows = [line.split(" ") for line in log.read_text().splitlines()]
    return {row[2]: killed_s - float(row[1]) for row in rows if row[0] == "200"}


def _not_kept(home: Path, ages: dict[str, float]) -> list[str]:
    """The answers that are not in the store exactly once and whole."""
    with TrafficStore.open(Project(home)) as store:
        found = Counter(
            record.id
            for record in store.records()
            if record.status == "ok" and record.answer_text in ANSWERS
        )
    return [record_id for record_id in ages if found[record_id] != 1]
