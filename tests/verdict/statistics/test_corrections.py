"""Estimates from few labels: by hand, against scipy, by simulation, and on real answers."""

from __future__ import annotations

import gzip
import json
import math
import unicodedata
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ownweights.core.errors import InputError
from ownweights.verdict.statistics.corrections import (
    Confusion,
    clustered_mean,
    clustered_se,
    ppi_mean,
    ppi_weight,
    rogan_gladen_rate,
)

EXACT = 1e-12  # the same sums in another order
TRIALS = 1_000
NOISE = 3 * math.sqrt(0.95 * 0.05 / TRIALS)  # of a share of 95 % in that many trials
SYSTEMS = ("gpt35", "chatgpt", "gpt4", "newbing", "fid")
LABELS, HEARD = [1, 0, 1, 1], [1, 0, 0, 1]  # what people said, what the judge said of these
ELSEWHERE = [1, 1, 0, 1, 0, 1, 1, 1]


def drawn(rng: np.random.Generator, n: int, *, rate: float = 0.6, accuracy: float = 0.85):
    """Labels of n rows, and a judge who agrees with each with probability `accuracy`."""
    truth = rng.random(n) < rate
    return truth.astype(np.float64), (truth ^ (rng.random(n) >= accuracy)).astype(np.float64)


def covers(low: float, high: float, value: float) -> bool:
    return low <= value <= high


# PPI++


def test_ppi_matches_a_computation_by_hand() -> None:
    """ω = Cov/((1 + n/N)·Var) with Cov = 1/6, n/N = 1/2, and Var = 8/33 of all 12 judgements."""
    weight = Fraction(1, 6) / (Fraction(3, 2) * Fraction(8, 33))
    assert ppi_weight(LABELS, HEARD, ELSEWHERE) == pytest.approx(float(weight), abs=EXACT)
    found = ppi_mean(LABELS, HEARD, ELSEWHERE, weight=0.5)
    # .5·6/8 + mean(½, 0, 1, ½); variances 1/6 of the rests, 3/14 of the judge elsewhere
    half = 1.959963984540054 * math.sqrt((1 / 6) / 4 + 0.25 * (3 / 14) / 8)
    assert found.value == pytest.approx(0.875, abs=EXACT)
    assert (found.low, found.high) == pytest.approx((0.875 - half, 0.875 + half), abs=EXACT)


def test_ppi_without_weight_is_the_classical_mean() -> None:
    found = ppi_mean(LABELS, HEARD, ELSEWHERE, weight=0.0, delta=0.1)
    low, high = stats.norm.interval(0.9, loc=0.75, scale=stats.sem(LABELS))
    assert (found.value, found.low, found.high) == pytest.approx((0.75, low, high), abs=EXACT)


def test_ppi_of_full_weight_is_plain_ppi() -> None:
    """mean_N(f) − mean_n(f − y), and var(f)/N + var(f − y)/n."""
    labels, scores, others = (np.array(x, np.float64) for x in (LABELS, HEARD, ELSEWHERE))
    found = ppi_mean(labels, scores, others, weight=1.0)
    error = scores - labels
    variance = others.var(ddof=1) / len(others) + error.var(ddof=1) / len(error)
    assert found.value == pytest.approx(others.mean() - error.mean(), abs=EXACT)
    assert found.high - found.low == pytest.approx(2 * 1.959964 * math.sqrt(variance), rel=1e-6)


def test_ppi_weight_makes_the_interval_narrowest() -> None:
    labels, scores = drawn(np.random.default_rng(1), 6_000)
    few = (labels[:400], scores[:400], scores[400:])
    widths = {}
    for weight in np.linspace(0, 1, 101):
        found = ppi_mean(*few, weight=float(weight))
        widths[float(weight)] = found.high - found.low
    tuned = ppi_mean(*few)
    assert tuned.high - tuned.low <= min(widths.values()) * 1.001
    assert ppi_weight(*few) == pytest.approx(min(widths, key=widths.__getitem__), abs=0.05)


def test_ppi_weight_ignores_a_judge_who_knows_nothing() -> None:
    assert ppi_weight([1, 0, 1, 0], [1, 1, 1, 1], [1, 1, 1]) == 0.0
    assert ppi_weight([1, 0, 1, 0], [0, 1, 0, 1], [0, 1, 0, 1]) == 0.0  # contradicts the labels
    tuned = ppi_mean([1, 0, 1, 0], [0, 1, 0, 1], [0, 1, 0, 1])
    assert tuned == ppi_mean([1, 0, 1, 0], [0, 1, 0, 1], [0, 1, 0, 1], weight=0.0)


@pytest.mark.parametrize("accuracy", [0.5, 0.85, 0.99])
@pytest.mark.parametrize("weight", [None, 0.0, 1.0])
def test_ppi_covers_95_percent(weight: float | None, accuracy: float) -> None:
    rng = np.random.default_rng(2)
    covered = []
    for _ in range(TRIALS):
        labels, scores = drawn(rng, 1_200, accuracy=accuracy)
        found = ppi_mean(labels[:200], scores[:200], scores[200:], weight=weight)
        covered.append(covers(found.low, found.high, 0.6))
    # a judge seen to err twice in 200 is where the normal approximation begins to fail
    slack = 0.03 if accuracy == 0.99 and weight != 0.0 else 0.0
    assert 0.95 - NOISE - slack <= np.mean(covered) <= 0.95 + NOISE + 0.01


@given(st.lists(st.tuples(*[st.floats(-5, 5)] * 2), min_size=2, max_size=20), st.floats(-3, 3))
def test_ppi_always_moves_with_the_labels(rows: list[tuple[float, float]], by: float) -> None:
    """Labels and judgements all higher by a constant: so is the estimate, with the same width."""
    labels, scores = np.array(rows).T
    here = ppi_mean(labels, scores, scores, weight=0.7)
    there = ppi_mean(labels + by, scores, scores, weight=0.7)
    assert there.value == pytest.approx(here.value + by, abs=1e-9)
    assert there.high - there.low == pytest.approx(here.high - here.low, abs=1e-9)


@pytest.mark.parametrize(
    ("human", "judged", "elsewhere", "words"),
    [
        ([1], [1], [1, 0], "1 rows with a human label and 2 without: each needs 2 or more"),
        ([1, 0], [1, 0], [1], "2 rows with a human label and 1 without"),
        ([1, 0], [1], [1, 0], "2 rows have a human label, the judge saw 1"),
        ([1, math.nan], [1, 0], [1, 0], "hint: leave out the rows that nobody could judge"),
        ([1, 0], [1, 0], [1, math.inf], "a value is not a number"),
    ],
)
def test_ppi_refuses_what_has_no_interval(human, judged, elsewhere, words: str) -> None:
    with pytest.raises(InputError, match=words):
        ppi_mean(human, judged, elsewhere)


# Rogan and Gladen


def plain_delta_method(said: int, n: int, seen: Confusion) -> tuple[float, float]:
    """Rogan and Gladen's own interval."""
    rate, sens, spec = said / n, seen.sensitivity, seen.specificity
    share = (rate + spec - 1) / (sens + spec - 1)
    variance = rate * (1 - rate) / n + share**2 * sens * (1 - sens) / seen.yes
    variance += (1 - share) ** 2 * spec * (1 - spec) / seen.no
    half = 1.96 * math.sqrt(variance) / (sens + spec - 1)
    return share - half, share + half


def test_rogan_gladen_matches_a_computation_by_hand() -> None:
    """130 of 300 said yes, sensitivity 90/100, specificity 80/100: (13/30 − 1/5)/(7/10) = 1/3."""
    found = rogan_gladen_rate(130, 300, Confusion(90, 10, 80, 20))
    assert found.value == pytest.approx(1 / 3, abs=EXACT)
    z, sens, spec = 1.959964, 91 / 102, 81 / 102
    said, size = (130 + z * z / 2) / (300 + z * z), 300 + z * z
    middle = (said + spec - 1) / (sens + spec - 1)
    of_sens, of_spec = sens * (1 - sens) / 102, spec * (1 - spec) / 102
    centre = middle + 2 * z * z * (middle * of_sens - (1 - middle) * of_spec)
    spread = said * (1 - said) / size + middle**2 * of_sens + (1 - middle) ** 2 * of_spec
    half = z * math.sqrt(spread) / (sens + spec - 1)
    assert (found.low, found.high) == pytest.approx((centre - half, centre + half), abs=1e-7)


def test_rogan_gladen_of_a_perfect_judge_is_the_plain_rate() -> None:
    found = rogan_gladen_rate(300, 1_000, Confusion(10**6, 0, 10**6, 0))
    assert found.value == pytest.approx(0.3, abs=EXACT)
    low, high = stats.binomtest(300, 1_000).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-3)


@pytest.mark.parametrize("delta", [0.05, 0.2])
@pytest.mark.parametrize("sizes", [(3_000, 130, 70), (200, 20, 20), (3_000, 15, 150)])
@pytest.mark.parametrize(("sens", "spec"), [(0.95, 0.95), (0.76, 0.996), (0.8, 0.9)])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
def test_rogan_gladen_covers_what_it_says(
    share: float, sens: float, spec: float, sizes: tuple[int, int, int], delta: float
) -> None:
    rng = np.random.default_rng(3)
    n, yes, no = sizes
    trials = TRIALS // 2
    said = rng.binomial(n, share * sens + (1 - share) * (1 - spec), trials).tolist()
    hits, rejected = (rng.binomial(*of, trials).tolist() for of in ((yes, sens), (no, spec)))
    covered = []
    for k in range(trials):
        seen = Confusion(hits[k], yes - hits[k], rejected[k], no - rejected[k])
        found = rogan_gladen_rate(said[k], n, seen, delta=delta)
        covered.append(covers(found.low, found.high, share))
    assert np.mean(covered) >= 1 - delta - 3 * math.sqrt(delta * (1 - delta) / trials) - 0.01


def test_rogan_gladen_covers_where_the_plain_delta_method_does_not() -> None:
    """15 rows to learn the sensitivity from: half of the time no error is among them."""
    rng = np.random.default_rng(4)
    said = rng.binomial(3_000, 0.97 * 0.95 + 0.03 * 0.05, TRIALS).tolist()
    hits, rejected = rng.binomial(15, 0.95, TRIALS).tolist(), rng.binomial(150, 0.95, TRIALS)
    ours, plain = [], []
    for k, other in enumerate(rejected.tolist()):
        seen = Confusion(hits[k], 15 - hits[k], other, 150 - other)
        found = rogan_gladen_rate(said[k], 3_000, seen)
        ours.append(covers(found.low, found.high, 0.97))
        plain.append(covers(*plain_delta_method(said[k], 3_000, seen), 0.97))
    assert np.mean(ours) >= 0.95
    assert np.mean(plain) < 0.6


@given(st.data())
def test_rogan_gladen_always_lies_between_0_and_1(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 500))
    counts = st.integers(0, 80)
    seen = Confusion(*[data.draw(counts) for _ in range(4)])
    try:
        found = rogan_gladen_rate(data.draw(st.integers(0, n)), n, seen)
    except InputError:
        return
    assert 0.0 <= found.low <= found.value <= found.high <= 1.0


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (Confusion(5, 5, 6, 4), "knows 5 of 10 yes and 6 of 10 no: too near to guessing"),
        (Confusion(1, 0, 300, 700), "too near to guessing"),  # one yes says little
        (Confusion(0, 0, 9, 1), "labelled ones of both kinds"),
        (Confusion(9, 1, 0, 0), "labelled ones of both kinds"),
    ],
)
def test_rogan_gladen_refuses_a_judge_unknown_or_guessing(seen: Confusion, words: str) -> None:
    with pytest.raises(InputError, match=words):
        rogan_gladen_rate(30, 100, seen)


def test_rogan_gladen_refuses_no_rows() -> None:
    with pytest.raises(InputError, match="needs judged rows"):
        rogan_gladen_rate(0, 0, Confusion(9, 1, 9, 1))


# clusters


def brute_force_se(values: list[float], clusters: list[str]) -> float:
    """Every pair of rows of one cluster adds the product of their distances from the mean."""
    mean, num = sum(values) / len(values), len(set(clusters))
    rows = list(zip(values, clusters, strict=True))
    total = sum((x - mean) * (y - mean) for x, a in rows for y, b in rows if a == b)
    return math.sqrt(max(0.0, total) * num / (num - 1)) / len(values)


rows_of_clusters = st.lists(
    st.tuples(st.floats(-9, 9), st.sampled_from("abcde")), min_size=2, max_size=30
).filter(lambda rows: len({name for _, name in rows}) > 1)


@given(rows_of_clusters)
def test_clustered_se_matches_brute_force(rows: list[tuple[float, str]]) -> None:
    values, clusters = [x for x, _ in rows], [name for _, name in rows]
    expected = brute_force_se(values, clusters)
    assert clustered_se(values, clusters) == pytest.approx(expected, abs=1e-6)


@given(st.lists(st.floats(-9, 9), min_size=2, max_size=30), st.floats(0.01, 0.5))
def test_clustered_mean_of_single_rows_matches_scipy(values: list[float], delta: float) -> None:
    if np.ptp(values) < 1e-6:
        return  # scipy has no interval for a constant
    found = clustered_mean(values, list(range(len(values))), delta=delta)
    expected = stats.ttest_1samp(values, 0.0).confidence_interval(1 - delta)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-6)


@given(rows_of_clusters, st.integers(2, 4))
def test_clustered_se_always_ignores_repetition(rows: list[tuple[float, str]], times: int) -> None:
    """A session asked the same again and again is still one session."""
    values, clusters = [x for x, _ in rows], [name for _, name in rows]
    once = clustered_se(values, clusters)
    assert clustered_se(values * times, clusters * times) == pytest.approx(once, abs=1e-6)


def test_clustered_mean_covers_where_rows_alone_do_not() -> None:
    rng = np.random.default_rng(5)
    sessions = np.repeat(np.arange(40), 8)
    clustered, alone = [], []
    for _ in range(TRIALS):
        values = rng.normal(size=40)[sessions] + rng.normal(size=320)
        for kept, groups in ((clustered, sessions), (alone, np.arange(320))):
            found = clustered_mean(values, groups)
            kept.append(covers(found.low, found.high, 0.0))
    assert 0.93 <= np.mean(clustered) <= 0.97
    assert np.mean(alone) < 0.7


@pytest.mark.parametrize(
    ("values", "clusters", "words"),
    [
        ([1.0, 2.0], ["a", "a"], "1 cluster: how far clusters differ needs at least 2"),
        ([1.0, 2.0], ["a"], "2 values, but 1 clusters"),
        ([1.0, math.nan], ["a", "b"], "a value is not a number"),
    ],
)
def test_clustered_se_refuses_what_has_no_spread(values, clusters, words: str) -> None:
    with pytest.raises(InputError, match=words):
        clustered_se(values, clusters)


# real answers, human verdicts, and a judge that looks for the reference in the answer


def words_of(text: str) -> str:
    """Letters and digits in lower case, without accents and articles, with a space at each end."""
    plain = [c for c in unicodedata.normalize("NFKD", text.lower()) if not unicodedata.combining(c)]
    words = "".join(c if c.isalnum() else " " for c in plain).split()
    return f" {' '.join(word for word in words if word not in ('a', 'an', 'the'))} "


def contains_reference(answer: str, gold: str) -> bool:
    spoken = words_of(answer)
    return any(words_of(g) in spoken for g in gold.split("/") if g.strip())


@pytest.fixture(scope="module")
def answered(test_data: Path) -> list[dict]:
    with gzip.open(test_data / "traffic" / "answers-nq.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def test_ppi_covers_the_truth_of_real_answers(answered: list[dict]) -> None:
    """200 of some 3,000 human verdicts, drawn 200 times, for each of five systems."""
    rng, covered = np.random.default_rng(6), []
    for system in SYSTEMS:
        rows = [
            (row[system]["human_says_correct"], contains_reference(answer, row["gold"]))
            for row in answered
            if row[system]["human_says_correct"] is not None
            and row["gold"]
            and (answer := row[system]["answer"]) is not None
        ]
        labels, scores = np.array(rows, np.float64).T
        truth = labels.mean()
        assert scores.mean() < truth - 0.09  # the judge alone is far off
        hits, widths = [], []
        for _ in range(200):
            order = rng.permutation(len(rows))
            few, rest = order[:200], order[200:]
            tuned = ppi_mean(labels[few], scores[few], scores[rest])
            plain = ppi_mean(labels[few], scores[few], scores[rest], weight=0.0)
            hits.append(covers(tuned.low, tuned.high, truth))
            widths.append((tuned.high - tuned.low) / (plain.high - plain.low))
        assert 0.90 <= np.mean(hits) <= 0.995, system  # 3 standard errors of 200 draws
        assert np.mean(widths) < 0.9, system  # as if there were a quarter more labels, or better
        covered += hits
    assert 0.93 <= np.mean(covered) <= 0.98
