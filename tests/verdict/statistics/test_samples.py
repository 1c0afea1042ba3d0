"""Two-sample tests against scipy, double loops, exact enumeration, and recorded drift."""

from __future__ import annotations

import csv
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.stats import contingency

from ownweights.core.errors import InputError
from ownweights.verdict.statistics.samples import g_test, ks_test, mmd_test

Sample = Mapping[str, Sequence[str]]
EXACT = 1e-9  # the same sums in another order
NOISE = 4 * math.sqrt(0.25 / 9_999)  # of a p-value from that many draws, at its largest


def share_rejected(p_values: list[float], level: float) -> float:
    return float(np.mean(np.array(p_values) <= level))


def at_most(level: float, trials: int) -> float:
    """The largest share that chance explains when `level` is the truth."""
    return level + 3 * math.sqrt(level * (1 - level) / trials)


# categories

tables = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), min_size=1, max_size=6).filter(
    lambda rows: all(map(sum, zip(*rows, strict=True)))
)


@given(tables)
def test_g_test_matches_scipy(rows: list[tuple[int, int]]) -> None:
    before, after = np.array(rows).T
    found = g_test(before, after)
    kept = np.array([row for row in rows if any(row)]).T
    expected = stats.chi2_contingency(kept, correction=False, lambda_="log-likelihood")
    assert found.statistic == pytest.approx(expected.statistic, abs=1e-6)
    if kept.shape[1] > 1:
        assert found.effect == pytest.approx(contingency.association(kept, "cramer"), abs=1e-6)
    if found.method == "chi-square":
        assert found.p_value == pytest.approx(expected.pvalue, abs=1e-9)
        assert expected.expected_freq.min() >= 5 or kept.shape[1] == 1
    else:
        assert expected.expected_freq.min() < 5


@given(tables)
@settings(max_examples=30)
def test_g_test_always_ignores_the_order_of_samples(rows: list[tuple[int, int]]) -> None:
    before, after = np.array(rows).T
    here, there = g_test(before, after), g_test(after, before)
    assert (here.statistic, here.effect) == pytest.approx(
        (there.statistic, there.effect), abs=EXACT
    )
    assert here.p_value == pytest.approx(there.p_value, abs=2 * NOISE)


def enumerated_g(before: Sequence[int], after: Sequence[int]) -> float:
    """P(G at least as large) over every table with these margins, by the hypergeometric law."""
    totals, size = np.add(before, after), sum(before)
    law = stats.multivariate_hypergeom(totals, size)
    seen = stats.chi2_contingency([before, after], correction=False, lambda_="log-likelihood")[0]
    p_value = 0.0
    for first in itertools.product(*(range(total + 1) for total in totals)):
        if sum(first) == size:
            drawn = [list(first), (totals - first).tolist()]
            g = stats.chi2_contingency(drawn, correction=False, lambda_="log-likelihood")[0]
            p_value += law.pmf(first) * (g >= seen - 1e-9)
    return p_value


@pytest.mark.parametrize(
    ("before", "after"),
    [((3, 0), (0, 3)), ((7, 1), (2, 5)), ((4, 2, 0), (1, 3, 2)), ((9, 1, 1), (4, 1, 3))],
)
def test_g_test_of_small_counts_matches_enumeration(before, after) -> None:
    found = g_test(before, after)
    assert found.method == "resampling"
    assert found.p_value == pytest.approx(enumerated_g(before, after), abs=NOISE)


def test_g_test_of_small_counts_is_calibrated() -> None:
    """One answer in thirty refused, 40 a side: the table of χ² would reject twice as often."""
    rng, trials = np.random.default_rng(1), 300
    ours, chi = [], []
    for _ in range(trials):
        before, after = rng.multinomial(40, [0.94, 0.03, 0.03], 2)
        found = g_test(before, after)
        num = int(((before + after) > 0).sum())
        ours.append(found.p_value)
        chi.append(float(stats.chi2.sf(found.statistic, num - 1)) if num > 1 else 1.0)
    assert share_rejected(ours, 0.05) <= at_most(0.05, trials)
    assert share_rejected(chi, 0.05) > share_rejected(ours, 0.05)


def test_g_test_of_equal_shares_sees_nothing() -> None:
    found = g_test([30, 60, 0], [10, 20, 0])
    assert (found.statistic, found.effect) == pytest.approx((0.0, 0.0), abs=EXACT)
    assert found.p_value == pytest.approx(1.0)
    assert g_test([5], [9]).p_value == 1.0  # one category: nothing could differ


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ([0, 0], [3, 4], "a sample is empty"),
        ([1, 2], [3], "counts of 2 and of 1 categories"),
        ([1, -2], [3, 4], "counts are whole numbers from 0 on"),
        ([1, 0.5], [3, 4], "counts are whole numbers from 0 on"),
        ([1, math.nan], [3, 4], "counts are whole numbers from 0 on"),
    ],
)
def test_g_test_refuses_what_are_no_counts(before, after, words: str) -> None:
    with pytest.raises(InputError, match=words):
        g_test(before, after)


# numbers


@pytest.mark.filterwarnings("ignore:ks_2samp")  # for scipy as we call it here
@given(*[st.lists(st.integers(0, 30), min_size=1, max_size=40)] * 2)
def test_ks_test_matches_scipy(before: list[int], after: list[int]) -> None:
    found, expected = ks_test(before, after), stats.ks_2samp(before, after)
    assert (found.statistic, found.p_value) == (expected.statistic, expected.pvalue)
    assert found.effect == found.statistic


def test_ks_test_is_cautious_with_equal_numbers() -> None:
    rng, trials = np.random.default_rng(2), 400
    p_values = [ks_test(*rng.integers(0, 4, (2, 30))).p_value for _ in range(trials)]
    assert share_rejected(p_values, 0.05) <= 0.05


def test_ks_test_is_silent_where_scipy_rounds_above_one() -> None:
    assert ks_test([0, 0, 0, 0, 0], [0, 0, 0, 0, 1]).p_value == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("after", "words"), [([], "a sample is empty"), ([1, math.nan], "a value is not a number")]
)
def test_ks_test_refuses_what_cannot_be_ranked(after, words: str) -> None:
    with pytest.raises(InputError, match=words):
        ks_test([1, 2], after)


# texts


def alike(x: str, y: str, num_chars: int) -> float:
    """The kernel, place by place; None stands after the end."""
    first, second = ([*text, *[None] * num_chars][:num_chars] for text in (x, y))
    return sum(a == b for a, b in zip(first, second, strict=True)) / num_chars


def double_loop(before: Sample, after: Sample, num_chars: int) -> float:
    total = 0.0
    for prompt, xs in before.items():
        ys = after[prompt]
        m, n = len(xs), len(ys)
        for i, j in itertools.permutations(range(m), 2):
            total += alike(xs[i], xs[j], num_chars) / (m * (m - 1))
        for i, j in itertools.permutations(range(n), 2):
            total += alike(ys[i], ys[j], num_chars) / (n * (n - 1))
        total -= sum(2 * alike(x, y, num_chars) / (m * n) for x in xs for y in ys)
    return total / len(before)


def ways_to_part(before: Sequence[str], after: Sequence[str]):
    """Every way to give a prompt's answers to two samples of these sizes."""
    pool = [*before, *after]
    for chosen in itertools.combinations(range(len(pool)), len(before)):
        yield (
            [pool[k] for k in chosen],
            [pool[k] for k in range(len(pool)) if k not in chosen],
        )


def enumerated_mmd(before: Sample, after: Sample, num_chars: int) -> float:
    """The share of all arrangements, prompt by prompt, that part the answers as far as these."""
    seen = double_loop(before, after, num_chars)
    found = [
        double_loop(
            {prompt: parts[k][0] for k, prompt in enumerate(before)},
            {prompt: parts[k][1] for k, prompt in enumerate(before)},
            num_chars,
        )
        for parts in itertools.product(*(ways_to_part(before[p], after[p]) for p in before))
    ]
    return float(np.mean(np.array(found) >= seen - EXACT))


texts = st.lists(st.text("ab\0𝄞é", max_size=5), min_size=2, max_size=4)
samples = st.dictionaries(st.sampled_from(["p", "q", "r"]), st.tuples(texts, texts), min_size=1)


@given(samples, st.integers(1, 6))
def test_mmd_matches_double_loops(given_samples, num_chars: int) -> None:
    before = {prompt: pair[0] for prompt, pair in given_samples.items()}
    after = {prompt: pair[1] for prompt, pair in given_samples.items()}
    found = mmd_test(before, after, num_chars=num_chars, permutations=9)
    assert found.statistic == pytest.approx(double_loop(before, after, num_chars), abs=EXACT)
    assert found.effect == found.statistic
    assert mmd_test(after, before, num_chars=num_chars, permutations=9).statistic == pytest.approx(
        found.statistic, abs=EXACT
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"p": ["aa", "ab"], "q": ["x", "y"]}, {"p": ["bb", "ba", "cc"], "q": ["x", "z"]}),
        ({"p": ["yes", "yes", "yes"]}, {"p": ["no", "no", "no"]}),
        ({"p": ["yes", "no", "yes"], "q": ["1", "1"]}, {"p": ["no", "yes"], "q": ["2", "2"]}),
    ],
)
def test_mmd_p_value_matches_enumeration(before: Sample, after: Sample) -> None:
    found = mmd_test(before, after, num_chars=3, permutations=9_999)
    assert found.p_value == pytest.approx(enumerated_mmd(before, after, 3), abs=NOISE)


def answers(rng: np.random.Generator, rate: float, *, prompts: int = 4, each: int = 6) -> Sample:
    """Answers of five letters, each `a` with probability `rate`, after the prompt's own start."""
    return {
        f"prompt {k}": [
            chr(k + 99) * k + "".join(np.where(row < rate, "a", "b"))
            for row in rng.random((each, 5))
        ]
        for k in range(prompts)
    }


def test_mmd_p_value_is_calibrated() -> None:
    rng, trials = np.random.default_rng(3), 400
    p_values = [
        mmd_test(answers(rng, 0.5), answers(rng, 0.5, each=4), permutations=99, seed=k).p_value
        for k in range(trials)
    ]
    for level in (0.05, 0.2, 0.5):
        assert share_rejected(p_values, level) <= at_most(level, trials)
        assert share_rejected(p_values, level) >= level - 3 * math.sqrt(
            level * (1 - level) / trials
        )
    assert min(p_values) >= 1 / 100


def test_mmd_sees_a_change_that_the_prompts_hide() -> None:
    """Prompts differ far more than the samples: shuffled over all prompts nothing would show."""
    rng = np.random.default_rng(4)
    before, after = answers(rng, 0.7, prompts=20), answers(rng, 0.4, prompts=20)
    assert mmd_test(before, after).p_value <= 0.01


def test_mmd_reads_only_the_first_characters() -> None:
    before = {"p": ["abcX1", "abcX2", "abcX3", "abcX4"]}
    after = {"p": ["abcY1", "abcY2", "abcY3", "abcY4"]}
    assert mmd_test(before, after, num_chars=3).p_value == 1.0
    assert mmd_test(before, after, num_chars=4).p_value < 0.1


def test_mmd_counts_the_end_of_an_answer() -> None:
    """Short answers that grew longer: what came after nothing is a change."""
    before, after = {"p": ["yes"] * 5}, {"p": ["yes, but"] * 5}
    assert mmd_test(before, after).p_value < 0.05
    assert mmd_test(before, before).p_value == 1.0


def test_mmd_is_repeatable() -> None:
    rng = np.random.default_rng(5)
    before, after = answers(rng, 0.5), answers(rng, 0.6)
    once, again, other = (mmd_test(before, after, seed=seed) for seed in (1, 1, 2))
    assert once == again
    assert once.statistic == other.statistic


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ({}, {}, "there is no prompt"),
        ({"p": ["a", "b"]}, {"q": ["a", "b"]}, "2 prompts are in one sample only, such as 'p'"),
        ({"p": ["a", "b"]}, {"p": ["a"]}, "'p' has 2 answers before and 1 after"),
    ],
)
def test_mmd_refuses_what_cannot_be_compared(before: Sample, after: Sample, words: str) -> None:
    with pytest.raises(InputError, match=words):
        mmd_test(before, after)


# an endpoint that changed: March and June 2023


@pytest.fixture(scope="module")
def prime_answers(test_data: Path) -> dict[str, list[str]]:
    """The answers of each version to "Is n a prime number?", by the order of the questions."""
    with (test_data / "llmdrift" / "PRIME_FULL_EVAL.csv").open(encoding="utf-8", newline="") as f:
        rows = list(csv.DictReader(f))
    return {
        version: [row["answer"] for row in rows if row["model"].endswith(version)]
        for version in ("gpt-4-0314", "gpt-4-0613")
    }


def says(answers: Sequence[str]) -> list[int]:
    """How many say yes, no, neither: the first word in brackets, or the whole answer."""
    found = [re.search(r"\[(yes|no)\]|^(yes|no)\.?$", text.lower().strip()) for text in answers]
    first = [(match[1] or match[2]) if match else "" for match in found]
    return [first.count(word) for word in ("yes", "no", "")]


def test_recorded_drift_is_seen_in_length_and_in_words(prime_answers) -> None:
    """A thousand answers of which 30 a side are enough; halves of one version do not differ."""
    march, june = (prime_answers[version] for version in ("gpt-4-0314", "gpt-4-0613"))
    assert (len(march), len(june)) == (1_000, 1_000)
    assert round(np.mean([len(text) for text in june]), 1) == 3.9
    lengths = [[len(text) for text in answers] for answers in (march, june)]
    assert ks_test(lengths[0][:30], lengths[1][:30]).p_value < 1e-6
    assert ks_test(lengths[0][0::2], lengths[0][1::2]).p_value > 0.01
    assert says(june)[1] == 987
    words = g_test(says(march[:300]), says(june[:300]))
    assert words.p_value == 1 / 10_000 and words.effect > 0.9
    assert g_test(says(march[0::2]), says(march[1::2])).p_value > 0.01
    before, after = {"all": march[:12]}, {"all": june[:12]}
    assert mmd_test(before, after).p_value == 1 / 1_000
    assert mmd_test({"all": march[:12]}, {"all": march[12:24]}).p_value > 0.01
