"""What a few human labels make of many automatic judgements.

In: labels by people on a few rows, and what an automatic judge says of these and of many more.
Out: an estimate with an interval that holds with the confidence asked for.

  ppi_mean           the labels' mean, sharpened by how the judge's mean elsewhere differs from its
                     mean on the labelled rows. It holds however bad the judge is: one that does not
                     agree with the labels gets the weight 0. A normal approximation, too sure where
                     the labels are all alike or the judge was never seen to err
  rogan_gladen_rate  a share of yes corrected by the judge's own rates of error, for labels whose
                     share of yes is not that of the rows. The interval is Lang and Reiczigel's: the
                     delta method over all three rates, with observations added so that it holds
                     where few errors were seen or none, and the plain one does not
                     (test_rogan_gladen_covers_where_the_plain_delta_method_does_not)
  clustered_mean     a mean of rows that come in sessions, with the error that sessions have

Rows are independent in the first two: of sessions, give the mean of each. Invariants: without the
judge ppi_mean is the classical interval (test_ppi_without_weight_is_the_classical_mean); so is
clustered_mean where each row is its own cluster (test_clustered_mean_of_single_rows_matches_scipy).
Sources: Angelopoulos, Duchi and Zrnic, PPI++ (arXiv:2311.01453); Rogan and Gladen, American Journal
of Epidemiology 107 (1978); Lang and Reiczigel, Preventive Veterinary Medicine 113 (2014); Miller,
Adding Error Bars to Evals (arXiv:2411.00640), section 2.2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from ownweights.core.errors import InputError
from ownweights.verdict.statistics.binomial import Floats

MIN_ACCURACY_SUM = (
    1.2  # sensitivity + specificity; at 1 a judge guesses, and the formula has no value
)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value, and the interval around it."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Confusion:
    """What a judge said of rows whose truth is known."""

    true_yes: int
    false_no: int
    true_no: int
    false_yes: int

    @property
    def yes(self) -> int:
        return self.true_yes + self.false_no

    @property
    def no(self) -> int:
        return self.true_no + self.false_yes

    @property
    def sensitivity(self) -> float:
        return self.true_yes / self.yes

    @property
    def specificity(self) -> float:
        return self.true_no / self.no


def ppi_weight(human: ArrayLike, judged: ArrayLike, judged_elsewhere: ArrayLike) -> float:
    """The weight of the judge that makes the interval of `ppi_mean` narrowest, from 0 to 1."""
    labels, scores, others = _checked(human, judged, judged_elsewhere)
    spread = float(np.var(np.concatenate([scores, others]), ddof=1))
    if spread == 0.0:
        return 0.0  # who says the same of every row says nothing
    shared = float(np.cov(labels, scores)[0, 1])
    return min(1.0, max(0.0, shared / ((1.0 + len(labels) / len(others)) * spread)))


def ppi_mean(
    human: ArrayLike,
    judged: ArrayLike,
    judged_elsewhere: ArrayLike,
    *,
    weight: float | None = None,
    delta: float = 0.05,
) -> Estimate:
    """The mean of the human label over all rows, from the few that have one.

    `weight` 0 ignores the judge, 1 takes it at its word but for the shift, None finds the best.
    The interval is a normal approximation: where fewer than about five labels are harm, it covers
    less than it says, and exact bounds of the judge's two error rates are the better way
    (verdict/judge/agreement.py).
    Shapes: human, judged (n,) of the same rows; judged_elsewhere (N,) of the rows without a label
    """
    labels, scores, others = _checked(human, judged, judged_elsewhere)
    trust = ppi_weight(labels, scores, others) if weight is None else weight
    rest = labels - trust * scores
    value = float(trust * others.mean() + rest.mean())
    variance = rest.var(ddof=1) / len(rest) + trust**2 * others.var(ddof=1) / len(others)
    reach = float(special.ndtri(1.0 - delta / 2)) * math.sqrt(variance)
    return Estimate(value, value - reach, value + reach)


def rogan_gladen_rate(
    said_yes: int, n: int, confusion: Confusion, *, delta: float = 0.05
) -> Estimate:
    """The true share of yes among `n` rows of which the judge said yes to `said_yes`.

    Raises: InputError when the judge is too near to guessing for a correction to mean anything.
    """
    z = float(special.ndtri(1.0 - delta / 2))
    if min(n, confusion.yes, confusion.no) == 0:
        raise InputError("the correction needs judged rows, and labelled ones of both kinds")
    said, said_variance = _padded(said_yes, n, z * z / 2)
    sens, sens_variance = _padded(confusion.true_yes, confusion.yes, 1.0)
    spec, spec_variance = _padded(confusion.true_no, confusion.no, 1.0)
    _check_judge(confusion, sens + spec)
    gain = sens + spec - 1.0
    middle = (said + spec - 1.0) / gain
    shift = 2 * z * z * (middle * sens_variance - (1.0 - middle) * spec_variance)
    variance = said_variance + (1.0 - middle) ** 2 * spec_variance + middle**2 * sens_variance
    reach = z * math.sqrt(variance) / gain
    low, high = _share(middle + shift - reach), _share(middle + shift + reach)
    surplus = said_yes / n + confusion.specificity - 1.0
    value = _share(surplus / (confusion.sensitivity + confusion.specificity - 1.0))
    return Estimate(value, min(low, value), max(high, value))


def clustered_se(values: ArrayLike, clusters: ArrayLike) -> float:
    """The standard error of the mean of rows that are alike within their cluster."""
    return _clustered(values, clusters)[1]


def clustered_mean(values: ArrayLike, clusters: ArrayLike, *, delta: float = 0.05) -> Estimate:
    """The mean of all rows, with the interval that independent clusters allow (Student's t)."""
    mean, error, num_clusters = _clustered(values, clusters)
    reach = float(special.stdtrit(num_clusters - 1, 1.0 - delta / 2)) * error
    return Estimate(mean, mean - reach, mean + reach)


def _clustered(values: ArrayLike, clusters: ArrayLike) -> tuple[float, float, int]:
    """The mean, its standard error, and how many clusters there are."""
    rows, names = np.asarray(values, np.float64), np.asarray(clusters)
    if len(rows) != len(names):
        raise InputError(f"{len(rows)} values, but {len(names)} clusters to put them in")
    found, places = np.unique(names, return_inverse=True)
    if len(found) < 2:
        raise InputError(
            f"{len(found)} cluster: how far clusters differ needs at least 2",
            hint="give the session of each row",
        )
    _check_numbers(rows)
    mean = float(rows.mean())
    totals = np.bincount(places, weights=rows - mean)
    inflation = len(found) / (len(found) - 1)
    return mean, math.sqrt(inflation * float(totals @ totals)) / len(rows), len(found)


def _check_judge(confusion: Confusion, padded_sum: float) -> None:
    if min(padded_sum, confusion.sensitivity + confusion.specificity) < MIN_ACCURACY_SUM:
        raise InputError(
            f"the judge knows {confusion.true_yes} of {confusion.yes} yes and {confusion.true_no}"
            f" of {confusion.no} no: too near to guessing for a correction",
            hint="take another judge, more labels, or the human labels alone",
        )


def _padded(count: int, n: int, extra: float) -> tuple[float, float]:
    """A rate and its variance, after as many successes more as failures."""
    rate, size = (count + extra) / (n + 2 * extra), n + 2 * extra
    return rate, rate * (1.0 - rate) / size


def _share(value: float) -> float:
    return min(1.0, max(0.0, value))


def _checked(*given: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Labels, judgements of the same rows, and judgements of others: enough, and all numbers."""
    labels, scores, others = (np.asarray(values, np.float64) for values in given)
    if len(labels) != len(scores):
        raise InputError(f"{len(labels)} rows have a human label, the judge saw {len(scores)}")
    if min(len(labels), len(others)) < 2:
        raise InputError(
            f"{len(labels)} rows with a human label and {len(others)} without: each needs 2 or more"
        )
    for values in (labels, scores, others):
        _check_numbers(values)
    return labels, scores, others


def _check_numbers(values: Floats) -> None:
    if not np.isfinite(values).all():
        raise InputError(
            "a value is not a number, and has no place in a mean",
            hint="leave out the rows that nobody could judge, and say how many they were",
        )
