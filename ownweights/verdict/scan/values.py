"""What a scan says of a workload. None is "unknown" throughout, and never zero."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ownweights.dataset.options import DatasetOptions
from ownweights.teacher.prices import OWN_TOML, Prices
from ownweights.verdict.certificate import Claim

DAYS_PER_MONTH = 30


@dataclass(frozen=True, slots=True)
class Plan:
    """How a workload would be studied, and what would be claimed of its student."""

    dataset: DatasetOptions = field(default_factory=DatasetOptions)
    claim: Claim = field(default_factory=Claim)
    prices: Prices | None = None


@dataclass(frozen=True, slots=True)
class Period:
    """When records passed, in unix seconds, and how many a day; of those whose time is known."""

    num_timed: int
    first_at: float | None
    last_at: float | None
    days: float | None
    per_day: float | None


@dataclass(frozen=True, slots=True)
class Repeats:
    """How often the same is asked. `near` counts questions that are like another one."""

    distinct: int  # requests, to the letter
    repeat_frac: float  # records beyond the first of each
    questions: int  # distinct once case, punctuation and digits do not count
    near: int | None  # None: too many questions, or too long ones, to compare


@dataclass(frozen=True, slots=True)
class Units:
    """What is independent of each other, by the rule of `own dataset build`."""

    split_by: str
    reason: str
    num: int
    certify: int  # that the certify split would hold


@dataclass(frozen=True, slots=True)
class Agreement:
    """How often two answers of the teacher to one request agree; one pair a unit, 95 % interval.

    `ceiling` bounds how often any student could agree with a fresh answer.
    """

    check: str
    units: int  # that hold a request answered twice
    agree: int
    frac: float | None
    low: float
    high: float
    ceiling: float
    once_frac: float  # of the coverable records: asked once


@dataclass(frozen=True, slots=True)
class TokenCount:
    """Tokens that the teacher read and wrote; estimated from characters where not recorded."""

    tokens_in: float
    tokens_out: float
    recorded_frac: float  # of the answers, those whose tokens were recorded
    chars_per_token: float  # used for the rest


@dataclass(frozen=True, slots=True)
class Coverage:
    """How many of the requests a certified student could answer.

    `extrapolated_frac` is the most of them under the claim if the teacher's answers to requests
    asked once vary as those to requests asked twice; None where none was asked twice.
    """

    coverable_frac: float  # at most: a form that some student could answer, an answer to judge by
    extrapolated_frac: float | None
    kept_back: Mapping[str, int]  # why the others stay with the teacher


@dataclass(frozen=True, slots=True)
class Cost:
    """US dollars: of the records scanned, of a month like them, and what could be saved at most."""

    usd: float
    saving_usd: float
    usd_per_month: float | None
    saving_usd_per_month: float | None
    extrapolated_saving_usd: float | None  # of the records; at Coverage.extrapolated_frac
    price_source: str = OWN_TOML


@dataclass(frozen=True, slots=True)
class Need:
    """What a certificate would take if so large a share of the served answers did harm."""

    harm_frac: float
    units: int | None  # of certify; None: no number would do
    records: int | None  # of traffic that bring so many
    days: float | None  # of this traffic
    reason: str


@dataclass(frozen=True, slots=True)
class WorkloadScan:
    """One workload before anything is trained."""

    workload: str
    records: int
    by_student: int  # answered by a student already: no cost of the teacher's
    errors: int
    models: tuple[str, ...]
    period: Period
    repeats: Repeats
    units: Units
    agreement: Agreement
    tokens: TokenCount
    coverage: Coverage
    cost: Cost | None  # None: no price known
    needs: tuple[Need, ...]
