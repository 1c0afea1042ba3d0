"""How far a judge can be believed: against closed forms, scipy, brute force and simulation."""

from __future__ import annotations

import math
from collections import Counter
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ownweights.core.errors import InputError
from ownweights.verdict.judge import (
    Comparison,
    cohen_kappa,
    corrected_by_rates,
    corrected_harm,
    measure_agreement,
    sample_pairs,
)
from ownweights.verdict.judge.agreement import Agreement, Share, majority
from ownweights.verdict.statistics.corrections import Confusion, ppi_mean, rogan_gladen_rate
from tests.verdict.judge.judges import pairs

OUTCOMES = ("win", "tie", "loss")
TRIALS = 400


def measured(rows: list[tuple[str | None, str]]) -> Agreement:
    """Rows of (what the judge said, what people said)."""
    comparisons = [Comparison(str(i), said) for i, (said, _) in enumerate(rows)]
    return measure_agreement(comparisons, {str(i): [label] for i, (_, label) in enumerate(rows)})


def table(*counts: tuple[str | None, str, int]) -> list[tuple[str | None, str]]:
    return [(said, label) for said, label, num in counts for _ in range(num)]


ROWS = table(
    ("win", "win", 10), ("tie", "tie", 20), ("loss", "loss", 12), ("tie", "loss", 3),
    ("loss", "tie", 4), ("win", "loss", 1), ("loss", "win", 2), ("undecided", "loss", 5),
    ("undecided", "tie", 6), (None, "win", 7),
)  # fmt: skip


def test_agreement_matches_a_count_by_hand() -> None:
    found = measured(ROWS)
    assert (found.labelled, found.open) == (70, 18)
    assert (found.raw, found.without_ties) == (Share(42, 52), Share(22, 25))
    # what is left open counts as harm, as it does in a certificate
    assert found.confusion == Confusion(true_yes=17, false_no=4, true_no=30, false_yes=19)
    assert (found.sensitivity, found.specificity) == (Share(17, 21), Share(30, 49))
    low, high = stats.binomtest(17, 21).proportion_ci(0.95)
    assert found.sensitivity.interval == pytest.approx((low, high))
    ends = stats.binomtest(4, 70, alternative="less").proportion_ci(0.95)
    assert found.missed_high == pytest.approx(ends.high)
    assert (found.human_ceiling, found.human_kappa) == (None, None)


def test_agreement_measures_people_by_each_other() -> None:
    comparisons = [Comparison(str(i), "tie") for i in range(30)]
    labels = {str(i): ["tie", "tie" if i % 3 else "loss", "tie"] for i in range(30)}
    found = measure_agreement(comparisons, labels)
    assert found.human_ceiling == Share(20, 30)
    assert found.raw == Share(30, 30)
    assert found.human_kappa == 0.0  # one of them never varies: no better than chance
    assert found.kappa is None  # neither side varies: kappa has no value


def test_agreement_leaves_out_what_nobody_decided() -> None:
    comparisons = [Comparison(str(i), "tie") for i in range(30)]
    labels = {str(i): [["tie"], [], ["tie", "loss"]][i % 3] for i in range(30)}
    with pytest.raises(InputError, match="10 of the judged pairs have a human label: at least 20"):
        measure_agreement(comparisons, labels)
    more = [*comparisons, *(Comparison(f"m{i}", "tie") for i in range(30))]
    found = measure_agreement(more, {**labels, **{f"m{i}": ["tie"] for i in range(15)}})
    assert (found.labelled, found.unsaid, found.raw) == (25, 20, Share(25, 25))


def test_missed_harm_counts_what_people_cannot_say() -> None:
    """As harm where the judge sees none: 4 of 70, and 6 of 10 more, are 10 of 80."""
    rows = {str(i): [label] for i, (_, label) in enumerate(ROWS)}
    judged = [Comparison(str(i), said) for i, (said, _) in enumerate(ROWS)]
    unsure = ["tie"] * 5 + ["win", "loss", "undecided", None, "loss"]
    judged += [Comparison(f"u{i}", said) for i, said in enumerate(unsure)]
    labels: list[list[str]] = [[], ["tie", "loss"]]
    found = measure_agreement(judged, rows | {f"u{i}": labels[i % 2] for i in range(10)})
    assert (found.labelled, found.unsaid, found.unsaid_missed) == (70, 10, 6)
    ends = stats.binomtest(10, 80, alternative="less").proportion_ci(0.95)
    assert found.missed_high == pytest.approx(ends.high)
    assert found.confusion == measured(ROWS).confusion


@pytest.mark.parametrize(
    ("said", "most"),
    [
        ([], None), (["win"], "win"), (["win", "loss"], None), (["win", "loss", "loss"], "loss"),
        (["win", "tie", "loss"], None), (["tie", "tie"], "tie"),
    ],
)  # fmt: skip
def test_majority_is_of_most_people(said: list[str], most: str | None) -> None:
    assert majority(said) == most


def brute_force_kappa(rows: list[tuple[str, str]]) -> float | None:
    """Agreement of the rows, against agreement of every row's one with every row's other."""
    seen = np.mean([a == b for a, b in rows])
    chance = np.mean([a == b for (a, _), (_, b) in product(rows, rows)])
    return None if math.isclose(chance, 1.0) else float((seen - chance) / (1 - chance))


@given(st.lists(st.tuples(st.sampled_from(OUTCOMES), st.sampled_from(OUTCOMES)), min_size=1,
                max_size=25))  # fmt: skip
def test_kappa_matches_brute_force(rows: list[tuple[str, str]]) -> None:
    wanted, found = brute_force_kappa(rows), cohen_kappa(rows)
    assert (found is None) == (wanted is None)
    if found is not None:
        assert found == pytest.approx(wanted, abs=1e-12)
        assert cohen_kappa([(b, a) for a, b in rows]) == pytest.approx(found, abs=1e-12)


def test_kappa_matches_published_numbers() -> None:
    """Cohen's textbook case: 20 and 15 of 50 alike, so 0.7 seen, 0.5 by chance, 0.4 beyond it."""
    rows = [("yes", "yes")] * 20 + [("yes", "no")] * 5 + [("no", "yes")] * 10 + [("no", "no")] * 15
    assert cohen_kappa(rows) == pytest.approx(0.4)
    assert cohen_kappa([]) is None


# the harm that people would find


def test_corrected_harm_is_ppi_after_one_more_of_each_kind() -> None:
    seen = Confusion(true_yes=30, false_no=10, true_no=140, false_yes=20)
    found = corrected_harm(seen, 260, 1000)
    rest = [1] * 260 + [0] * 740
    plain = ppi_mean([1] * 40 + [0] * 160, [1] * 30 + [0] * 150 + [1] * 20, rest)
    padded = ppi_mean([1] * 42 + [0] * 162, [1] * 31 + [0] * 152 + [1] * 21, rest)
    assert found.value == pytest.approx(plain.value)
    assert (found.low, found.high) == (pytest.approx(padded.low), pytest.approx(padded.high))
    assert corrected_by_rates(seen, 260, 1000) == rogan_gladen_rate(260, 1000, seen)


def test_corrected_harm_of_no_error_seen_is_not_certain() -> None:
    """No error in 30 labels is no proof that there are none."""
    found = corrected_harm(Confusion(true_yes=1, false_no=0, true_no=29, false_yes=0), 33, 1000)
    assert found.value == pytest.approx(0.033, abs=0.001)
    assert found.high - found.low > 0.1
    assert corrected_harm(Confusion(0, 0, 30, 0), 0, 1000).high > 0.05


@given(st.data())
def test_corrected_harm_always_lies_between_0_and_1(data: st.DataObject) -> None:
    counts = [data.draw(st.integers(0, 30)) for _ in range(4)]
    n = data.draw(st.integers(2, 300))
    if sum(counts) >= 20:
        found = corrected_harm(Confusion(*counts), data.draw(st.integers(0, n)), n)
        assert 0.0 <= found.low <= found.value <= found.high <= 1.0


def drawn(rng: np.random.Generator, n: int, rate: float, sens: float, spec: float) -> np.ndarray:
    """Rows of (harm in truth, harm by the judge)."""
    harm = rng.random(n) < rate
    says = np.where(harm, rng.random(n) < sens, rng.random(n) >= spec)
    return np.stack([harm, says], axis=1)


def confused(rows: np.ndarray) -> Confusion:
    seen = Counter(map(tuple, rows.tolist()))
    return Confusion(seen[True, True], seen[True, False], seen[False, False], seen[False, True])


@pytest.mark.parametrize(
    ("rate", "sens", "spec"),
    [(0.05, 0.9, 0.97), (0.2, 0.7, 0.9), (0.03, 0.5, 0.995), (0.1, 1.0, 1.0), (0.3, 0.55, 0.5)],
)
def test_corrected_harm_covers_the_truth(rate: float, sens: float, spec: float) -> None:
    """200 labels, 1,000 judged: the interval holds the rate that people would find."""
    padded, _ = coverage(rate, sens, spec)
    assert padded >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / TRIALS)


def coverage(rate: float, sens: float, spec: float, labels: int = 200) -> tuple[float, float]:
    """How often our interval holds the truth, and how often the plain one does."""
    rng, ours, plain = np.random.default_rng(5), 0, 0
    for _ in range(TRIALS):
        rows = drawn(rng, labels, rate, sens, spec)
        said = int(drawn(rng, 1000, rate, sens, spec)[:, 1].sum())
        found = corrected_harm(confused(rows), said, 1000)
        ours += found.low <= rate <= found.high
        other = ppi_mean(rows[:, 0], rows[:, 1], [1] * said + [0] * (1000 - said))
        plain += other.low <= rate <= other.high
    return ours / TRIALS, plain / TRIALS


@pytest.mark.parametrize(
    ("rate", "sens", "spec", "labels"),
    [(0.02, 0.8, 0.99, 200), (0.05, 0.6, 0.97, 100), (0.01, 0.5, 1.0, 200)],
)
def test_corrected_harm_covers_where_the_plain_interval_does_not(
    rate: float, sens: float, spec: float, labels: int
) -> None:
    error = 3 * math.sqrt(0.95 * 0.05 / TRIALS)
    padded, plain = coverage(rate, sens, spec, labels)
    assert plain < 0.95 - error <= padded


def test_missed_harm_bound_holds() -> None:
    """The share of all answers whose harm the judge does not see is below the bound in 95 %."""
    rng, trials, above = np.random.default_rng(6), 300, 0
    for _ in range(trials):
        rows = drawn(rng, 200, 0.2, 0.8, 0.9).tolist()
        found = measured([("loss" if says else "tie", "loss" if harm else "tie")
                          for harm, says in rows])  # fmt: skip
        above += found.missed_high < 0.2 * 0.2
    assert above / trials <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / trials)


def test_sample_pairs_is_a_draw_that_repeats() -> None:
    given_pairs = pairs(400)
    found = sample_pairs(given_pairs, 100)
    assert found == sample_pairs(list(reversed(given_pairs)), 100)
    assert len({one.id for one in found}) == 100
    assert found[:10] == sample_pairs(given_pairs, 10)
    first_half = sum(int(one.id.split("-")[1]) < 200 for one in found)
    assert stats.binomtest(first_half, 100).pvalue > 0.001
