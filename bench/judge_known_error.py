"""A judge is believed as far as its error is known: `make bench NAME=judge_known_error`.

Caveats first. The Vicuna reviews are in one order only, and the chart's percentages are ratios of
points chained through Vicuna. The reviews by GPT-3.5 are of another Vicuna run than the chart's,
new-hp-fp16, so that the weaker judge is compared with GPT-4 on that run. The judge on the NQ
answers is a stand-in that looks for the reference in the answer: it goes through the real prompt
and the real parsing, and is wrong where people are not, but it is no language model. People's
verdicts on a pair are made of their verdicts on each answer. Labels are drawn without replacement
from some 3,000, so that intervals are a few per cent wide. Needs OWN_TEST_DATA.

Cases, fixed: `chart <model>`, our percentage beside the published one (ratio 1: the same), the peer
rounded as published; `elo <model>`, Bradley-Terry beside ChatGPT's 1000, its interval by redrawn
questions in `workload`; `vicuna points or wins`, the share of games won beside the chart's
percentage for the same 80 games; `weaker judge`, Vicuna's share before GPT-4 and before GPT-3.5;
`self-pair`, how often the second of two equal texts was chosen where a place was, beside the fair
half; `agreement <student>-<teacher>`, judge and people beside always saying tie; `width ...`, the
interval of harm from 200 labels alone beside the one that uses the judge too (above 1: narrower);
and as simulations the share of 95 % intervals that miss what people said of all: `corrected ...`,
`labels ...` (Clopper-Pearson on the labels), `judge alone ...` (Clopper-Pearson on its verdicts).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.result import ratio_line, simulation_line
from ownweights.verdict.judge import corrected_harm, measure_agreement
from ownweights.verdict.statistics.binomial import clopper_pearson_interval
from ownweights.verdict.statistics.corrections import Confusion
from ownweights.verdict.statistics.ratings import bootstrap_ratings, elo
from tests.verdict.judge import answers
from tests.verdict.statistics import vicuna

BENCH = "judge_known_error"
PACKAGES = ("numpy", "scipy", "ownweights")
PUBLISHED = {"llama-13b": 68, "alpaca-13b": 76, "bard": 93, vicuna.VICUNA: 92, vicuna.CHATGPT: 100}
TRIALS = (("fid", "gpt4"), ("gpt35", "chatgpt"), ("gpt4", "newbing"))
NUM_LABELS = 200
NUM_QUICK = 200  # draws of questions, or of labels, with --quick
DELTA = 0.05


def cases(*, is_quick: bool, seed: int) -> Iterator[dict[str, Any]]:
    """The chart and its judges, then the stand-in judge beside people."""
    folder = os.environ.get("OWN_TEST_DATA")
    if not folder:
        raise SystemExit("set OWN_TEST_DATA to the folder of the public data")
    data = Path(folder)
    yield from chart_cases(data)
    yield from rating_cases(data, NUM_QUICK if is_quick else 1000, seed)
    yield from weaker_judge_cases(data)
    rows = answers.read_answers(data)
    for student, teacher in TRIALS:
        yield from people_cases(answers.trial(rows, student, teacher), rows,
                                NUM_QUICK if is_quick else 2000, seed)  # fmt: skip


def chart_cases(data: Path) -> Iterator[dict[str, Any]]:
    """The published percentages from the reviews' points."""
    for name, ours in chart(data).items():
        yield _line(f"chart {name}", ours, PUBLISHED[name], "published chart", "% of ChatGPT",
                    "GPT-4 reviews, 80 questions")  # fmt: skip


def chart(data: Path) -> dict[str, float]:
    """Percent of ChatGPT's points, chained through Vicuna."""
    sums = {
        name: np.sum([r.scores for r in vicuna.reviews(data, vicuna.CHART.format(name))], axis=0)
        for name in vicuna.OPPONENTS
    }
    through = 100 * sums[vicuna.CHATGPT][1] / sums[vicuna.CHATGPT][0]
    found = {name: through * theirs / ours for name, (theirs, ours) in sums.items()}
    return {**found, vicuna.VICUNA: through}


def rating_cases(data: Path, resamples: int, seed: int) -> Iterator[dict[str, Any]]:
    """Strength beside ChatGPT's, and what the chart's 92 % are in games won."""
    rated = bootstrap_ratings(
        vicuna.chart_matches(data), vicuna.CHATGPT, resamples=resamples, seed=seed
    )
    for name, found in rated.items():
        low, high = elo(found.low), elo(found.high)
        workload = f"GPT-4 reviews, interval {low:.0f} to {high:.0f} from {resamples} draws"
        yield _line(f"elo {name}", elo(found.value), 1000, "ChatGPT", "Elo", workload, seed=seed)
    won, tied, lost, _ = vicuna.outcomes(vicuna.reviews(data, vicuna.CHART.format(vicuna.CHATGPT)))
    yield _line("vicuna points or wins", _share(won, tied, lost), chart(data)[vicuna.VICUNA],
                "the chart's percentage", "%", f"{won} won, {tied} tied, {lost} lost")  # fmt: skip


def weaker_judge_cases(data: Path) -> Iterator[dict[str, Any]]:
    """The same 160 answers before two judges, and the weaker before equal texts."""
    strong, weak = (
        vicuna.outcomes(vicuna.reviews(data, name.format(vicuna.CHATGPT)))
        for name in (vicuna.NEWER_GPT4, vicuna.NEWER_GPT35)
    )
    told = " and ".join("/".join(map(str, counts[:3])) for counts in (strong, weak))
    yield _line("weaker judge", _share(*strong[:3]), _share(*weak[:3]), "GPT-3.5 as judge", "%",
                f"Vicuna new-hp-fp16 against ChatGPT, won/tied/lost {told}")  # fmt: skip
    second, tied, first, unread = vicuna.outcomes(
        vicuna.reviews(data, vicuna.NEWER_GPT35.format(vicuna.NEWER))
    )
    yield _line(
        "self-pair",
        100 * second / (second + first),
        50,
        "a fair judge",
        "%",
        f"GPT-3.5: second {second}, first {first}, tie {tied}, not read {unread}",
    )


def people_cases(
    trial: answers.Trial, rows: Sequence[dict[str, Any]], trials: int, seed: int
) -> Iterator[dict[str, Any]]:
    """A judge beside people on all pairs, then what 200 labels make of it."""
    name = f"{trial.student}-{trial.teacher}"
    judged = asyncio.run(answers.lexical_judge(list(rows)).compare(trial.pairs))
    found = measure_agreement(judged, trial.labels)
    ties = sum(said == ["tie"] for said in trial.labels.values())
    sees, right = found.sensitivity, found.specificity
    told = (f"{len(judged)} pairs, kappa {found.kappa:.3f}, sees {sees.count} of {sees.n} harms,"
            f" and no harm in {right.count} of {right.n}")  # fmt: skip
    yield _line(f"agreement {name}", 100 * (found.raw.frac or 0), 100 * ties / len(judged),
                "always saying tie", "%", told)  # fmt: skip
    human = np.array([trial.labels[one.id] == ["loss"] for one in judged])
    said = np.array([one.outcome == "loss" for one in judged])
    yield from label_cases(name, human, said, trials, seed)


def label_cases(
    name: str, human: np.ndarray, said: np.ndarray, trials: int, seed: int
) -> Iterator[dict[str, Any]]:
    """Intervals of the share of harm from a random 200 labels, against all labels."""
    truth, n, rng = human.mean(), len(human), np.random.default_rng(seed)
    misses = {"corrected": 0, "labels": 0, "judge alone": 0}
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(trials):
        order = rng.permutation(n)
        few, rest = order[:NUM_LABELS], order[NUM_LABELS:]
        fixed = corrected_harm(confusion(human[few], said[few]), int(said[rest].sum()), len(rest))
        plain = clopper_pearson_interval(int(human[few].sum()), NUM_LABELS, DELTA)
        alone = clopper_pearson_interval(int(said[rest].sum()), len(rest), DELTA)
        for case, (low, high) in zip(misses, ((fixed.low, fixed.high), plain, alone), strict=True):
            misses[case] += not low <= truth <= high
        ours.append(fixed.high - fixed.low)
        theirs.append(plain[1] - plain[0])
    workload = (f"{NUM_LABELS} of {n} labels; people find harm in {truth:.4f}, the judge in"
                f" {said.mean():.4f}")  # fmt: skip
    for case, count in misses.items():
        yield simulation_line(
            BENCH, f"{case} {name}", violations=count, trials=trials, delta=DELTA,
            coverage_frac=1 - count / trials, workload=workload, seed=seed, packages=PACKAGES,
        )  # fmt: skip
    yield ratio_line(
        BENCH, f"width {name}", ours=ours, peer=theirs, peer_name="labels alone", unit="share",
        is_less_better=True, workload=workload, seed=seed, packages=PACKAGES,
    )  # fmt: skip


def confusion(human: np.ndarray, said: np.ndarray) -> Confusion:
    """What the judge said of pairs whose truth is known."""
    return Confusion(
        int((human & said).sum()), int((human & ~said).sum()), int((~human & ~said).sum()),
        int((~human & said).sum()),
    )  # fmt: skip


def _share(won: int, tied: int, lost: int) -> float:
    return 100 * (won + tied / 2) / (won + tied + lost)


def _line(  # noqa: PLR0917
    case: str, ours: float, peer: float, peer_name: str, unit: str, workload: str, *, seed: int = 0
) -> dict[str, Any]:
    return ratio_line(
        BENCH, case, ours=[float(ours)], peer=[float(peer)], peer_name=peer_name, unit=unit,
        is_less_better=False, workload=workload, seed=seed, packages=PACKAGES,
    )  # fmt: skip
