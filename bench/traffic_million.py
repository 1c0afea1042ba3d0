"""How fast the traffic store answers at a million records, and what a request costs on disk.

Caveats: a shared machine; milliseconds are of one process with a warm file cache, so each case also
has as its peer one look-up of a record by its id, measured in turns with it (`peer`, ms): the ratio
says how many such look-ups a page costs. `bound` is the 200 ms that a page may take. The records
are made up: 12 workloads, 90 days, 300,000 sessions, 40,000 users, 40 keys, some 130 words
each of varied text; bodies compress as such text does, other traffic by more or less.
Cases: `list`, `list filtered` (a rare status), `list deep` (from the middle), `list session`,
`list key`, `facets` (all eight), `stats`, `stats since` (a cut day first), `stats key`: p50
over the repeats, and their p95 in a line `p95 ...` of its own; `write` (records/s, peer: encoding
the bodies alone), `index bytes` and `body bytes` a request (peer: the JSON of request and answer).
Reproduce: make bench NAME=traffic_million
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.result import quantile, ratio_line
from ownweights.core.chat import Usage
from ownweights.core.jsonl import encode_json
from ownweights.core.project import Project
from ownweights.traffic import Record, TrafficStore, make_record
from ownweights.traffic.encode import encode_bodies
from ownweights.traffic.query import RecordFilter, facets, page, stats
from ownweights.traffic.store import BATCH_ROWS
from ownweights.traffic.tally import DIMENSIONS

BENCH = "traffic_million"
PAGE_MS = 200.0
FIRST_AT = 1_790_000_000.0
DAYS = 90
PEER_EVERY = 16  # batches
WORKLOADS = tuple(f"workload-{n}" for n in range(12))
MODELS = ("gpt-5-mini", "gpt-5", "claude-sonnet-5", "own-student-1", "own-student-2")


def cases(*, is_quick: bool, seed: int) -> Iterator[dict[str, Any]]:
    """One line for each kind of page, and for what a request costs."""
    number = 50_000 if is_quick else 1_000_000
    workload = f"{number:,} made-up chats"
    with tempfile.TemporaryDirectory() as folder:
        project = Project(Path(folder))
        with TrafficStore.open(project) as store:
            yield from _written(project, store, number, workload, seed)
        with TrafficStore.open(project) as store:
            repeats = 20 if is_quick else 40
            common: dict[str, Any] = {"workload": workload, "seed": seed}
            for case, ask in _pages(store, number).items():
                yield from _asked(store, case, ask, repeats, common)


def _written(
    project: Project, store: TrafficStore, number: int, workload: str, seed: int
) -> Iterator[dict[str, Any]]:
    rng = random.Random(seed)
    words = [f"{rng.choice('bcdfgklmnprst')}{rng.choice('aeiou')}{n:x}" for n in range(4000)]
    phrases = [" ".join(rng.choices(words, k=20)) for _ in range(50_000)]
    stored: list[float] = []
    encoded: list[float] = []
    stored_beside: list[float] = []
    raw_bytes = measured = 0
    for start in range(0, number, BATCH_ROWS):
        batch = [
            made(rng, phrases, n, number) for n in range(start, min(start + BATCH_ROWS, number))
        ]
        begin = time.perf_counter()
        store.add_batch(batch)
        stored.append(len(batch) / (time.perf_counter() - begin))
        if start // BATCH_ROWS % PEER_EVERY:
            continue
        begin = time.perf_counter()
        for record in batch:
            encode_bodies(record.request, record.response)
        encoded.append(len(batch) / (time.perf_counter() - begin))
        stored_beside.append(stored[-1])
        raw_bytes += sum(len(encode_json([r.request, r.response])) for r in batch)
        measured += len(batch)
    common: dict[str, Any] = {"workload": workload, "seed": seed}
    yield ratio_line(BENCH, "write", ours=stored_beside, peer=encoded,
                     peer_name="encoding bodies alone", unit="records/s", is_less_better=False,
                     **common)  # fmt: skip
    store.database.query("PRAGMA wal_checkpoint(TRUNCATE)")
    index_bytes = project.database_path.stat().st_size / number
    body_bytes = sum(path.stat().st_size for path in project.bodies_dir.iterdir()) / number
    for case, size_bytes in (("index bytes", index_bytes), ("body bytes", body_bytes)):
        yield ratio_line(BENCH, case, ours=[size_bytes], peer=[raw_bytes / measured],
                         peer_name="JSON of request and answer", unit="bytes a request",
                         is_less_better=True, **common)  # fmt: skip


def _pages(store: TrafficStore, number: int) -> dict[str, Callable[[], object]]:
    database = store.database
    session = page(database, RecordFilter(), limit=1)[0].session
    middle = FIRST_AT + (DAYS / 2 + 0.37) * 86_400
    return {
        "list": lambda: page(database, RecordFilter(), limit=50),
        "list filtered": lambda: page(
            database,
            RecordFilter(workload=WORKLOADS[-1], status="error", model=MODELS[1]),
            limit=50,
        ),
        "list deep": lambda: page(
            database, RecordFilter(role="student"), before=number // 2, limit=50
        ),
        "list session": lambda: page(database, RecordFilter(session=session), limit=50),
        "list key": lambda: page(
            database, RecordFilter(key_id="key-7", status="partial"), limit=50
        ),
        "facets": lambda: [facets(database, RecordFilter(), name) for name in DIMENSIONS],
        "stats": store.workloads,
        "stats since": lambda: stats(database, RecordFilter(since=middle)),
        "stats key": lambda: stats(database, RecordFilter(key_id="key-7"), "day"),
    }


def _asked(
    store: TrafficStore,
    case: str,
    ask: Callable[[], object],
    repeats: int,
    common: Mapping[str, Any],
) -> Iterator[dict[str, Any]]:
    ids = [row.id for row in page(store.database, RecordFilter(), limit=1000)]
    ours: list[float] = []
    floor: list[float] = []
    for turn in range(-2, repeats):
        took = time_ms(ask), time_ms(lambda n=turn: _look_up(store, ids[n * 7 % len(ids)]))
        if turn >= 0:  # twice unmeasured, to fill the caches of both
            ours.append(took[0])
            floor.append(took[1])
    told: dict[str, Any] = {
        **common, "peer_name": "one look-up by id", "unit": "ms", "is_less_better": True,
        "bound": PAGE_MS,
    }  # fmt: skip
    yield ratio_line(BENCH, case, ours=ours, peer=floor, **told)
    slow, same = quantile(sorted(ours), 0.95), quantile(sorted(floor), 0.5)
    yield ratio_line(BENCH, f"p95 {case}", ours=[slow], peer=[same], **told)


def _look_up(store: TrafficStore, record_id: str) -> object:
    return store.database.query("SELECT seq FROM record WHERE id = ?", (record_id,))


def made(rng: random.Random, phrases: list[str], number: int, total: int) -> Record:
    """One record of many: number `number` of `total`, in the order of time."""
    workload = WORKLOADS[min(int(rng.expovariate(0.4)), len(WORKLOADS) - 1)]
    model = rng.choices(MODELS, (50, 20, 10, 15, 5))[0]
    system = f"You answer for {workload}. " + "Say only what was asked, in plain words. " * 8
    asked = " ".join(rng.choices(phrases, k=rng.randrange(1, 9)))
    said = " ".join(rng.choices(phrases, k=rng.randrange(1, 5)))
    request = {
        "model": model,
        "messages": [{"role": "system", "content": system}, {"role": "user", "content": asked}],
    }
    choice = {"index": 0, "message": {"role": "assistant", "content": said},
              "finish_reason": "stop"}  # fmt: skip
    record = make_record(
        request,
        {"model": model, "choices": [choice]},
        role="student" if model.startswith("own") else "teacher",
        workload=workload,
        session=f"session-{rng.randrange(max(1, total * 3 // 10))}",
        at=FIRST_AT + DAYS * 86_400 * number / total + rng.random(),
        status=rng.choices(("ok", "partial", "error"), (97, 2, 1))[0],
    )
    return replace(
        record,
        end_user=f"user-{rng.randrange(40_000)}",
        key_id=f"key-{rng.randrange(40)}" if number % 4 else None,
        upstream="" if model.startswith("own") else model.split("-")[0],
        usage=Usage(len(asked) // 4, len(said) // 4),
        cost_usd=len(asked) * 1e-7,
        latency_ms=rng.lognormvariate(6.5, 0.8),
    )


def time_ms(ask: Callable[[], object]) -> float:
    """Milliseconds until it answered."""
    start = time.perf_counter()
    ask()
    return (time.perf_counter() - start) * 1e3
