"""Do two samples come from the same source? What a drift check asks of answers then and now.

In: two samples, of an endpoint before and after. Out: a statistic, the size of the effect, and the
probability of so large a statistic if nothing changed.

  g_test    counts of categories (refused, fenced, valid JSON ...): G of homogeneity. Where fewer
            than 5 are expected anywhere the table of χ² misleads, and tables drawn with the same
            margins take its place
  ks_test   one number an answer (length, latency): Kolmogorov-Smirnov. Many equal numbers make it
            cautious, never rash
  mmd_test  the text itself: how much more alike two answers to one prompt are within a sample than
            across. Alike = share of the first characters that are the same at the same place, with
            the end of a shorter answer counting as a character. Its p-value shuffles the answers
            of each prompt between the samples, so prompts may differ as they like

MMD² of a prompt with answers x₁…x_m and y₁…y_n, averaged over prompts:
    Σ_{i≠j} k(xᵢ,xⱼ)/m(m−1) + Σ_{i≠j} k(yᵢ,yⱼ)/n(n−1) − 2 Σ_{ij} k(xᵢ,yⱼ)/mn
Invariants: a resampled p-value is never 0 and holds at every size (test_mmd_p_value_is_calibrated,
test_g_test_of_small_counts_matches_enumeration); the order of the samples does not matter.
Sources: Gao, Liang and Guestrin, Model Equality Testing (arXiv:2410.20247), section 3; Phipson and
Smyth, Permutation p-values should never be zero (2010).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from ownweights.core.errors import InputError
from ownweights.verdict.statistics.binomial import Floats

MIN_EXPECTED = 5
RESAMPLES = 9_999
PERMUTATIONS = 999
NUM_CHARS = 200
SAME = 1e-9  # two ways to add up one statistic differ by less
END = -1  # what stands after the last character


@dataclass(frozen=True, slots=True)
class Difference:
    """How two samples differ; `effect` is 0 where they agree, and does not grow with their size."""

    statistic: float
    effect: float
    p_value: float
    method: str


def g_test(before: ArrayLike, after: ArrayLike, *, seed: int = 0) -> Difference:
    """Whether two samples have their categories in the same shares; the effect is Cramér's V.

    Shapes: before, after (C,), how often each of the same C categories came
    """
    table = _table(before, after)
    sizes = table.sum(axis=1)
    if not sizes.all():
        raise InputError("a sample is empty: there is nothing to compare")
    totals = table.sum(axis=0)
    statistic = float(_g_statistics(table[:1], totals)[0])
    expected = np.outer(sizes, totals) / sizes.sum()
    effect = float(np.sqrt(((table - expected) ** 2 / expected).sum() / sizes.sum()))
    if len(totals) == 1:
        return Difference(0.0, 0.0, 1.0, "chi-square")
    if expected.min() >= MIN_EXPECTED:
        p_value = float(special.chdtrc(len(totals) - 1, statistic))
        return Difference(statistic, effect, p_value, "chi-square")
    rng = np.random.default_rng(seed)
    drawn = rng.multivariate_hypergeometric(totals, int(sizes[0]), size=RESAMPLES)
    p_value = _share_as_large(_g_statistics(drawn, totals), statistic)
    return Difference(statistic, effect, p_value, "resampling")


def ks_test(before: ArrayLike, after: ArrayLike) -> Difference:
    """Whether two samples of one number have the same distribution; the effect is the distance."""
    from scipy import stats

    first, second = np.asarray(before, np.float64), np.asarray(after, np.float64)
    if not len(first) or not len(second):
        raise InputError("a sample is empty: there is nothing to compare")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise InputError("a value is not a number, and cannot be ranked")
    with warnings.catch_warnings():
        # where rounding takes an exact p-value above 1, scipy warns and approximates
        warnings.filterwarnings("ignore", "ks_2samp: Exact calculation", RuntimeWarning)
        statistic, p_value = cast(tuple[float, float], stats.ks_2samp(first, second))
    distance = float(statistic)
    return Difference(distance, distance, float(p_value), "Kolmogorov-Smirnov")


def mmd_test(
    before: Mapping[str, Sequence[str]],
    after: Mapping[str, Sequence[str]],
    *,
    num_chars: int = NUM_CHARS,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> Difference:
    """Whether answers to the same prompts come from the same source; statistic and effect are MMD².

    In: for each prompt the answers of a sample, at least 2. Raises: InputError where a prompt has
    fewer, or is not in both samples.
    """
    assert num_chars >= 1, f"there is nothing to compare in {num_chars} characters"
    _check_prompts(before, after)
    rng = np.random.default_rng(seed)
    sums = np.zeros(1 + permutations)
    for prompt in sorted(before):
        alike = _alikeness([*before[prompt], *after[prompt]], num_chars)
        is_before = np.arange(len(alike)) < len(before[prompt])
        shuffled = rng.permuted(np.tile(is_before, (permutations, 1)), axis=1)
        sums += _mmd(alike, np.vstack([is_before, shuffled]))
    found = sums / len(before)
    statistic = float(found[0])
    return Difference(statistic, statistic, _share_as_large(found[1:], statistic), "permutation")


def _alikeness(texts: Sequence[str], num_chars: int) -> Floats:
    """The Hamming kernel of each two texts: the share of places that hold the same character.

    Shapes: (n, n) for n texts, ones on the diagonal
    """
    places = np.full((len(texts), num_chars), END)
    for row, text in zip(places, texts, strict=True):
        start = [ord(char) for char in text[:num_chars]]
        row[: len(start)] = start
    alike = np.zeros((len(texts), len(texts)))
    for column in places.T:
        alike += column[:, None] == column[None, :]
    return alike / num_chars


def _mmd(alike: Floats, is_first: NDArray[np.bool_]) -> Floats:
    """MMD² of one prompt for each way to part its answers. Shapes: (n, n), (W, n) → (W,)"""
    pairs = alike - np.diag(np.diag(alike))  # nobody is compared with itself
    first = is_first.astype(np.float64)
    second = 1.0 - first
    near_first, near_second = first @ pairs, second @ pairs  # (W, n)
    m, n = first[0].sum(), second[0].sum()
    within_first = (near_first * first).sum(axis=1) / (m * (m - 1))
    within_second = (near_second * second).sum(axis=1) / (n * (n - 1))
    return within_first + within_second - 2.0 * (near_first * second).sum(axis=1) / (m * n)


def _g_statistics(first: NDArray[np.int64], totals: NDArray[np.int64]) -> Floats:
    """G of each table with these totals whose first row is given. Shapes: (W, C), (C,) → (W,)"""
    size, every = first.sum(axis=1, keepdims=True), totals.sum()
    own = special.rel_entr(first, size * (totals / every)).sum(axis=1)
    other = special.rel_entr(totals - first, (every - size) * (totals / every)).sum(axis=1)
    return np.maximum(0.0, 2.0 * (own + other))


def _share_as_large(drawn: Floats, observed: float) -> float:
    """The p-value of a resampled test: the observed arrangement is one of those possible."""
    return float((1 + (drawn >= observed - SAME).sum()) / (1 + len(drawn)))


def _table(before: ArrayLike, after: ArrayLike) -> NDArray[np.int64]:
    """Both samples' counts of the categories that came at all. Shapes: (2, C)"""
    first, second = np.asarray(before, np.float64), np.asarray(after, np.float64)
    if first.shape != second.shape or first.ndim != 1:
        raise InputError(
            f"counts of {first.size} and of {second.size} categories: expected the same"
        )
    table = np.stack([first, second])
    if not (np.isfinite(table).all() and (table >= 0).all() and (table % 1 == 0).all()):
        raise InputError(f"counts are whole numbers from 0 on, got {table.tolist()}")
    return table[:, table.sum(axis=0) > 0].astype(np.int64)


def _check_prompts(before: Mapping[str, Sequence[str]], after: Mapping[str, Sequence[str]]) -> None:
    if not before:
        raise InputError("there is no prompt to compare answers to")
    if alone := sorted(before.keys() ^ after.keys()):
        raise InputError(f"{len(alone)} prompts are in one sample only, such as {alone[0]!r}")
    for prompt in before:
        m, n = len(before[prompt]), len(after[prompt])
        if min(m, n) < 2:
            raise InputError(
                f"{prompt!r} has {m} answers before and {n} after: each needs 2 or more",
                hint="ask each prompt at least twice: how far an endpoint varies by itself is the"
                " measure of how far it changed",
            )
