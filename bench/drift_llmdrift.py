"""Real drift found and its false alarms: GPT-3.5 and GPT-4 between March and June 2023.

Caveats: each model version answered each prompt once, at temperature 0.1; two tasks, English alone.
The words of the refusal rule were chosen with the sensitive answers in view. Border probes have no
recorded data. A halving compares answers to different prompts, which is harder than what a monitor
does; the answers of one month are all there are, so halvings overlap.

Cases, as simulations (`coverage_frac` is null):
`<task> <model> <channel>`: `ours` is the median number of probes after which the channel alarms,
over random orders of all prompts; `peer` the 90th percentile, null where more than a tenth never
do. `violation_frac` is the share of orders in which the channel stays silent to the end; `delta`
what it may spend at its first look. `<task> <model> any` is the first of the channels.
`<task> <model> 100 canaries`: `violation_frac` is the share of orders in which a first look at 100
prompts (the default) stays silent in every channel, text included.
`<task> <version> halves`: `violation_frac` is the share of random halvings in which any channel
alarms, `delta` the false alarm rate stated.
Needs the public data in $OWN_TEST_DATA (llmdrift/). Reproduce: make bench NAME=drift_llmdrift
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.result import simulation_line
from ownweights.verdict.drift.budget import CHANNELS, Budget
from ownweights.verdict.drift.outcome import CHANGED
from ownweights.verdict.drift.paired import compare_paired, paired_log_evidence
from ownweights.verdict.drift.readings import CHANNEL_FEATURES
from ownweights.verdict.drift.text import compare_texts
from tests.verdict.drift.llmdrift import PAIRS, TASKS, read_task, readings

FALSE_ALARM, NUM_PROBES, HALVINGS = 0.05, 100, 200
BENCH = "drift_llmdrift"
Rows = Sequence[Mapping[str, str]]


def cases(*, is_quick: bool, seed: int) -> Iterator[dict[str, Any]]:
    """One line for each case."""
    if not (folder := os.environ.get("OWN_TEST_DATA")):
        raise SystemExit("drift_llmdrift needs OWN_TEST_DATA, the folder that holds llmdrift/")
    orders, looks, halvings = (100, 5, 40) if is_quick else (1_000, 100, HALVINGS)
    for task in TASKS:
        models = read_task(Path(folder), task)
        features = {name: readings(rows, task) for name, rows in models.items()}
        for label, (old, new) in PAIRS.items():
            pair = (features[old], features[new])
            yield from _changes(f"{task} {label}", pair, _budget(task), orders, seed)
            rows = (models[old], models[new])
            yield _looks(f"{task} {label} {NUM_PROBES} canaries", rows, pair, looks, seed)
        for name, rows in models.items():
            yield _halves(f"{task} {name} halves", rows, features[name], halvings, seed)


def _budget(task: str) -> Budget:
    """All channels of a monitor, border probes included; nobody scores the sensitive answers."""
    return Budget(FALSE_ALARM, tuple(c for c in CHANNELS if task == "prime" or c != "score"))


def _changes(
    case: str, pair: tuple[np.ndarray, np.ndarray], budget: Budget, num_orders: int, seed: int
) -> Iterator[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    orders = np.array([rng.permutation(len(pair[0])) for _ in range(num_orders)])
    firsts: list[np.ndarray] = []
    for channel in CHANNEL_FEATURES:
        if channel in budget.channels:
            limit = budget.at_look(channel, 1)
            evidence = paired_log_evidence(pair[0][orders], pair[1][orders], channel)
            is_enough = evidence >= -math.log(limit)
            first = np.where(is_enough.any(axis=1), is_enough.argmax(axis=1) + 1.0, np.inf)
            firsts.append(first)
            yield _delay_line(f"{case} {channel}", first, limit, seed)
    yield _delay_line(f"{case} any", np.min(firsts, axis=0), FALSE_ALARM, seed)


def _looks(
    case: str, rows: tuple[Rows, Rows], pair: tuple[np.ndarray, np.ndarray], trials: int, seed: int
) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    silent = 0
    for trial in range(trials):
        order = rng.permutation(len(rows[0]))[:NUM_PROBES]
        silent += not _is_alarm(rows, pair, (order, order), seed=trial)
    return simulation_line(
        BENCH, case, violations=silent, trials=trials, delta=FALSE_ALARM, coverage_frac=None,
        workload=f"the first look at {NUM_PROBES} random prompts, all channels", seed=seed,
    )  # fmt: skip


def _halves(case: str, rows: Rows, features: np.ndarray, trials: int, seed: int) -> dict[str, Any]:
    rng, wrong = np.random.default_rng(seed), 0
    half = min(NUM_PROBES, len(rows) // 2)
    for trial in range(trials):
        order = rng.permutation(len(rows))
        sides = order[:half], order[len(rows) // 2 :][:half]
        wrong += _is_alarm((rows, rows), (features, features), sides, seed=trial)
    return simulation_line(
        BENCH, case, violations=wrong, trials=trials, delta=FALSE_ALARM, coverage_frac=None,
        workload=f"{half} answers of a version against {half} others of it", seed=seed,
    )  # fmt: skip


def _is_alarm(
    rows: tuple[Rows, Rows], features: tuple[np.ndarray, np.ndarray],
    sides: tuple[np.ndarray, np.ndarray], *, seed: int,
) -> bool:  # fmt: skip
    """Whether the first look alarms in any channel that can be measured without an endpoint."""
    is_scored = not np.isnan(features[0][:, -1]).all()
    budget = _budget("prime" if is_scored else "sensitive")
    limits = {c: budget.at_look(c, 1) for c in CHANNEL_FEATURES if c in budget.channels}
    found = compare_paired(features[0][sides[0]], features[1][sides[1]], limits)
    if any(one.outcome == CHANGED for one in found):
        return True
    old, new = ([[own[i]["answer"]] for i in side] for own, side in zip(rows, sides, strict=True))
    return compare_texts(old, new, budget.at_look("text", 1), seed=seed).outcome == CHANGED


def _delay_line(case: str, first: np.ndarray, limit: float, seed: int) -> dict[str, Any]:
    """`first` is the probe of the alarm in each order, infinite where none came."""
    line = simulation_line(
        BENCH, case, violations=int(np.isinf(first).sum()), trials=len(first), delta=limit,
        coverage_frac=None, workload="all prompts of the task in random order", seed=seed,
    )  # fmt: skip
    median, p90 = (float(np.quantile(first, q, method="higher")) for q in (0.5, 0.9))
    return line | {
        "ours": median if math.isfinite(median) else None,
        "peer": p90 if math.isfinite(p90) else None,
        "peer_name": "90th percentile",
        "unit": "probes to the alarm",
    }
