"""What a verdict says, as frozen values and as JSON: the claim, the evidence, the fine print.

A `Verdict` is either a certificate (`issued`, with a threshold that a route may use) or a refusal
(reasons, failing slices, examples needed). Its file is `certificate.json` or `refusal.json`; both
have the same keys. Nothing here computes: verdict/decision.py does.
Invariants: reading back what was written gives the same value (test_verdict_survives_json).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ownweights.core.errors import ArtefactError, SettingsError
from ownweights.verdict.risks.section import Risks

PAIRED = ("C", "D")  # the claims that may be asked for besides the two of every certificate
PAIRED_FIELDS = ("paired", "margin")
SMALLEST_SHARE = 1e-9  # no traffic proves less, and an attempt's part of it is still a number
Conclusion = Literal["not_worse", "worse", "undecided", "says_nothing"]


@dataclass(frozen=True, slots=True)
class Claim:
    """What is to be proved, written down before the certify data are read."""

    alpha: float = 0.05  # of all requests, one from each unit: at most this share gets worse
    beta: float = 0.10  # of those of them the student serves: at most this share
    delta: float = 0.05  # chance that the claim is wrong, over all attempts on the workload
    min_coverage_frac: float = 0.10  # serving less than this is not worth a route
    paired: tuple[str, ...] = ()  # C: quality, D: the teacher's own noise; in that order
    margin: float = 0.02  # of C and D: by so much may the student be worse

    def __post_init__(self) -> None:
        if unknown := set(self.paired) - set(PAIRED):
            raise SettingsError(
                f"verdict claims names {', '.join(sorted(unknown))}, expected any of C and D",
                hint="A and B are always claimed; C and D are the optional ones",
            )
        object.__setattr__(self, "paired", tuple(one for one in PAIRED if one in self.paired))
        for name in ("alpha", "beta", "delta", "min_coverage_frac", "margin"):
            value = getattr(self, name)
            top = 1.0 if name != "min_coverage_frac" else 1.0 + 1e-12
            if not SMALLEST_SHARE <= value < top:
                raise SettingsError(
                    f"verdict {name} is {value!r}, expected a share between 0 and 1, and no less"
                    f" than {SMALLEST_SHARE:g}",
                    hint="for 5 % write 0.05",
                )

    def delta_each(self, delta: float) -> float:
        """What A and B together, C, and D may each spend of an attempt's error."""
        return delta / (1 + len(self.paired))

    def plan(self) -> dict[str, Any]:
        """The claim as a plan names it: without C and D as it was before there were any."""
        known = dataclasses.asdict(self)
        return known if self.paired else {k: known[k] for k in known if k not in PAIRED_FIELDS}

    def sentence(self, of: str) -> str:
        """The claim in words; `of` is what it counts."""
        return (
            f"at most {100 * self.alpha:.3g} % of all {of}, and at most {100 * self.beta:.3g} %"
            " of those the student answers itself, get a worse answer than the teacher would have"
            " given"
        )


@dataclass(frozen=True, slots=True)
class Subject:
    """What a verdict is about: everything whose change voids it."""

    workload: str = ""
    student: str = ""  # artefact ids are content hashes
    dataset: str = ""
    check: str = "exact"
    is_graded: bool = False  # harm may lie between 0 and 1
    confidence: Mapping[str, Any] = field(default_factory=dict[str, Any])
    decoding: Mapping[str, Any] = field(default_factory=dict[str, Any])
    teachers: tuple[str, ...] = ()
    teacher_state: Mapping[str, Any] = field(default_factory=dict[str, Any])  # as drift knows it
    split_by: str = "prompt"
    period: tuple[float, float] | None = None  # unix seconds of the first and last record
    units_per_record: float = 0.08  # certify units that one more record brings
    unanswered: int = 0  # certify requests without a teacher's answer: not part of the claim
    judge: Mapping[str, Any] = field(default_factory=dict[str, Any])  # where a judge was the check
    timeout_s: float = 60.0  # for each answer; 60, as it was, where a file does not say
    compared: tuple[Mapping[str, Any], ...] = ()  # the scores that develop chose among, best first

    @property
    def counted(self) -> str:
        """What the claim counts: a request drawn from each unit, however many the unit holds."""
        by = self.split_by.removeprefix("meta:")
        unit = {
            "prompt": "distinct prompt",
            "session": "session",
            "session-or-prompt": "session or, where there is none, distinct prompt",
        }.get(by, f"distinct {by}")
        return f"requests drawn one from each {unit}"


@dataclass(frozen=True, slots=True)
class Slice:
    """One part of the traffic: how often the student's answer there did harm (served or not)."""

    key: str
    value: str
    n: int
    harms: int
    low: float  # 95 % Clopper-Pearson interval of the harm rate, for this slice alone
    high: float
    is_failing: bool  # harm rate above beta

    @property
    def harm_frac(self) -> float:
        return self.harms / self.n if self.n else 0.0


@dataclass(frozen=True, slots=True)
class Examples:
    """Roughly what a refused claim would need; `units` is None when no number would do."""

    units: int | None
    records: int | None  # fresh traffic that brings so many certify units
    reason: str


@dataclass(frozen=True, slots=True)
class Corrected:
    """The harm that people would find among all answers, served or not, where they measured the
    judge: an estimate with its interval of 95 %, beside what the judge found.
    """

    judged_frac: float
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class PairedClaim:
    """What one optional claim came to, on the requests served or, refused, on all answered."""

    name: str  # C or D
    conclusion: Conclusion
    reason: str
    margin: float
    delta: float  # its share of the attempt's error
    among: str  # served or answered
    n: int
    better: int  # units where the student came out ahead
    worse: int
    mean: float  # difference student - teacher
    low: float  # confidence sequence, after the last unit
    high: float
    e_value: float  # of "not worse by more than the margin"
    p_value: float
    p_worse: float  # of "worse by more than the margin"
    num_tests: int  # slices that had to pass on the way to this one
    tango: float | None  # a second opinion, where every difference is -1, 0 or 1
    teacher_frac: float | None = None  # claim D: a second answer of the teacher differs
    student_frac: float | None = None  # claim D: the student's differs
    units: int | None = None  # roughly what it would take to prove; None: no number would


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A range of scores: the harm that an isotonic fit on develop predicts, and what was seen on
    certify, with its 95 % Clopper-Pearson interval.
    """

    score_low: float
    score_high: float
    n: int
    predicted: float
    harms: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class ByRequest:
    """Certify counted request by request, each as often as it came: measured, never certified."""

    n: int
    n_served: int
    harms: float
    losses: int
    # 95 % interval over units; None: from before it was counted
    coverage_low: float | None = None
    coverage_high: float | None = None

    @property
    def coverage_frac(self) -> float:
        return self.n_served / self.n if self.n else 0.0

    @property
    def harm_all_frac(self) -> float:
        return (self.harms + self.losses) / self.n if self.n else 0.0

    @property
    def harm_served_frac(self) -> float:
        return self.harms / self.n_served if self.n_served else 0.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What judging a student against its teacher showed."""

    issued: bool
    claim: Claim
    subject: Subject
    attempt: int
    delta_spent: float
    n: int  # independent certify units
    n_served: int  # at the threshold; at the first one tested for a refusal
    harms: float
    losses: int  # errors and time-outs: the teacher answered, they count against alpha
    unjudged: int  # certify answers nobody could judge: counted as harm
    ineligible: int  # requests the teacher keeps
    num_used: int  # certify units left out because earlier attempts had seen them
    p_all: float
    p_served: float
    threshold: float | None
    coverage_frac: float
    coverage_low: float  # 95 % Clopper-Pearson interval
    coverage_high: float
    method: str
    assumptions: tuple[str, ...]
    expires: tuple[str, ...]
    reasons: tuple[str, ...] = ()
    slices: tuple[Slice, ...] = ()
    needed: Examples | None = None
    corrected: Corrected | None = None
    paired: tuple[PairedClaim, ...] = ()
    calibration: tuple[Calibrated, ...] = ()  # of the score; nothing rests on it
    risks: Risks | None = None  # None: nobody looked; nothing rests on it
    by_request: ByRequest | None = None  # at the same threshold; None: from before it was counted
    id: str = ""  # of the artefact; not part of its own content

    def to_dict(self) -> dict[str, Any]:
        """The JSON form, claim in words included."""
        found = dataclasses.asdict(self)
        del found["id"]
        return {"claim_in_words": sentence(self), **found}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, verdict_id: str = "") -> Verdict:
        """The verdict in a JSON object; ArtefactError when it is none."""
        try:
            known = {f.name for f in dataclasses.fields(cls)} - {"id"}
            found = {key: value for key, value in data.items() if key in known}
            subject = dict(found["subject"])
            subject["teachers"] = tuple(subject["teachers"])
            subject["period"] = tuple(subject["period"]) if subject["period"] else None
            subject["compared"] = tuple(subject.get("compared", ()))
            needed, corrected = found.get("needed"), found.get("corrected")
            risks, by_request = found.get("risks"), found.get("by_request")
            found |= {
                "claim": Claim(**found["claim"]),
                "subject": Subject(**subject),
                "slices": tuple(Slice(**one) for one in found["slices"]),
                "needed": Examples(**needed) if needed else None,
                "corrected": Corrected(**corrected) if corrected else None,
                "paired": tuple(PairedClaim(**one) for one in found.get("paired", ())),
                "calibration": tuple(Calibrated(**one) for one in found.get("calibration", ())),
                "risks": Risks.from_dict(risks) if risks else None,
                "by_request": ByRequest(**by_request) if by_request else None,
            }
            for name in ("assumptions", "expires", "reasons"):
                found[name] = tuple(found[name])
            return cls(**found, id=verdict_id)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ArtefactError(f"not a certificate or refusal: {error!r}") from None


def sentence(verdict: Verdict) -> str:
    """What the verdict says, in one sentence for a reader in a hurry."""
    claim, counted = verdict.claim, verdict.subject.counted
    if not verdict.issued:
        return f"Not replaceable yet: not proved that {claim.sentence(counted)}."
    return (
        f"The student may answer {verdict.coverage_frac:.0%} of {counted}:"
        f" {claim.sentence('these')}, with {100 * (1 - claim.delta):.3g} % confidence."
    )


def request_warnings(verdict: Verdict) -> list[str]:
    """Where a certificate's limits do not hold for requests counted as often as they came."""
    by, claim = verdict.by_request, verdict.claim
    if by is None or not verdict.issued:
        return []
    shares = (
        (by.harm_all_frac, claim.alpha, "all requests"),
        (by.harm_served_frac, claim.beta, "those served"),
    )
    return [
        f"Warning: counted as often as each request came, {100 * share:.3g} % of {among} came to"
        f" harm, more than {100 * limit:.3g} %: the claim counts one request from each unit, and"
        " units that hold many requests do worse."
        for share, limit, among in shares
        if share > limit
    ]
