"""How far a judge can be believed: its verdicts beside those of people, and what follows.

In: for some pairs what people said (win, tie or loss for the student) and what the judge said.
Out: an Agreement, raw and beyond chance, with the rates at which the judge misses harm and imagines
it; then the harm that people would have found among many pairs that only the judge has seen.

Harm is a loss. Where the judge is undecided or silent a certificate counts harm, and so do
sensitivity, specificity and the correction here: they are about what is certified. What is missed
is given as a share of *all* pairs too, with its upper bound: by so much at most does the judge make
a student look better than people would, among all (test_missed_harm_bound_holds). Among a part, as
those served, it may be that bound over the part's share. A pair of which people cannot say, or do
not agree, enters no rate, but counts as missed in that bound where the judge sees no harm.
The pairs that people label must be a random draw of those judged; sample_pairs draws them by hash.
Sources: Cohen, Educational and Psychological Measurement 20 (1960); for the corrections,
verdict/statistics/corrections.py.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ownweights.core.errors import InputError
from ownweights.verdict.judge.judge import LOSS, TIE_OUTCOME, UNDECIDED, WIN, Comparison, Pair
from ownweights.verdict.statistics.binomial import (
    clopper_pearson_interval,
    clopper_pearson_upper,
)
from ownweights.verdict.statistics.corrections import (
    Confusion,
    Estimate,
    ppi_mean,
    rogan_gladen_rate,
)

OUTCOMES = (WIN, TIE_OUTCOME, LOSS)
MIN_LABELS = 20  # fewer say next to nothing: no error in 19 allows 15 %
DELTA = 0.05  # of every interval here
SALT = "ownweights-labels-1"


@dataclass(frozen=True, slots=True)
class Share:
    """A count among n, and its exact interval of 95 %."""

    count: int
    n: int

    @property
    def frac(self) -> float | None:
        return self.count / self.n if self.n else None

    @property
    def interval(self) -> tuple[float, float]:
        return clopper_pearson_interval(self.count, self.n, DELTA)


@dataclass(frozen=True, slots=True)
class Agreement:
    """A judge beside people, on the same pairs. A kappa is None where one side never varies."""

    labelled: int
    open: int  # undecided or not judged: left out of the four figures that follow
    raw: Share
    kappa: float | None
    without_ties: Share  # of the pairs that neither side calls a tie
    human_ceiling: Share | None  # how often two people agree, where two have labelled
    human_kappa: float | None
    confusion: Confusion  # of harm as it is certified: what the judge leaves open counts as harm
    unsaid: int = 0  # pairs besides, of which people could not say, or did not agree
    unsaid_missed: int = 0  # those of them where the judge sees no harm

    @property
    def sensitivity(self) -> Share:
        """Of the pairs that people call harm, those that the judge does."""
        return Share(self.confusion.true_yes, self.confusion.yes)

    @property
    def specificity(self) -> Share:
        """Of the pairs that people call no harm, those that the judge does."""
        return Share(self.confusion.true_no, self.confusion.no)

    @property
    def missed_high(self) -> float:
        """Of all pairs, at most this share is harm that the judge does not see (95 % sure)."""
        missed = self.confusion.false_no + self.unsaid_missed
        return clopper_pearson_upper(missed, self.labelled + self.unsaid, DELTA)


def measure_agreement(
    comparisons: Iterable[Comparison], labels: Mapping[str, Sequence[str]]
) -> Agreement:
    """The judge's verdicts beside the labels; `labels` has what each person said, by pair.

    Of several people the majority is taken; pairs that have labels but no majority are `unsaid`.
    Raises: InputError when fewer than MIN_LABELS pairs have both
    """
    seen = [(majority(labels[one.id]), one) for one in comparisons if one.id in labels]
    both = [(label, one) for label, one in seen if label is not None]
    unsaid = [one for label, one in seen if label is None]
    if len(both) < MIN_LABELS:
        raise InputError(
            f"{len(both)} of the judged pairs have a human label: at least {MIN_LABELS} are needed",
            hint="label more of the queue",
        )
    read = [(label, one.outcome) for label, one in both if one.outcome in OUTCOMES]
    decided = [(label, said) for label, said in read if TIE_OUTCOME not in (label, said)]
    people = [(said[0], said[1]) for said in labels.values() if len(said) > 1]
    return Agreement(
        labelled=len(both),
        open=len(both) - len(read),
        raw=_same(read),
        kappa=cohen_kappa(read),
        without_ties=_same(decided),
        human_ceiling=_same(people) if people else None,
        human_kappa=cohen_kappa(people),
        confusion=_confusion(both),
        unsaid=len(unsaid),
        unsaid_missed=sum(not _sees_harm(one) for one in unsaid),
    )


def corrected_harm(confusion: Confusion, said_harm: int, n: int) -> Estimate:
    """The share of harm that people would find among n other pairs; the judge found `said_harm`.

    Prediction-powered: right however bad the judge is, given that the labelled pairs were drawn
    like the others. Its interval is a normal approximation, too sure where harm is rare or the
    judge was hardly seen to err; so it is taken after one labelled pair more of each of the four
    kinds (test_corrected_harm_covers_where_the_plain_interval_does_not).
    """
    others = [1.0] * said_harm + [0.0] * (n - said_harm)
    value = _share(ppi_mean(*_rows(confusion, 0), others, delta=DELTA).value)
    padded = ppi_mean(*_rows(confusion, 1), others, delta=DELTA)
    return Estimate(value, min(_share(padded.low), value), max(_share(padded.high), value))


def corrected_by_rates(confusion: Confusion, said_harm: int, n: int) -> Estimate:
    """The same from sensitivity and specificity alone: for labels that are no random draw.

    Raises: InputError when the judge is too near to guessing
    """
    return rogan_gladen_rate(said_harm, n, confusion, delta=DELTA)


def cohen_kappa(pairs: Sequence[tuple[str, str | None]]) -> float | None:
    """Agreement beyond chance: 1 is perfect, 0 is what two who know nothing would have."""
    n = len(pairs)
    left, right = Counter(one for one, _ in pairs), Counter(two for _, two in pairs)
    chance = sum(left[word] * right[word] for word in left) / n**2 if n else 1.0
    if chance == 1.0:
        return None
    return (sum(one == two for one, two in pairs) / n - chance) / (1.0 - chance)


def majority(said: Sequence[str]) -> str | None:
    """What most people said; None where nobody did, or no outcome has the most votes."""
    ranked = Counter(said).most_common(2)
    if not ranked or (len(ranked) == 2 and ranked[0][1] == ranked[1][1]):
        return None
    return ranked[0][0]


def sample_pairs(pairs: Sequence[Pair], num: int) -> list[Pair]:
    """`num` pairs for people to label, drawn by hash: blind to what the judge says of them."""
    return sorted(pairs, key=_lot)[:num]


def _lot(pair: Pair) -> str:
    return hashlib.sha256(f"{SALT}\x1f{pair.id}".encode("utf-8", "surrogatepass")).hexdigest()


def _same(pairs: Sequence[tuple[str, str | None]]) -> Share:
    return Share(sum(one == two for one, two in pairs), len(pairs))


def _sees_harm(one: Comparison) -> bool:
    """Harm as it is certified: what the judge leaves open counts as harm."""
    return one.outcome in (LOSS, UNDECIDED, None)


def _confusion(both: Sequence[tuple[str, Comparison]]) -> Confusion:
    counts = Counter((label == LOSS, _sees_harm(one)) for label, one in both)
    return Confusion(
        true_yes=counts[True, True], false_no=counts[True, False],
        true_no=counts[False, False], false_yes=counts[False, True],
    )  # fmt: skip


def _rows(seen: Confusion, extra: int) -> tuple[list[float], list[float]]:
    """What people and the judge said of the labelled pairs, row by row."""
    kinds = (
        (1.0, 1.0, seen.true_yes), (1.0, 0.0, seen.false_no), (0.0, 0.0, seen.true_no),
        (0.0, 1.0, seen.false_yes),
    )  # fmt: skip
    rows = [(human, judged) for human, judged, num in kinds for _ in range(num + extra)]
    return [human for human, _ in rows], [judged for _, judged in rows]


def _share(value: float) -> float:
    return min(1.0, max(0.0, value))
