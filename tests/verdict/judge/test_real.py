"""Judges on real answers: a language model's reviews, and a stand-in beside people's verdicts."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import judge_known_error as bench
from bench.result import is_result
from ownweights.verdict.judge import (
    Cascade,
    corrected_harm,
    measure_agreement,
    run_probes,
    sample_pairs,
)
from ownweights.verdict.judge.probes import Probe, length_link
from ownweights.verdict.statistics.binomial import clopper_pearson_interval
from tests.verdict.judge import answers, judges
from tests.verdict.statistics import vicuna


@pytest.fixture(scope="module")
def rows(test_data: Path) -> list[dict[str, Any]]:
    return answers.read_answers(test_data)


@pytest.fixture(scope="module")
def trial(rows: list[dict[str, Any]]) -> answers.Trial:
    return answers.trial(rows, "fid", "gpt4")


@pytest.fixture(scope="module")
def judged(rows: list[dict[str, Any]], trial: answers.Trial):
    return asyncio.run(answers.lexical_judge(rows).compare(trial.pairs))


def test_chart_is_the_published_one(test_data: Path) -> None:
    found = {name: round(percent, 2) for name, percent in bench.chart(test_data).items()}
    assert found == {
        "llama-13b": 68.05, "alpaca-13b": 76.24, "bard": 93.26, "vicuna-13b": 92.06, "gpt35": 100.0,
    }  # fmt: skip


def test_gpt35_as_a_judge_fails_the_self_probe(test_data: Path) -> None:
    """Of two equal texts it chose one in 12 of 79; chance does not explain that."""
    given = vicuna.reviews(test_data, vicuna.NEWER_GPT35.format(vicuna.NEWER))
    second, tied, first, unread = vicuna.outcomes(given)
    assert (first, tied, second, unread) == (1, 67, 11, 1)
    probe = Probe("self", len(given), len(given) - unread, first + second)
    assert "12 errors in 79, so more than 7.1% in truth; at most 5% may be" in probe.fault


def test_weaker_judge_turns_the_result_round(test_data: Path) -> None:
    """On the run new-hp-fp16, not the chart's: GPT-4 has ChatGPT ahead, GPT-3.5 has Vicuna."""
    (flip, self_pair) = bench.weaker_judge_cases(test_data)
    assert (flip["ours"], flip["peer"]) == (37.5, 81.875)
    assert flip["workload"].endswith("22/16/42 and 65/1/14")
    assert self_pair["ours"] == pytest.approx(100 * 11 / 12, abs=1e-3)


@pytest.mark.parametrize(
    ("opponent", "link"),
    [("alpaca-13b", 0.45), ("llama-13b", 0.28), ("bard", 0.04), ("gpt35", -0.15)],
)
def test_gpt4_and_length_go_together_as_known(test_data: Path, opponent: str, link: float) -> None:
    """Correlation of log length ratio and difference in points, known to two digits by words."""
    given = vicuna.reviews(test_data, vicuna.CHART.format(opponent))
    ours, theirs = (vicuna.answer_lengths(test_data, n) for n in (vicuna.VICUNA, opponent))
    ratios = [math.log((1 + ours[r.question]) / (1 + theirs[r.question])) for r in given]
    points = [r.scores[1] - r.scores[0] for r in given if r.scores]
    found = length_link(ratios, points)
    assert found == pytest.approx(link, abs=0.1)  # characters here, words there


def test_every_real_pair_reaches_the_judge_and_is_read(judged, trial: answers.Trial) -> None:
    assert len(judged) == len(trial.pairs) > 3000
    assert all(one.outcome in ("win", "tie", "loss") for one in judged)


def test_agreement_with_people_matches_a_count_by_hand(judged, trial: answers.Trial) -> None:
    found = measure_agreement(judged, trial.labels)
    counts = Counter((one.outcome, trial.labels[one.id][0]) for one in judged)
    same = sum(num for (said, label), num in counts.items() if said == label)
    assert (found.raw.count, found.raw.n) == (same, len(judged))
    assert found.sensitivity.count == counts["loss", "loss"]
    assert found.sensitivity.n == sum(num for (_, label), num in counts.items() if label == "loss")
    assert 0.8 < found.raw.frac < 0.85 and 0.55 < found.kappa < 0.62
    assert found.sensitivity.frac < 0.7 and found.specificity.frac > 0.95
    assert found.without_ties.frac > 0.99  # it hardly ever takes the wrong side
    assert found.missed_high > found.confusion.false_no / found.labelled


def test_stand_in_judge_fails_the_probes_it_must(
    rows: list[dict[str, Any]], trial: answers.Trial
) -> None:
    """Where the teacher is wrong, it cannot tell its answer from nonsense."""
    drawn = sample_pairs(trial.pairs, 40)
    probes = asyncio.run(run_probes(answers.lexical_judge(rows), drawn))
    assert {probe.name for probe in probes if probe.fault} == {"constant", "injection"}


def test_corrected_harm_covers_what_people_said_of_all(judged, trial: answers.Trial) -> None:
    """200 labels of 3,027; the judge alone is certain of a wrong figure."""
    human = np.array([trial.labels[one.id] == ["loss"] for one in judged])
    said = np.array([one.outcome == "loss" for one in judged])
    truth, trials, rng, covered = human.mean(), 300, np.random.default_rng(8), 0
    widths: list[float] = []
    for _ in range(trials):
        order = rng.permutation(len(human))
        few, rest = order[:200], order[200:]
        seen = bench.confusion(human[few], said[few])
        found = corrected_harm(seen, int(said[rest].sum()), len(rest))
        covered += found.low <= truth <= found.high
        low, high = clopper_pearson_interval(int(human[few].sum()), 200, 0.05)
        widths.append((high - low) / (found.high - found.low))
    assert covered / trials >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / trials)
    assert np.median(widths) > 1.25  # as from half as many labels again
    low, high = clopper_pearson_interval(int(said.sum()), len(said), 0.05)
    assert not low <= truth <= high


def test_cascade_sends_up_a_third_of_real_pairs(
    rows: list[dict[str, Any]], trial: answers.Trial
) -> None:
    """A judge who decides by place where neither answer holds the reference is helped out."""
    some, strong = trial.pairs[:300], answers.lexical_judge(rows)
    references = {f"user:\n{row['question']}": row["gold"] for row in rows}

    def weak(request: str, first: str, second: str) -> str:
        gold = references[request]
        holds = [answers.holds_reference(answer, gold) for answer in (first, second)]
        return judges.prefer(*holds) if any(holds) else judges.verdict("FIRST")

    cascade = Cascade([judges.judge_who(weak, name="weak"), strong])
    found = asyncio.run(cascade.compare(some))
    alone = asyncio.run(answers.lexical_judge(rows).compare(some))
    assert [one.outcome for one in found] == [one.outcome for one in alone]
    sent = sum(one.by == strong.name for one in found)
    assert 30 < sent < 150 and strong.spent.calls == 2 * sent


def test_bench_gives_its_cases(test_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWN_TEST_DATA", str(test_data))
    monkeypatch.setattr(bench, "TRIALS", (("fid", "gpt4"),))
    monkeypatch.setattr(bench, "NUM_QUICK", 20)
    lines = list(bench.cases(is_quick=True, seed=3))
    assert all(map(is_result, lines))
    names = [line["case"] for line in lines]
    assert len(set(names)) == len(names)
    for name in (
        "chart bard", "elo vicuna-13b", "vicuna points or wins", "weaker judge", "self-pair",
        "agreement fid-gpt4", "corrected fid-gpt4", "width fid-gpt4",
    ):  # fmt: skip
        assert name in names and f"`{name.split()[0]}" in (bench.__doc__ or "")
    wins = lines[names.index("vicuna points or wins")]
    assert (wins["ours"], wins["workload"]) == (31.25, "14 won, 22 tied, 44 lost")
    elo = lines[names.index("elo vicuna-13b")]
    assert elo["ours"] == pytest.approx(863, abs=0.5)


def test_bench_without_data_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OWN_TEST_DATA", raising=False)
    with pytest.raises(SystemExit, match="set OWN_TEST_DATA"):
        list(bench.cases(is_quick=True, seed=0))
