"""Laws that hold for whatever is drawn: stakes, evidence, readings, files, the package's names."""

from __future__ import annotations

import asyncio
import dataclasses
import math
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ownweights.core.project import Project
from ownweights.verdict import drift
from ownweights.verdict.drift.border import Stakes, border_log_evidence
from ownweights.verdict.drift.budget import CHANNELS, Budget
from ownweights.verdict.drift.monitor import DriftState
from ownweights.verdict.drift.outcome import CHANGED, COULD_NOT_TELL, SAME, Finding, Look
from ownweights.verdict.drift.paired import needed, paired_log_evidence
from ownweights.verdict.drift.readings import CHANNEL_FEATURES, FEATURES, read_answer, unwrap
from ownweights.verdict.drift.store import load_monitor, save_baseline, save_look
from ownweights.verdict.statistics.e_process import mcnemar_log_e_value
from tests.verdict.drift.endpoints import NO_PROBES, SEQUENTIAL, DrawnEndpoint, canaries

shares = st.floats(0.0, 1.0)


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=8), st.integers(1, 5))
def test_stakes_always_grow_with_evidence(evidence: list[float], num_days: int) -> None:
    lower = upper = Stakes.start(len(evidence))
    for _ in range(num_days):
        lower = lower.after(np.array(evidence))
        upper = upper.after(np.array(evidence) + 0.1)
    assert 0 < lower.worth < upper.worth


@given(shares, shares, shares, st.integers(1, 30))
def test_border_evidence_always_averages_to_one_at_most(
    a: float, b: float, place: float, n: int
) -> None:
    low, high = sorted((a, b))
    share = min(high, low + place * (high - low))
    counts = np.arange(n + 1)
    log_chances = stats.binom(n, share).logpmf(counts)
    evidence = border_log_evidence(counts, n, np.array(low), np.array(high))
    is_possible = np.isfinite(log_chances)  # what cannot happen may be as rare as it likes
    assert float(np.exp(log_chances[is_possible] + evidence[is_possible]).sum()) <= 1 + 1e-9


@given(st.integers(0, 14))
def test_paired_stake_always_averages_to_one(n: int) -> None:
    """Over all ways that n fair coins may fall, by enumeration."""
    wins = np.arange(n + 1)
    stakes = np.exp(mcnemar_log_e_value(wins, n - wins))
    assert float(stats.binom(n, 0.5).pmf(wins) @ stakes) == pytest.approx(1.0)


@given(st.integers(0, 2**32 - 1), st.sampled_from(sorted(CHANNEL_FEATURES)))
def test_paired_evidence_always_ignores_which_month_is_which(seed: int, channel: str) -> None:
    rng = np.random.default_rng(seed)
    before, after = (rng.integers(0, 3, (20, len(FEATURES))).astype(float) for _ in range(2))
    forth = paired_log_evidence(before, after, channel)
    back = paired_log_evidence(after, before, channel)
    assert forth == pytest.approx(back)


@given(st.sampled_from(sorted(CHANNEL_FEATURES)), st.floats(1e-12, 0.2))
def test_needed_always_grows_as_the_limit_falls(channel: str, limit: float) -> None:
    assert needed(channel, limit / 10) >= needed(channel, limit) >= 1


@given(st.text(max_size=300), st.text(max_size=50))
def test_readings_always_are_numbers_or_unknown(text: str, prompt: str) -> None:
    found = read_answer(text, prompt, (), None)
    assert found.shape == (len(FEATURES),)
    known = found[~np.isnan(found)]
    assert np.isfinite(known).all()
    assert ((known[1:] == 0) | (known[1:] == 1)).all()
    assert unwrap(unwrap(text)) in (unwrap(text), unwrap(unwrap(unwrap(text))))


@given(
    st.floats(1e-6, 0.5),
    st.lists(st.sampled_from(CHANNELS), min_size=1, unique=True),
    st.integers(0, 300),
)
def test_budget_always_keeps_its_promise(rate: float, channels: list[str], looks: int) -> None:
    assert Budget(rate, tuple(channels)).spent(looks) <= rate * (1 + 1e-12)


findings = st.builds(
    Finding, st.sampled_from(CHANNELS), st.sampled_from([SAME, CHANGED, COULD_NOT_TELL]),
    st.text(max_size=20), st.floats(0, 1), st.none() | st.floats(0, 1), st.integers(0, 10**6),
    st.none() | st.integers(1, 10**6),
)  # fmt: skip


@given(st.lists(st.lists(findings, max_size=3), max_size=3))
def test_state_always_survives_its_file(rows: list[list[Finding]]) -> None:
    baseline = asyncio.run(
        drift.take_baseline(
            DrawnEndpoint(), canaries(1), teacher="main", plan=NO_PROBES, at=0.0,
            manner=SEQUENTIAL,
        )
    )  # fmt: skip
    looks = tuple(Look(i, float(i), tuple(row), 1, 0, ("note",)) for i, row in enumerate(rows, 1))
    with tempfile.TemporaryDirectory() as folder:
        project = Project(Path(folder))
        monitor = save_baseline(project, baseline)
        asked = asyncio.run(monitor.ask(DrawnEndpoint(), SEQUENTIAL))
        for number in range(1, len(looks) + 1):
            monitor = dataclasses.replace(monitor, state=DriftState(looks[:number]))
            save_look(project, monitor, asked)
        assert load_monitor(project, "main") == monitor


def test_drift_exports_exist_and_nothing_else_does() -> None:
    assert [name for name in drift.__all__ if getattr(drift, name, None) is None] == []
    assert len(drift.__all__) <= 20
    with pytest.raises(AttributeError, match="has no attribute 'no_such_name'"):
        _ = drift.no_such_name


def test_drift_package_loads_no_numbers_until_asked() -> None:
    code = "import sys, ownweights.verdict.drift; print('scipy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_border_stakes_are_one_on_average_over_simulated_days() -> None:
    """With the true share inside its interval the money has no tendency to grow."""
    rng, worths = np.random.default_rng(7), []
    low, high = np.array([0.4]), np.array([0.6])
    for _ in range(2_000):
        stakes = Stakes.start(1)
        for _ in range(4):
            stakes = stakes.after(border_log_evidence(rng.binomial(5, [0.6]), 5, low, high))
        worths.append(stakes.worth)
    error = 3 * float(np.std(worths)) / math.sqrt(len(worths))
    assert float(np.mean(worths)) <= 1 + error
